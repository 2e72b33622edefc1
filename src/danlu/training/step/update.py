"""What every kind of update shares: learning rate, random draws, running statistics, penalties,
clipping, averages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, final

import torch
from torch import Tensor

from danlu.compat.torch_foreach import foreach
from danlu.data.batches import Batches
from danlu.layers.tensors import as_ints
from danlu.parts.losses._base import AdversarialLoss, Loss
from danlu.recipe import Regularization, Train
from danlu.system.placement import AUGMENTATION, HIDING, STEP, Placement, draw_seed
from danlu.terms import Batch
from danlu.training.state import Number, TrainingState
from danlu.training.step import formulas
from danlu.training.step.finite_check import FiniteCheck, NonFiniteError

LossT = TypeVar("LossT", Loss, AdversarialLoss)


class Update(ABC, Generic[LossT]):
    """update(n) performs update n on the state; n counts from 0.

    Every random number in it is a function of (seed, n), so an update can be repeated to the bit.

    schedule   schedule(n): the factor on `learning_rate` in update n
    hide       hide(batch, seed): the batch as the task shows it to the model (HidesInputs.corrupt)
    resize     resize(batch, n): images at the size that update n trains on
    """

    @final
    def __init__(
        self,
        state: TrainingState,
        batches: Batches,
        loss: LossT,
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
        self.loss: LossT = loss
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.augmentations = augmentations
        self.hide = hide
        self.resize = resize
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
        # The forward pass changes running statistics (batch normalisation), so a NaN is in them
        # before it is noticed: they are copied before each update.
        weights = {name for name, _ in state.module.named_parameters(remove_duplicate=False)}
        self.buffers = [tensor for name, tensor in live.items() if name not in weights]
        self.buffers_before = [tensor.clone() for tensor in self.buffers]
        statistics = {
            name: tensor
            for name, tensor in live.items()
            if name not in weights and tensor.is_floating_point()
        }
        self.finite_check = FiniteCheck(named, statistics, waits=placement.waits)
        self.waits = placement.waits
        self.skip: frozenset[int] = frozenset(state.skipped)  # updates left out after a roll-back
        self._set_up()

    @abstractmethod
    def _set_up(self) -> None:
        """Prepare what a kind of update needs beside; called once, when all else is set."""

    @final
    def __call__(self, n: int) -> None:
        """Perform update n. Raises NonFiniteError, with no weight changed, on a NaN or infinity;
        the caller decides what follows."""
        state = self.state
        if self.skip and n in self.skip:
            state.step = n + 1
            return
        # Dropout is the only reader of torch's own generator. Seeded by n, a checkpoint needs no
        # generator's state.
        self.placement.seed(draw_seed(self.seed, STEP, n))
        if self.generator is not None:
            self.generator.manual_seed(draw_seed(self.seed, AUGMENTATION, n))
        if self.buffers:
            foreach.copy_(self.buffers_before, self.buffers)
        total, count = self._perform(n)
        self._average()
        state.loss_sum = state.loss_sum + total
        state.loss_count = state.loss_count + count
        state.step = n + 1

    @abstractmethod
    def _perform(self, n: int) -> tuple[Number, Number]:
        """Change the weights; returns (sum, count) of the loss as it is reported."""

    @final
    def clear(self) -> None:
        """Drop the gradients of the last update."""
        # Optimizer.zero_grad does the same and opens a profiler's record around it: 7 microseconds
        for parameter in self.parameters:
            parameter.grad = None

    @final
    def _set_rate(self, rate: float) -> None:
        formulas.set_learning_rate(self.optimizer, rate)

    @final
    def _as_shown(self, batch: Batch, n: int) -> Batch:
        """The batch as the task shows it to the model in update n."""
        return batch if self.hide is None else self.hide(batch, draw_seed(self.seed, HIDING, n))

    @final
    def _augmented(self, batch: Batch, n: int) -> Batch:
        for augment in self.augmentations:
            assert self.generator is not None
            batch = augment(batch, self.generator)
        return batch if self.resize is None else self.resize(batch, n)

    @final
    def _raise_if_nonfinite(self, n: int, total: Number) -> None:
        """Where anything is NaN or infinite: drop the gradients, restore the running statistics and
        raise NonFiniteError."""
        if self.finite_check.all_finite(total):
            return
        name = self.finite_check.first_nonfinite(total)
        self.clear()
        if self.buffers:
            foreach.copy_(self.buffers, self.buffers_before)
        raise NonFiniteError(n, name, as_ints(self.batches.indices(n)))

    @final
    def _apply_gradients(self) -> None:
        """Penalties, clipping and the optimizer's step, for the parameters that have a gradient."""
        if self.l1 or self.l2:
            weights = [weight for weight in self.matrices if weight.grad is not None]
            penalized = [weight.grad for weight in weights if weight.grad is not None]
            formulas.add_penalties(penalized, weights, self.l1, self.l2)
        value, norm = self.train.clip_value, self.train.clip_norm
        if value is not None or norm is not None:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            if value is not None:
                formulas.clip_values(gradients, value)
            if norm is not None:
                formulas.clip_norm(gradients, norm)
        self.optimizer.step()

    @final
    def _average(self) -> None:
        """Move the weight average towards the weights; counters are copied."""
        if self.decay is None:
            return
        share = formulas.average_share(self.decay, self.state.step)
        formulas.update_averages(self.averages, self.averaged, share)
        with torch.no_grad():
            for average, live in self.counters:
                average.copy_(live)
