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
from danlu.compat.torch_optim import fused_update
from danlu.recipe import Recipe
from danlu.training.population.stack import Stack
from danlu.training.population.trial_state import TrialState
from danlu.training.setup import groups_over, optimizer_over

SMALL = 40_000  # parameters of a model up to which the rule is faster than kernels of its own (docs/lab-notes.md)
_NO_OPTIONS = (
    "params",
    "learning_rate_scale",
    "weight_decay_scale",
)  # what a group holds that no rule reads


class BatchedOptimizer(Protocol):
    """Moves some rows of a stack."""

    def step(self, stack: Stack, rates: Sequence[float], step: int) -> None:
        """Update `step` (from 1); `rates` are the learning rates of all rows of the stack."""
        ...

    def keep_rows(self, stack: Stack, which: Sequence[int]) -> None:
        """Go on with the rows of the stack that were at these places."""
        ...

    def copy_row(self, stack: Stack, source: int, target: int, recipe: Recipe) -> bool:
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


def build_optimizers(stack: Stack, lanes: Sequence[TrialState]) -> list[BatchedOptimizer]:
    """What moves the stack; lanes of one rule stand side by side."""
    small = stack.bytes_per_model <= SMALL * 4 or stack.placement.device.type == "cuda"
    result: list[BatchedOptimizer] = []
    start = 0
    while start < len(lanes):
        key = rule_key(lanes[start].recipe)
        end = start
        while end < len(lanes) and rule_key(lanes[end].recipe) == key:
            end += 1
        by_rule = (
            small
            and end - start >= 3
            and registry.optimizer_facts(lanes[start].recipe.optimizer.name).update is not None
        )
        result.append(
            VmappedRule(stack, lanes[start:end], start)
            if by_rule
            else OptimizerPerTrial(stack, lanes[start:end], start)
        )
        start = end
    return result


class OptimizerPerTrial:
    """The optimizer of each trial's own training over its module, whose parameters are rows of the
    stack."""

    def __init__(self, stack: Stack, lanes: Sequence[TrialState], first: int) -> None:
        self.places = list(range(first, first + len(lanes)))
        self.optimizers = [
            optimizer_over(stack.modules[row], lane.recipe) for row, lane in zip(self.places, lanes)
        ]
        self.fused: list[Any] = []  # after a first step has made their state: their kernels alone
        self.wide: dict[
            str, Tensor
        ] = {}  # one trial's gradients of narrow matrices in the weights' own format

    def step(self, stack: Stack, rates: Sequence[float], step: int) -> None:
        """Each optimizer's own step."""
        gradients = {name: _dense(grad).unbind(0) for name, grad in stack.gradients().items()}
        narrow = {name: each.detach().unbind(0) for name, each in stack.low_precision.items()}
        if narrow and not self.wide:
            self.wide = {name: torch.empty_like(stack.trained[name][0].detach()) for name in narrow}
        for number, (row, optimizer) in enumerate(zip(self.places, self.optimizers)):
            for group in optimizer.param_groups:
                group["lr"] = rates[row] * group.get("learning_rate_scale", 1.0)
            own = {name: each[row] for name, each in gradients.items()}
            for name in narrow:
                own[name] = self.wide[name].copy_(own[name])
            if self.fused and self.fused[number] is not None:
                update, names = self.fused[number]
                update([[own[name] for name in each] for each in names])
            else:
                for name, parameter in stack.parameters[row].items():
                    parameter.grad = own.get(name)
                optimizer.step()
            for name, rows in narrow.items():
                rows[row].copy_(stack.parameters[row][name].data)
        if not self.fused and len(gradients) == len(stack.names):
            self.fused = [
                self._fused(stack, row, each) for row, each in zip(self.places, self.optimizers)
            ]

    @staticmethod
    def _fused(stack: Stack, row: int, optimizer: Any) -> Any:
        """(the update, the names of the parameters it moves by group); None where only the
        optimizer itself can."""
        update = fused_update(optimizer)
        by_id = {id(parameter): name for name, parameter in stack.parameters[row].items()}
        names = [
            [by_id[id(parameter)] for parameter in group["params"]]
            for group in optimizer.param_groups
        ]
        return None if update is None else (update, names)

    def keep_rows(self, stack: Stack, which: Sequence[int]) -> None:
        """Let go of the optimizers of trials that left."""
        staying = [
            (new, self.optimizers[self.places.index(old)])
            for new, old in enumerate(which)
            if old in self.places
        ]
        self.places, self.optimizers = (
            [new for new, _ in staying],
            [optimizer for _, optimizer in staying],
        )
        self.fused = []

    def copy_row(self, stack: Stack, source: int, target: int, recipe: Recipe) -> bool:
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
        self.fused = []
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


class VmappedRule:
    """The optimizer's pure rule over k rows at once."""

    def __init__(self, stack: Stack, lanes: Sequence[TrialState], first: int) -> None:
        self.first, self.count = first, len(lanes)
        self.facts = registry.optimizer_facts(lanes[0].recipe.optimizer.name)
        assert self.facts.update is not None  # else the trials keep their torch optimizers
        self.update = self.facts.update
        self.elementwise = self.facts.elementwise
        self.device = stack.placement.device
        groups_by_trial = [
            groups_over(stack.modules[first + index], lane.recipe)
            for index, lane in enumerate(lanes)
        ]
        self.groups = [
            self._group(stack, lanes, [trial_groups[number] for trial_groups in groups_by_trial])
            for number in range(len(groups_by_trial[0]))
        ]

    def _group(
        self, stack: Stack, lanes: Sequence[TrialState], groups: Sequence[dict[str, Any]]
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
            return self.facts.initial_of_table
        return self.facts.initial

    def _column(self, values: Sequence[float]) -> Tensor:
        # in float32, 1 - 0.999 would keep 5 digits
        return torch.tensor(values, dtype=torch.float64, device=self.device)

    def _values(self, stack: Stack, names: Sequence[str]) -> list[Tensor]:
        """The weights of this mover's rows, (k, ...) each: views."""
        return [
            stack.trained[name].detach()[self.first : self.first + self.count] for name in names
        ]

    def step(self, stack: Stack, rates: Sequence[float], step: int) -> None:
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
                        name: torch.zeros_like(stack.trained[name])
                        for name in group.names
                        if name not in gradients
                    }
                group_gradients = [
                    gradients[name][self.first : self.first + self.count] for name in group.names
                ]
                numbers = {**group.numbers, "learning_rate": rate * group.scale}
                if group.flat:
                    self._move_flat(stack, group, group_gradients, numbers, step)
                else:
                    self._move_each(stack, group, group_gradients, numbers, step)

    def _move_flat(
        self,
        stack: Stack,
        group: _Group,
        gradients: list[Tensor],
        numbers: dict[str, Tensor],
        step: int,
    ) -> None:
        gradient_kP = torch.cat([tensor.flatten(1) for tensor in gradients], dim=1)
        moved, group.states[0] = self._rule(group, step)(
            group.values[0], gradient_kP, group.states[0], numbers
        )
        group.values[0] = moved
        into = self._values(stack, group.names)
        sizes = [tensor[0].numel() for tensor in into]
        torch._foreach_copy_(
            into, [piece.view_as(tensor) for piece, tensor in zip(moved.split(sizes, dim=1), into)]
        )

    def _move_each(
        self,
        stack: Stack,
        group: _Group,
        gradients: list[Tensor],
        numbers: dict[str, Tensor],
        step: int,
    ) -> None:
        rule = self._rule(group, step)
        for index, (value, gradient) in enumerate(zip(self._values(stack, group.names), gradients)):
            moved, group.states[index] = rule(value, gradient, group.states[index], numbers)
            value.copy_(moved)

    def _rule(self, group: _Group, step: int) -> Any:
        def one(
            parameter: Tensor,
            gradient: Tensor,
            state: dict[str, Tensor],
            numbers: dict[str, Tensor],
        ) -> Any:
            return self.update(parameter, gradient, state, step, {**group.fixed, **numbers})

        return vmap(one)

    def keep_rows(self, stack: Stack, which: Sequence[int]) -> None:
        """Go on with the rows that stayed."""
        staying = [row - self.first for row in which if self.first <= row < self.first + self.count]
        new_rows = [
            new_row
            for new_row, row in enumerate(which)
            if self.first <= row < self.first + self.count
        ]
        self.first, self.count = (new_rows[0] if new_rows else 0), len(staying)
        index = torch.tensor(staying, dtype=torch.int64, device=self.device)
        for group in self.groups:
            group.numbers = {name: tensor[index] for name, tensor in group.numbers.items()}
            group.scale = group.scale[index]
            group.decay_scale = group.decay_scale[index]
            group.states = [
                {name: tensor[index] for name, tensor in state.items()} for state in group.states
            ]
            group.values = [tensor[index] for tensor in group.values]

    def copy_row(self, stack: Stack, source: int, target: int, recipe: Recipe) -> bool:
        """Rows of the state copied, numbers taken from the recipe."""
        inside = range(self.first, self.first + self.count)
        if source not in inside or target not in inside:
            return False
        source_row, target_row = source - self.first, target - self.first
        options = recipe.optimizer.options.model_dump()
        for group in self.groups:
            for state in group.states:
                for tensor in state.values():
                    tensor[target_row] = tensor[source_row]
            for tensor in group.values:
                tensor[target_row] = tensor[source_row]
            for name, column in group.numbers.items():
                if name in options and not (
                    name == "weight_decay" and float(column[target_row]) == 0.0
                ):
                    column[target_row] = float(options[name]) * (
                        float(group.decay_scale[target_row]) if name == "weight_decay" else 1.0
                    )
        return True
