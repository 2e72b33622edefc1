"""One update: forward, loss, backward, the checks, the move. Only this file divides a loss and moves a weight."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward

from danlu.batches import Batches
from danlu.placement import AUGMENTATION, STEP, Placement, draw_seed
from danlu.recipe import Regularization, Train
from danlu.state import TrainingState
from danlu.terms import Batch


class NotFinite(ArithmeticError):
    """A NaN or infinity stood in the loss or in a gradient; no weight was moved."""

    def __init__(self, step: int, tensor: str, rows: list[int]) -> None:
        super().__init__(f"step {step}: {tensor}")
        self.step = step
        self.tensor = tensor
        self.rows = rows


class SupervisedStep:
    """update(n) performs update n on the state; every random number in it is a function of (seed, n).

    The gradient is that of the batch's mean loss, however many micro batches it is cut into: each contributes its sum divided by
    the count of the whole batch.
    """

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
    ) -> None:
        self.state = state
        self.batches = batches
        self.loss = loss
        self.schedule = schedule
        self.learning_rate = learning_rate
        self.augmentations = augmentations
        self.placement = placement
        self.train = train
        self.seed = train.seed
        self.optimizer = state.optimizer
        self.forward = placement.compiled(state.module)
        self.autocast = placement.autocast()
        self.micro_batch = train.micro_batch if train.micro_batch and train.micro_batch < batches.batch_size else None
        self.generator = placement.generator() if augmentations else None
        named = [(name, parameter) for name, parameter in state.module.named_parameters() if parameter.requires_grad]
        self.names = [name for name, _ in named]
        self.parameters = [parameter for _, parameter in named]
        self.matrices: list[Tensor] = [parameter for parameter in self.parameters if parameter.ndim >= 2]
        self.l1, self.l2 = regularization.l1, regularization.l2
        self.decay = regularization.ema_decay
        live, average = state.live, state.ema or {}
        floating = [name for name in average if live[name].is_floating_point()]
        self.averages, self.averaged = [average[name] for name in floating], [live[name] for name in floating]
        self.counters = [(average[name], live[name]) for name in average if name not in floating]
        # Running statistics (batch normalisation) move in the forward pass, so a NaN is in them before it is seen.
        weights = {name for name, _ in state.module.named_parameters(remove_duplicate=False)}
        self.buffers = [tensor for name, tensor in live.items() if name not in weights]
        self.before = [tensor.clone() for tensor in self.buffers]
        self.statistics = {name: tensor for name, tensor in live.items() if name not in weights and tensor.is_floating_point()}
        # A checkpoint holds the next update's seed by holding its number; dropout is the only reader of torch's own generator.
        self.waits = placement.waits
        self.skip: frozenset[int] = frozenset(state.skipped)  # updates left out after a roll-back

    def __call__(self, n: int) -> None:
        """Perform update n. Raises NotFinite, with no weight moved, on a NaN or infinity (the caller decides what follows)."""
        if self.skip and n in self.skip:
            self.state.step = n + 1
            return
        self.placement.seed(draw_seed(self.seed, STEP, n))
        if self.generator is not None:
            self.generator.manual_seed(draw_seed(self.seed, AUGMENTATION, n))
        rate = self.learning_rate * self.schedule(n)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("learning_rate_scale", 1.0)
        if self.buffers:
            torch._foreach_copy_(self.before, self.buffers)
        if self.micro_batch is None:
            total, count = self._whole(n)
        else:
            total, count = self._pieces(n)
        if not self.waits:
            total, count = total.item(), count.item()
        if not self._finite(total):
            name = self._culprit(total)
            self.clear()
            if self.buffers:
                torch._foreach_copy_(self.buffers, self.before)
            raise NotFinite(n, name, self.batches.indices(n).tolist())
        self._regularize()
        if self.train.clip_value is not None:
            torch.nn.utils.clip_grad_value_(self.parameters, self.train.clip_value)
        if self.train.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.train.clip_norm)
        self.optimizer.step()
        self._average()
        state = self.state
        state.loss_sum = state.loss_sum + total
        state.loss_count = state.loss_count + count
        state.step = n + 1

    def clear(self) -> None:
        """Let go of the gradients of the last update."""
        for parameter in self.parameters:  # Optimizer.zero_grad does the same and opens a profiler's record around it: 7 us
            parameter.grad = None

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        for augment in self.augmentations:
            assert self.generator is not None
            batch = augment(batch, self.generator)
        if self.autocast is None:
            return self.loss(self.forward(batch.inputs), batch)
        with self.autocast:
            outputs = self.forward(batch.inputs)
        return self.loss(outputs.float(), batch)

    def _whole(self, n: int) -> tuple[Tensor, Tensor]:
        self.clear()
        batch = self.batches.take(n)
        total, count = self._forward(batch)
        walk_back(total, count.reciprocal())
        return self._told(total.detach(), count, len(batch))

    def _pieces(self, n: int) -> tuple[Tensor, Tensor]:
        self.clear()
        rows, gather = self.batches.indices(n), self.batches.rows.gather
        assert self.micro_batch is not None
        pieces = self.batches.take_micro(n, self.micro_batch)
        # Counted from the targets alone and before any forward pass, so that each piece can be divided by the count of all.
        counts = [self.loss.count(Batch({}, self.batches.rows.gather_target(piece), piece)) for piece in pieces]
        count = torch.stack([torch.as_tensor(each) for each in counts]).sum(0)
        share = count.reciprocal()
        whole: Any = 0.0
        for piece in pieces:
            total, _ = self._forward(gather(piece))
            walk_back(total, share)
            whole = whole + total.detach()
        return self._told(whole, count, len(rows))

    @staticmethod
    def _told(total: Tensor, count: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """(sum, count) as they are reported: of several tasks, the sum of their means, times rows."""
        if total.ndim == 0:
            return total, count
        return (total / count).sum() * rows, count.new_tensor(float(rows))

    def _finite(self, total: Any) -> bool:
        """Whether the loss, every gradient and the running statistics are finite: a NaN or infinity in any entry survives its sum."""
        check = 0.0
        if self.waits:
            check = torch.stack(
                [total.float().sum(), *(each.grad.sum().float() for each in self.parameters if each.grad is not None)]
            )
            return bool(torch.isfinite(check).all()) and self._sound_statistics()
        if not math.isfinite(total) or not self._sound_statistics():
            return False
        for parameter in self.parameters:
            gradient = parameter.grad
            # a finite gradient may still overflow its sum: only then is every entry looked at
            if gradient is not None and not math.isfinite(gradient.sum().item()) and not bool(torch.isfinite(gradient).all()):
                return False
        return True

    def _sound_statistics(self) -> bool:
        """Whether running statistics are finite. One huge input makes a variance infinite while loss and gradients look healthy."""
        if not self.statistics:
            return True
        tensors = list(self.statistics.values())
        # a finite tensor may still overflow its norm: only then is every entry looked at
        if math.isfinite(torch.stack(torch._foreach_norm(tensors)).sum().item()):
            return True
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)

    def _culprit(self, total: Any) -> str:
        if not math.isfinite(float(total)):
            return "the loss"
        for name, tensor in self.statistics.items():
            if not bool(torch.isfinite(tensor).all()):
                return f"the running statistic {name}"
        for name, parameter in zip(self.names, self.parameters):
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                return f"the gradient of {name}"
        return "a gradient"

    def _regularize(self) -> None:
        """Add the gradients of the L1 and L2 penalties: l1 * sign(w) and l2 * w, on matrices and kernels only."""
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
        # Early on the average follows faster, else it would carry the random start for 1 / (1 - decay) steps.
        # Source: the warm-up of tf.train.ExponentialMovingAverage.
        done = self.state.step
        decay = min(self.decay, (1 + done) / (10 + done))
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.averaged, 1 - decay)
            for average, live in self.counters:
                average.copy_(live)


def walk_back(total: Tensor, share: Tensor) -> None:
    """Add to every parameter's gradient that of total * share (`share` 1 / count: the mean, to the bit), summed over entries.

    This is where Tensor.backward ends after its checks of shapes, which take 5 microseconds and, for a gradient that is given, import
    a computer algebra system (0.3 s). With a division in the recorded graph instead it is 8 microseconds slower than this.
    """
    _engine_run_backward((total,), (share,), False, False, (), allow_unreachable=True, accumulate_grad=True)


def grad_norm(parameters: Sequence[nn.Parameter]) -> float:
    """The length of the whole gradient as it now stands; 0 where there is none."""
    gradients = [each.grad for each in parameters if each.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
