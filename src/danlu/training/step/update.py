"""What every kind of update shares: learning rate, random draws, running statistics, penalties, clipping, averages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from danlu.data.batches import Batches
from danlu.recipe import Regularization, Train
from danlu.system.placement import AUGMENTATION, HIDING, STEP, Placement, draw_seed
from danlu.terms import Batch
from danlu.training.state import TrainingState
from danlu.training.step.finite_check import FiniteCheck, NonFiniteError


class Update(ABC):
    """update(n) performs update n on the state; every random number in it is a function of (seed,
    n)."""

    def __init__(
        self,
        state: TrainingState,
        batches: Batches,
        loss: Any,
        schedule: Callable[[int], float],
        learning_rate: float,
        augmentations: Sequence[Callable[[Batch, torch.Generator], Batch]],
        placement: Placement,
        train: Train,
        regularization: Regularization,
        hide: Callable[[Batch, int], Batch] | None = None,
        resize: Callable[[Batch, int], Batch] | None = None,
    ) -> None:
        self.state = state
        self.batches = batches
        self.loss = loss
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.augmentations = augmentations
        self.hide = hide  # a task's `corrupt`
        self.resize = resize  # (batch, n): images at the size that belongs to update n
        self.placement = placement
        self.train = train
        self.seed = train.seed
        self.optimizer = state.optimizer
        self.autocast = placement.autocast()
        self.micro_batch = (
            train.micro_batch
            if train.micro_batch and train.micro_batch < batches.batch_size
            else None
        )
        self.generator = placement.generator() if augmentations else None
        named = [
            (name, parameter)
            for name, parameter in state.module.named_parameters()
            if parameter.requires_grad
        ]
        self.parameters = [parameter for _, parameter in named]
        self.matrices: list[Tensor] = [
            parameter for parameter in self.parameters if parameter.ndim >= 2
        ]
        self.l1, self.l2 = regularization.l1, regularization.l2
        self.decay = regularization.ema_decay
        live, average = state.live, state.ema or {}
        floating = [name for name in average if live[name].is_floating_point()]
        self.averages, self.averaged = (
            [average[name] for name in floating],
            [live[name] for name in floating],
        )
        self.counters = [(average[name], live[name]) for name in average if name not in floating]
        # Running statistics (batch normalisation) move in the forward pass, so a NaN is in them
        # before it is seen.
        weights = {name for name, _ in state.module.named_parameters(remove_duplicate=False)}
        self.buffers = [tensor for name, tensor in live.items() if name not in weights]
        self.before = [tensor.clone() for tensor in self.buffers]
        statistics = {
            name: tensor
            for name, tensor in live.items()
            if name not in weights and tensor.is_floating_point()
        }
        self.finite_check = FiniteCheck(named, statistics, waits=placement.waits)
        # A checkpoint holds the next update's seed by holding its number; dropout is the only
        # reader of torch's own generator.
        self.waits = placement.waits
        self.skip: frozenset[int] = frozenset(state.skipped)  # updates left out after a roll-back

    def __call__(self, n: int) -> None:
        """Perform update n. Raises NotFinite, with no weight moved, on a NaN or infinity (the
        caller decides what follows)."""
        state = self.state
        if self.skip and n in self.skip:
            state.step = n + 1
            return
        self.placement.seed(draw_seed(self.seed, STEP, n))
        if self.generator is not None:
            self.generator.manual_seed(draw_seed(self.seed, AUGMENTATION, n))
        if self.buffers:
            torch._foreach_copy_(self.before, self.buffers)
        total, count = self._perform(n)
        self._average()
        state.loss_sum = state.loss_sum + total
        state.loss_count = state.loss_count + count
        state.step = n + 1

    @abstractmethod
    def _perform(self, n: int) -> tuple[Any, Any]:
        """Move the weights; (sum, count) of the loss as it is reported."""

    def clear(self) -> None:
        """Let go of the gradients of the last update."""
        for parameter in (
            self.parameters
        ):  # Optimizer.zero_grad does the same and opens a profiler's record around it: 7 us
            parameter.grad = None

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("learning_rate_scale", 1.0)

    def _as_shown(self, batch: Batch, n: int) -> Batch:
        """The batch as the task shows it to the model in update n."""
        return batch if self.hide is None else self.hide(batch, draw_seed(self.seed, HIDING, n))

    def _augmented(self, batch: Batch, n: int) -> Batch:
        for augment in self.augmentations:
            assert self.generator is not None
            batch = augment(batch, self.generator)
        return batch if self.resize is None else self.resize(batch, n)

    def _raise_if_nonfinite(self, n: int, total: Any) -> None:
        """NotFinite, gradients dropped and running statistics as they were, where a NaN or infinity
        stands anywhere."""
        if self.finite_check.all_finite(total):
            return
        name = self.finite_check.first_nonfinite(total)
        self.clear()
        if self.buffers:
            torch._foreach_copy_(self.buffers, self.before)
        raise NonFiniteError(n, name, self.batches.indices(n).tolist())

    def _apply_gradients(self) -> None:
        """Penalties, clipping, and the optimizer's own step, for the parameters that hold a
        gradient."""
        self._regularize()
        if self.train.clip_value is not None:
            torch.nn.utils.clip_grad_value_(self.parameters, self.train.clip_value)
        if self.train.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.train.clip_norm)
        self.optimizer.step()

    def _regularize(self) -> None:
        """Add the gradients of the L1 and L2 penalties: l1 * sign(w) and l2 * w, on matrices and
        kernels only."""
        if not (self.l1 or self.l2):
            return
        weights = [each for each in self.matrices if each.grad is not None]
        gradients = [each.grad for each in weights if each.grad is not None]
        with torch.no_grad():
            if self.l2:
                torch._foreach_add_(gradients, weights, alpha=self.l2)
            if self.l1:
                torch._foreach_add_(gradients, torch._foreach_sign(weights), alpha=self.l1)

    def _average(self) -> None:
        if self.decay is None:
            return
        # Early on the average follows faster, else it would carry the random start for 1 / (1 -
        # decay) steps. Source: the warm-up of tf.train.ExponentialMovingAverage.
        done = self.state.step
        decay = min(self.decay, (1 + done) / (10 + done))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.averaged, 1 - decay)
            for average, live in self.counters:
                average.copy_(live)
