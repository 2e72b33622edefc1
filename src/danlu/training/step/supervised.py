"""One model, one loss: the gradient is that of the batch's mean loss, however many micro batches it is cut into."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from danlu.terms import Batch
from danlu.training.step.gradients import backward
from danlu.training.step.update import Update


class SupervisedStep(Update):
    """update(n) performs update n on the state; every random number in it is a function of (seed,
    n).

    The gradient is that of the batch's mean loss, however many micro batches it is cut into: each
    contributes its sum divided by the count of the whole batch. A module with `members` answers for
    each of them in training, and each is asked the same."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.forward = self.placement.compiled(self.state.module)
        self.members = int(getattr(self.state.module, "members", 1))

    def _perform(self, n: int) -> tuple[Any, Any]:
        self._set_rate(self.learning_rate * self.schedule(n))
        self.clear()
        total, count = (
            self._whole_batch(n) if self.micro_batch is None else self._in_micro_batches(n)
        )
        if not self.waits:
            total, count = total.item(), count.item()
        self._raise_if_nonfinite(n, total)
        self._apply_gradients()
        return total, count

    def _forward(self, batch: Batch, n: int) -> tuple[Tensor, Tensor]:
        batch = self._augmented(batch, n)
        if self.autocast is None:
            return self.loss(self.forward(batch.inputs), self._per_member(batch))
        with self.autocast:
            outputs = self.forward(batch.inputs)
        return self.loss(outputs.float(), self._per_member(batch))

    def _per_member(self, batch: Batch) -> Batch:
        """The batch as the loss sees it: each row once for every member."""
        return batch if self.members == 1 else repeat_rows(batch, self.members)

    def _whole_batch(self, n: int) -> tuple[Tensor, Tensor]:
        batch = self._as_shown(self.batches.take(n), n)
        total, count = self._forward(batch, n)
        backward(total, count.reciprocal())
        return self._as_reported(total.detach(), count, len(batch))

    def _in_micro_batches(self, n: int) -> tuple[Tensor, Tensor]:
        rows, gather = self.batches.indices(n), self.batches.rows.gather
        assert self.micro_batch is not None
        pieces = self.batches.take_micro(n, self.micro_batch)
        # Counted from the targets alone and before any forward pass, so that each piece can be
        # divided by the count of all.
        counts = [self.loss.count(self._target_of(piece, n)) for piece in pieces]
        count = torch.stack([torch.as_tensor(count_of_piece) for count_of_piece in counts]).sum(0)
        share = count.reciprocal()
        whole: Any = 0.0
        for piece in pieces:
            total, _ = self._forward(self._as_shown(gather(piece), n), n)
            backward(total, share)
            whole = whole + total.detach()
        return self._as_reported(whole, count, len(rows))

    def _target_of(self, piece: Tensor, n: int) -> Batch:
        """What a loss counts in a piece; what is hidden there is known only with its inputs."""
        rows = self.batches.rows
        shown = (
            self._as_shown(rows.gather(piece), n)
            if self.hide is not None
            else Batch({}, rows.gather_target(piece), piece)
        )
        return self._per_member(shown)

    @staticmethod
    def _as_reported(total: Tensor, count: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """(sum, count) as they are reported: of several tasks, the sum of their means, times
        rows."""
        if total.ndim == 0:
            return total, count
        return (total / count).sum() * rows, count.new_tensor(float(rows))


def repeat_rows(batch: Batch, times: int) -> Batch:
    """Target and rows with each row `times` times, one after the other."""

    def repeat(target: Any) -> Any:
        if isinstance(target, dict):
            return {name: repeat(column) for name, column in target.items()}
        return target.repeat_interleave(times, 0)

    return replace(batch, target=repeat(batch.target), rows=batch.rows.repeat_interleave(times, 0))
