"""Each trial's own optimizer, applied to its row of a stack: one trial at a time, or all at once by
the optimizer's pure update rule.

Large models are updated by the torch optimizers of their own trainings, whose fused kernels read
and write a trial's weights once. For small models most of that time would be Python. There the
optimizer's pure update rule runs under torch.func.vmap, each trial with its own options, over all
parameters concatenated where the rule treats every entry independently. One stack may hold trials
of several optimizers: neighbouring rows with the same rule are updated together.

k trials of one rule, P numbers in a trial's parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import vmap
from torch.optim import Optimizer

from danlu import registry
from danlu.compat.torch_foreach import foreach
from danlu.compat.torch_optim import FusedUpdate, fused_update
from danlu.layers.tensors import split
from danlu.recipe import Recipe
from danlu.training.population.stack import Stack
from danlu.training.population.trial_state import TrialState
from danlu.training.setup import groups_over, optimizer_over
from danlu.training.step.formulas import learning_rate_scale, set_learning_rate

# parameters of a model up to which the rule is faster than an optimizer per trial
# (docs/lab-notes.md)
SMALL = 40_000
# entries of a parameter group that no rule reads
_NO_OPTIONS = ("params", "learning_rate_scale", "weight_decay_scale")


class BatchedOptimizer(Protocol):
    """Updates some rows of a stack."""

    def step(self, stack: Stack, rates: Sequence[float], step: int) -> None:
        """Perform update `step`, counted from 1; `rates` holds one learning rate per row of the
        stack."""
        ...

    def keep_rows(self, stack: Stack, which: Sequence[int]) -> None:
        """Keep only the rows of the stack with these numbers, ascending."""
        ...

    def copy_row(self, stack: Stack, source: int, target: int, recipe: Recipe) -> bool:
        """Give row `target` the state of row `source` and the options of `recipe`; False where
        this optimizer does not update both rows."""
        ...


def rule_key(recipe: Recipe) -> str:
    """Equal for trials that one rule can update together: the optimizer's name, and all of its
    options but floats."""
    options = recipe.optimizer.options.model_dump()
    fixed = {name: value for name, value in options.items() if not isinstance(value, float)}
    # with weight decay, what it spares is a parameter group of its own
    decays = bool(options.get("weight_decay", 0.0))
    return f"{recipe.optimizer.name} {sorted(fixed.items())} {decays} {recipe.finetune}"


def build_optimizers(stack: Stack, trials: Sequence[TrialState]) -> list[BatchedOptimizer]:
    """What moves the stack; trials of one rule stand side by side."""
    small = stack.bytes_per_model <= SMALL * 4 or stack.placement.device.type == "cuda"
    result: list[BatchedOptimizer] = []
    start = 0
    while start < len(trials):
        key = rule_key(trials[start].recipe)
        end = start
        while end < len(trials) and rule_key(trials[end].recipe) == key:
            end += 1
        by_rule = (
            small
            and end - start >= 3
            and registry.optimizer_facts(trials[start].recipe.optimizer.name).update is not None
        )
        result.append(
            VmappedRule(stack, trials[start:end], start)
            if by_rule
            else OptimizerPerTrial(stack, trials[start:end], start)
        )
        start = end
    return result


class OptimizerPerTrial:
    """The optimizer of each trial's own training over its module, whose parameters are rows of the
    stack."""

    def __init__(self, stack: Stack, trials: Sequence[TrialState], first: int) -> None:
        self.rows = list(range(first, first + len(trials)))
        self.optimizers = [
            optimizer_over(stack.modules[row], trial.recipe)
            for row, trial in zip(self.rows, trials)
        ]
        # after a first step, which makes the optimizers' state, their kernels alone
        self.fused: list[_FusedStep | None] = []
        # one trial's gradients of low-precision matrices, in the weights' own number format
        self.gradients: dict[str, Tensor] = {}

    def step(self, stack: Stack, rates: Sequence[float], step: int) -> None:
        """Each optimizer's own step."""
        gradients = {name: _dense(grad).unbind(0) for name, grad in stack.gradients().items()}
        low = {name: matrix.detach().unbind(0) for name, matrix in stack.low_precision.items()}
        if low and not self.gradients:
            self.gradients = {
                name: torch.empty_like(stack.trained[name][0].detach()) for name in low
            }
        for index, (row, optimizer) in enumerate(zip(self.rows, self.optimizers)):
            set_learning_rate(optimizer, rates[row])
            own = {name: of_rows[row] for name, of_rows in gradients.items()}
            for name in low:
                own[name] = self.gradients[name].copy_(own[name])
            fused = self.fused[index] if self.fused else None
            if fused is not None:
                fused.update([[own[name] for name in names] for names in fused.names])
            else:
                for name, parameter in stack.parameters[row].items():
                    parameter.grad = own.get(name)
                optimizer.step()
            for name, of_rows in low.items():
                of_rows[row].copy_(stack.parameters[row][name].data)
        if not self.fused and len(gradients) == len(stack.names):
            self.fused = [
                self._fused(stack, row, optimizer)
                for row, optimizer in zip(self.rows, self.optimizers)
            ]

    @staticmethod
    def _fused(stack: Stack, row: int, optimizer: Optimizer) -> _FusedStep | None:
        """The optimizer's kernels alone; None where only the optimizer itself can update."""
        update = fused_update(optimizer)
        if update is None:
            return None
        by_id = {id(parameter): name for name, parameter in stack.parameters[row].items()}
        names = [
            [by_id[id(parameter)] for parameter in group["params"]]
            for group in optimizer.param_groups
        ]
        return _FusedStep(update, names)

    def keep_rows(self, stack: Stack, which: Sequence[int]) -> None:
        """Drop the optimizers of trials that left the stack."""
        staying = [
            (new, self.optimizers[self.rows.index(old)])
            for new, old in enumerate(which)
            if old in self.rows
        ]
        self.rows, self.optimizers = (
            [new for new, _ in staying],
            [optimizer for _, optimizer in staying],
        )
        self.fused = []

    def copy_row(self, stack: Stack, source: int, target: int, recipe: Recipe) -> bool:
        """A new optimizer with the numbers of the recipe and the state of the source's."""
        if source not in self.rows or target not in self.rows:
            return False
        old = self.optimizers[self.rows.index(source)]
        new = optimizer_over(stack.modules[target], recipe)
        new.load_state_dict(
            {"state": old.state_dict()["state"], "param_groups": new.state_dict()["param_groups"]}
        )
        for parameter, state in new.state.items():  # loading may share the source's tensors
            new.state[parameter] = {
                k: v.clone() if isinstance(v, Tensor) else v for k, v in state.items()
            }
        self.optimizers[self.rows.index(target)] = new
        self.fused = []
        return True


@dataclass(frozen=True)
class _FusedStep:
    """An optimizer's kernels: `update` takes gradients by parameter group, `names` says whose."""

    update: FusedUpdate
    names: list[list[str]]


def _dense(gradient: Tensor) -> Tensor:
    """The gradient in contiguous memory, as a stack's parameters are: a fused kernel relies on
    it."""
    return gradient if gradient.is_contiguous() else gradient.contiguous()


@dataclass
class _Group:
    """One parameter group of all trials.

    names          the parameters
    numbers        options that are floats, float64 (k,); `fixed` holds the others
    scale          (k,), factors on the learning rate; `decay_scale` on weight decay
    flat           whether the parameters are concatenated to `values`, one tensor (k, P)
    states         the rule's state: one dict for `values`, else one per parameter
    """

    names: list[str]
    numbers: dict[str, Tensor]
    fixed: dict[str, object]
    scale: Tensor
    decay_scale: Tensor
    flat: bool
    states: list[dict[str, Tensor]]
    values: list[Tensor]


class VmappedRule:
    """The optimizer's pure rule over k rows at once."""

    def __init__(self, stack: Stack, trials: Sequence[TrialState], first: int) -> None:
        self.first, self.count = first, len(trials)
        self.facts = registry.optimizer_facts(trials[0].recipe.optimizer.name)
        assert self.facts.update is not None  # else the trials keep their torch optimizers
        self.update = self.facts.update
        self.elementwise = self.facts.elementwise
        self.device = stack.placement.device
        groups_by_trial = [
            groups_over(stack.modules[first + index], trial.recipe)
            for index, trial in enumerate(trials)
        ]
        self.groups = [
            self._group(stack, trials, [trial_groups[number] for trial_groups in groups_by_trial])
            for number in range(len(groups_by_trial[0]))
        ]

    def _group(
        self, stack: Stack, trials: Sequence[TrialState], groups: Sequence[dict[str, Any]]
    ) -> _Group:
        """One parameter group of all trials."""
        wanted = {id(parameter) for parameter in groups[0]["params"]}
        parameters = stack.parameters[self.first].items()
        names = [name for name, parameter in parameters if id(parameter) in wanted]
        options = [
            {
                **trial.recipe.optimizer.options.model_dump(),
                **{name: value for name, value in own.items() if name not in _NO_OPTIONS},
            }
            for trial, own in zip(trials, groups)
        ]
        numbers = {
            name: self._column([float(own[name]) for own in options])
            for name, value in options[0].items()
            if isinstance(value, float)
        }
        fixed = {name: value for name, value in options[0].items() if name not in numbers}
        scale = self._column([learning_rate_scale(group) for group in groups])
        decay_scale = self._column(
            [float(group.get("weight_decay_scale", 1.0)) for group in groups]
        )
        values = self._values(stack, names)
        flat = self.elementwise and len({(v.dtype, v.device) for v in values}) == 1
        if flat:
            values = [torch.cat([value.flatten(1) for value in values], dim=1)]
        states = [vmap(self._initial(fixed))(value) for value in values]
        return _Group(
            names, numbers, fixed, scale, decay_scale, flat, states, values if flat else []
        )

    def _initial(self, fixed: Mapping[str, object]) -> Callable[[Tensor], dict[str, Tensor]]:
        """What makes the rule's initial state; an orthogonalizing rule has one of its own for
        embeddings."""
        spared = fixed.get("muon") is False
        initial = self.facts.initial_of_table if spared else self.facts.initial
        assert initial is not None
        return initial

    def _column(self, values: Sequence[float]) -> Tensor:
        # in float32, 1 - 0.999 would keep 5 digits
        return torch.tensor(values, dtype=torch.float64, device=self.device)

    def _values(self, stack: Stack, names: Sequence[str]) -> list[Tensor]:
        """The weights of this optimizer's rows, views (k, ...)."""
        return [
            stack.trained[name].detach()[self.first : self.first + self.count] for name in names
        ]

    def step(self, stack: Stack, rates: Sequence[float], step: int) -> None:
        """The rule, for every parameter group."""
        rate = self._column(rates[self.first : self.first + self.count])
        gradients = stack.gradients()
        with torch.no_grad():
            for group in self.groups:
                # a parameter that the model never reads has no gradient
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
                    self._update_flat(stack, group, group_gradients, numbers, step)
                else:
                    self._update_each(stack, group, group_gradients, numbers, step)

    def _update_flat(
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
        foreach.copy_(
            into, [piece.view_as(tensor) for piece, tensor in zip(split(moved, sizes, 1), into)]
        )

    def _update_each(
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

    def _rule(self, group: _Group, step: int) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        """(values, gradients, states, numbers) of k trials -> (values, states)."""

        def one(
            parameter: Tensor,
            gradient: Tensor,
            state: dict[str, Tensor],
            numbers: dict[str, Tensor],
        ) -> tuple[Tensor, dict[str, Tensor]]:
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
