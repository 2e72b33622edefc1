"""One model, one loss: the gradient is that of the batch's mean loss, however many micro batches it is cut into."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from danlu.terms import Batch
from danlu.training.step.gradients import walk_back
from danlu.training.step.update import Update


class SupervisedStep(Update):
    """update(n) performs update n on the state; every random number in it is a function of (seed,
    n).

    The gradient is that of the batch's mean loss, however many micro batches it is cut into: each
    contributes its sum divided by the count of the whole batch. A module with `members` answers for
    each of them in training, and each is asked the same."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.forward = self.placement.compiled(self.state.module)
        self.members = int(getattr(self.state.module, "members", 1))

    def _perform(self, n: int) -> tuple[Any, Any]:
        self._set_rate(self.learning_rate * self.schedule(n))
        self.clear()
        total, count = self._whole(n) if self.micro_batch is None else self._pieces(n)
        if not self.waits:
            total, count = total.item(), count.item()
        self._refuse_unsound(n, total)
        self._move()
        return total, count

    def _forward(self, batch: Batch, n: int) -> tuple[Tensor, Tensor]:
        batch = self._augmented(batch, n)
        if self.autocast is None:
            return self.loss(self.forward(batch.inputs), self._asked(batch))
        with self.autocast:
            outputs = self.forward(batch.inputs)
        return self.loss(outputs.float(), self._asked(batch))

    def _asked(self, batch: Batch) -> Batch:
        """The batch as the loss sees it: each row once for every member."""
        return batch if self.members == 1 else repeated(batch, self.members)

    def _whole(self, n: int) -> tuple[Tensor, Tensor]:
        batch = self._shown(self.batches.take(n), n)
        total, count = self._forward(batch, n)
        walk_back(total, count.reciprocal())
        return self._told(total.detach(), count, len(batch))

    def _pieces(self, n: int) -> tuple[Tensor, Tensor]:
        rows, gather = self.batches.indices(n), self.batches.rows.gather
        assert self.micro_batch is not None
        pieces = self.batches.take_micro(n, self.micro_batch)
        # Counted from the targets alone and before any forward pass, so that each piece can be
        # divided by the count of all.
        counts = [self.loss.count(self._target_of(piece, n)) for piece in pieces]
        count = torch.stack([torch.as_tensor(each) for each in counts]).sum(0)
        share = count.reciprocal()
        whole: Any = 0.0
        for piece in pieces:
            total, _ = self._forward(self._shown(gather(piece), n), n)
            walk_back(total, share)
            whole = whole + total.detach()
        return self._told(whole, count, len(rows))

    def _target_of(self, piece: Tensor, n: int) -> Batch:
        """What a loss counts in a piece; what is hidden there is known only with its inputs."""
        rows = self.batches.rows
        shown = (
            self._shown(rows.gather(piece), n)
            if self.hide is not None
            else Batch({}, rows.gather_target(piece), piece)
        )
        return self._asked(shown)

    @staticmethod
    def _told(total: Tensor, count: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """(sum, count) as they are reported: of several tasks, the sum of their means, times
        rows."""
        if total.ndim == 0:
            return total, count
        return (total / count).sum() * rows, count.new_tensor(float(rows))


def repeated(batch: Batch, times: int) -> Batch:
    """Target and rows with each row `times` times, one after the other."""

    def repeat(target: Any) -> Any:
        if isinstance(target, dict):
            return {name: repeat(each) for name, each in target.items()}
        return target.repeat_interleave(times, 0)

    return replace(batch, target=repeat(batch.target), rows=batch.rows.repeat_interleave(times, 0))
