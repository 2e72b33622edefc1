"""Each trial's own optimizer, applied to its rows of a stack: by torch's kernels a trial at a time, or by the pure rule to all at once.

Large models are moved by the optimizers of their own trainings, whose fused kernels read and write
a trial's weights once. For small ones most of that would be Python: there the optimizer's pure
update rule runs under torch.func.vmap, each trial with its own numbers, over all parameters laid
end to end where the rule moves each entry by itself. One stack may hold trials of several
optimizers: neighbours in the stack that share a rule are moved together.

k trials of one rule, P numbers of a trial's parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import vmap

from danlu import registry
from danlu.compat.torch_optim import straight
from danlu.recipe import Recipe
from danlu.training.population.stack import Stack
from danlu.training.population.trial_state import Lane
from danlu.training.setup import groups_over, optimizer_over

SMALL = 40_000  # parameters of a model up to which the rule is faster than kernels of its own (docs/lab-notes.md)
_NO_OPTIONS = (
    "params",
    "learning_rate_scale",
    "weight_decay_scale",
)  # what a group holds that no rule reads


class Mover(Protocol):
    """Moves some rows of a stack."""

    def move(self, stack: Stack, rates: Sequence[float], step: int) -> None:
        """Update `step` (from 1); `rates` are the learning rates of all rows of the stack."""
        ...

    def keep(self, stack: Stack, which: Sequence[int]) -> None:
        """Go on with the rows of the stack that were at these places."""
        ...

    def copy(self, stack: Stack, source: int, target: int, recipe: Recipe) -> bool:
        """Give row `target` the state of row `source` and the numbers of `recipe`; False where the
        rows are not of this mover."""
        ...


def rule_key(recipe: Recipe) -> str:
    """Equal for trials that one rule can move together: the optimizer and all its options that are
    not numbers with a fraction."""
    options = recipe.optimizer.options.model_dump()
    fixed = {name: value for name, value in options.items() if not isinstance(value, float)}
    decays = bool(
        options.get("weight_decay", 0.0)
    )  # with a decay, what it spares stands in a group of its own
    return f"{recipe.optimizer.name} {sorted(fixed.items())} {decays} {recipe.finetune}"


def movers(stack: Stack, lanes: Sequence[Lane]) -> list[Mover]:
    """What moves the stack; lanes of one rule stand side by side."""
    small = stack.bytes_a_model <= SMALL * 4 or stack.placement.device.type == "cuda"
    result: list[Mover] = []
    start = 0
    while start < len(lanes):
        key = rule_key(lanes[start].recipe)
        end = start
        while end < len(lanes) and rule_key(lanes[end].recipe) == key:
            end += 1
        by_rule = (
            small
            and end - start >= 3
            and hasattr(registry.take("optimizers", lanes[start].recipe.optimizer.name), "update")
        )
        result.append(
            ByRule(stack, lanes[start:end], start)
            if by_rule
            else ByKernels(stack, lanes[start:end], start)
        )
        start = end
    return result


class ByKernels:
    """The optimizer of each trial's own training over its module, whose parameters are rows of the
    stack."""

    def __init__(self, stack: Stack, lanes: Sequence[Lane], first: int) -> None:
        self.places = list(range(first, first + len(lanes)))
        self.optimizers = [
            optimizer_over(stack.modules[place], lane.recipe)
            for place, lane in zip(self.places, lanes)
        ]
        self.straight: list[
            Any
        ] = []  # after a first step has made their state: their kernels alone
        self.wide: dict[
            str, Tensor
        ] = {}  # one trial's gradients of narrow matrices in the weights' own format

    def move(self, stack: Stack, rates: Sequence[float], step: int) -> None:
        """Each optimizer's own step."""
        gradients = {name: _dense(grad).unbind(0) for name, grad in stack.gradients().items()}
        narrow = {name: each.detach().unbind(0) for name, each in stack.narrow.items()}
        if narrow and not self.wide:
            self.wide = {name: torch.empty_like(stack.moving[name][0].detach()) for name in narrow}
        for number, (place, optimizer) in enumerate(zip(self.places, self.optimizers)):
            for group in optimizer.param_groups:
                group["lr"] = rates[place] * group.get("learning_rate_scale", 1.0)
            own = {name: each[place] for name, each in gradients.items()}
            for name in narrow:
                own[name] = self.wide[name].copy_(own[name])
            if self.straight and self.straight[number] is not None:
                update, names = self.straight[number]
                update([[own[name] for name in each] for each in names])
            else:
                for name, parameter in stack.parameters[place].items():
                    parameter.grad = own.get(name)
                optimizer.step()
            for name, rows in narrow.items():
                rows[place].copy_(stack.parameters[place][name].data)
        if not self.straight and len(gradients) == len(stack.names):
            self.straight = [
                self._straight(stack, place, each)
                for place, each in zip(self.places, self.optimizers)
            ]

    @staticmethod
    def _straight(stack: Stack, place: int, optimizer: Any) -> Any:
        """(the update, the names of the parameters it moves by group); None where only the
        optimizer itself can."""
        found = straight(optimizer)
        by_id = {id(each): name for name, each in stack.parameters[place].items()}
        names = [[by_id[id(each)] for each in group["params"]] for group in optimizer.param_groups]
        return None if found is None else (found, names)

    def keep(self, stack: Stack, which: Sequence[int]) -> None:
        """Let go of the optimizers of trials that left."""
        held = [
            (new, self.optimizers[self.places.index(old)])
            for new, old in enumerate(which)
            if old in self.places
        ]
        self.places, self.optimizers = (
            [new for new, _ in held],
            [optimizer for _, optimizer in held],
        )
        self.straight = []

    def copy(self, stack: Stack, source: int, target: int, recipe: Recipe) -> bool:
        """A new optimizer with the numbers of the recipe and the state of the source's."""
        if source not in self.places or target not in self.places:
            return False
        old = self.optimizers[self.places.index(source)]
        new = optimizer_over(stack.modules[target], recipe)
        new.load_state_dict(
            {"state": old.state_dict()["state"], "param_groups": new.state_dict()["param_groups"]}
        )
        for parameter, state in new.state.items():  # what is loaded may be the source's own tensors
            new.state[parameter] = {
                k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()
            }
        self.optimizers[self.places.index(target)] = new
        self.straight = []
        return True


def _dense(gradient: Tensor) -> Tensor:
    """The gradient laid out as a stack's parameters are: a fused kernel takes that for granted."""
    return gradient if gradient.is_contiguous() else gradient.contiguous()


@dataclass
class _Group:
    """Parameters that one set of numbers moves: their names, numbers (k,) in float64 and what is
    fixed, and their state."""

    names: list[str]
    numbers: dict[str, Tensor]
    fixed: dict[str, Any]
    scale: Tensor
    decay_scale: Tensor
    flat: bool
    states: list[dict[str, Tensor]]
    values: list[Tensor]


class ByRule:
    """The optimizer's pure rule over k rows at once."""

    def __init__(self, stack: Stack, lanes: Sequence[Lane], first: int) -> None:
        self.first, self.count = first, len(lanes)
        self.part = registry.take("optimizers", lanes[0].recipe.optimizer.name)
        self.elementwise = bool(getattr(self.part, "ELEMENTWISE", False))
        self.device = stack.placement.device
        own = [
            groups_over(stack.modules[first + place], lane.recipe)
            for place, lane in enumerate(lanes)
        ]
        self.groups = [
            self._group(stack, lanes, [each[number] for each in own])
            for number in range(len(own[0]))
        ]

    def _group(
        self, stack: Stack, lanes: Sequence[Lane], groups: Sequence[dict[str, Any]]
    ) -> _Group:
        """One parameter group of all lanes."""
        wanted = {id(each) for each in groups[0]["params"]}
        names = [name for name, each in stack.parameters[self.first].items() if id(each) in wanted]
        options = [
            {
                **lane.recipe.optimizer.options.model_dump(),
                **{name: value for name, value in own.items() if name not in _NO_OPTIONS},
            }
            for lane, own in zip(lanes, groups)
        ]
        numbers = {
            name: self._column([float(each[name]) for each in options])
            for name, value in options[0].items()
            if isinstance(value, float)
        }
        fixed = {name: value for name, value in options[0].items() if name not in numbers}
        scale = self._column([float(each.get("learning_rate_scale", 1.0)) for each in groups])
        decay_scale = self._column([float(each.get("weight_decay_scale", 1.0)) for each in groups])
        values = self._values(stack, names)
        flat = self.elementwise and len({(each.dtype, each.device) for each in values}) == 1
        if flat:
            values = [torch.cat([each.flatten(1) for each in values], dim=1)]
        states = [vmap(self._initial(fixed))(each) for each in values]
        return _Group(
            names, numbers, fixed, scale, decay_scale, flat, states, values if flat else []
        )

    def _initial(self, fixed: dict[str, Any]) -> Any:
        """The state a rule begins with; a table that an orthogonalizing rule spares begins like
        what is no matrix."""
        if fixed.get("muon") is False:
            return self.part.initial_of_table
        return self.part.initial

    def _column(self, values: Sequence[float]) -> Tensor:
        # in float32, 1 - 0.999 would keep 5 digits
        return torch.tensor(values, dtype=torch.float64, device=self.device)

    def _values(self, stack: Stack, names: Sequence[str]) -> list[Tensor]:
        """The weights of this mover's rows, (k, ...) each: views."""
        return [stack.moving[name].detach()[self.first : self.first + self.count] for name in names]

    def move(self, stack: Stack, rates: Sequence[float], step: int) -> None:
        """The rule, for every parameter group."""
        rate = self._column(rates[self.first : self.first + self.count])
        gradients = stack.gradients()
        with torch.no_grad():
            for group in self.groups:
                live = [name for name in group.names if name in gradients]
                if (
                    len(live) < len(group.names)
                ):  # a parameter that nothing reads gets no gradient in a training of its own either
                    gradients |= {
                        name: torch.zeros_like(stack.moving[name])
                        for name in group.names
                        if name not in gradients
                    }
                found = [
                    gradients[name][self.first : self.first + self.count] for name in group.names
                ]
                numbers = {**group.numbers, "learning_rate": rate * group.scale}
                if group.flat:
                    self._move_flat(stack, group, found, numbers, step)
                else:
                    self._move_each(stack, group, found, numbers, step)

    def _move_flat(
        self,
        stack: Stack,
        group: _Group,
        found: list[Tensor],
        numbers: dict[str, Tensor],
        step: int,
    ) -> None:
        gradient_kP = torch.cat([each.flatten(1) for each in found], dim=1)
        moved, group.states[0] = self._rule(group, step)(
            group.values[0], gradient_kP, group.states[0], numbers
        )
        group.values[0] = moved
        into = self._values(stack, group.names)
        sizes = [each[0].numel() for each in into]
        torch._foreach_copy_(
            into, [piece.view_as(each) for piece, each in zip(moved.split(sizes, dim=1), into)]
        )

    def _move_each(
        self,
        stack: Stack,
        group: _Group,
        found: list[Tensor],
        numbers: dict[str, Tensor],
        step: int,
    ) -> None:
        rule = self._rule(group, step)
        for place, (value, gradient) in enumerate(zip(self._values(stack, group.names), found)):
            moved, group.states[place] = rule(value, gradient, group.states[place], numbers)
            value.copy_(moved)

    def _rule(self, group: _Group, step: int) -> Any:
        def one(
            parameter: Tensor,
            gradient: Tensor,
            state: dict[str, Tensor],
            numbers: dict[str, Tensor],
        ) -> Any:
            return self.part.update(parameter, gradient, state, step, {**group.fixed, **numbers})

        return vmap(one)

    def keep(self, stack: Stack, which: Sequence[int]) -> None:
        """Go on with the rows that stayed."""
        mine = [old - self.first for old in which if self.first <= old < self.first + self.count]
        new = [
            place for place, old in enumerate(which) if self.first <= old < self.first + self.count
        ]
        self.first, self.count = (new[0] if new else 0), len(mine)
        index = torch.tensor(mine, dtype=torch.int64, device=self.device)
        for group in self.groups:
            group.numbers = {name: each[index] for name, each in group.numbers.items()}
            group.scale = group.scale[index]
            group.decay_scale = group.decay_scale[index]
            group.states = [
                {name: each[index] for name, each in state.items()} for state in group.states
            ]
            group.values = [each[index] for each in group.values]

    def copy(self, stack: Stack, source: int, target: int, recipe: Recipe) -> bool:
        """Rows of the state copied, numbers taken from the recipe."""
        inside = range(self.first, self.first + self.count)
        if source not in inside or target not in inside:
            return False
        here, there = source - self.first, target - self.first
        options = recipe.optimizer.options.model_dump()
        for group in self.groups:
            for state in group.states:
                for each in state.values():
                    each[there] = each[here]
            for each in group.values:
                each[there] = each[here]
            for name, column in group.numbers.items():
                if name in options and not (name == "weight_decay" and float(column[there]) == 0.0):
                    column[there] = float(options[name]) * (
                        float(group.decay_scale[there]) if name == "weight_decay" else 1.0
                    )
        return True
