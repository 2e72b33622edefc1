"""One model, one loss: the gradient of the batch's mean loss, however many micro batches the batch
is cut into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from danlu.layers.averaging import members_of
from danlu.parts.losses._base import Loss
from danlu.terms import Batch
from danlu.training.state import Number
from danlu.training.step import formulas
from danlu.training.step.gradients import backward
from danlu.training.step.update import Update


class SupervisedStep(Update[Loss]):
    """update(n) performs update n on the state.

    Each micro batch contributes its summed loss divided by the count of the whole batch, so the
    gradient is that of the batch's mean loss. A module with several `members` (an ensemble) answers
    once per member in training, and every member learns from the same rows."""

    def _set_up(self) -> None:
        self.forward = self.placement.compiled(self.state.module)
        self.members = members_of(self.state.module)
        # (mean loss of the first batch, that of outputs which are all 0), until they are reported
        self.first_losses: tuple[Tensor, Tensor] | None = None

    def _perform(self, n: int) -> tuple[Number, Number]:
        self._set_rate(self.learning_rate * self.schedule(n))
        self.clear()
        total, count = (
            self._whole_batch(n)
            if self.micro_batch is None
            else self._in_micro_batches(n, self.micro_batch)
        )
        if not self.waits:
            total, count = total.item(), count.item()
        self._raise_if_nonfinite(n, total)
        self._apply_gradients()
        return total, count

    def _forward(self, batch: Batch, n: int) -> tuple[Tensor, Tensor]:
        """(sum, count) of the loss of a batch."""
        batch = self._augmented(batch, n)
        if self.autocast is None:
            outputs = self.forward(batch.inputs)
        else:
            with self.autocast:
                outputs = self.forward(batch.inputs)
            outputs = outputs.float()
        scored = self._per_member(batch)
        total, count = self.loss(outputs, scored)
        if n == 0 and self.first_losses is None:
            with torch.no_grad():
                uninformed, _ = self.loss(torch.zeros_like(outputs), scored)
            share = formulas.mean_share(count)  # several tasks have one each
            self.first_losses = (share * total.detach()).sum(), (share * uninformed).sum()
        return total, count

    def _per_member(self, batch: Batch) -> Batch:
        """The batch as the loss sees it: each row once per member."""
        return batch if self.members == 1 else repeat_rows(batch, self.members)

    def _whole_batch(self, n: int) -> tuple[Tensor, Tensor]:
        batch = self._as_shown(self.batches.take(n), n)
        total, count = self._forward(batch, n)
        backward(total, formulas.mean_share(count))
        return formulas.reported_loss(total.detach(), count, len(batch))

    def _in_micro_batches(self, n: int, size: int) -> tuple[Tensor, Tensor]:
        rows, gather = self.batches.indices(n), self.batches.rows.gather
        pieces = self.batches.take_micro(n, size)
        # Counted from the targets alone and before any forward pass, so that each piece can be
        # divided by the count of all.
        counts = [self.loss.count(self._target_of(piece, n)) for piece in pieces]
        count = torch.stack([torch.as_tensor(count) for count in counts]).sum(0)
        share = formulas.mean_share(count)
        totals: list[Tensor] = []
        for piece in pieces:
            total, _ = self._forward(self._as_shown(gather(piece), n), n)
            backward(total, share)
            totals.append(total.detach())
        return formulas.reported_loss(sum(totals[1:], start=totals[0]), count, len(rows))

    def _target_of(self, piece: Tensor, n: int) -> Batch:
        """The target of some rows, which the loss counts. Where the task hides inputs, the target
        depends on them."""
        rows = self.batches.rows
        batch = (
            self._as_shown(rows.gather(piece), n)
            if self.hide is not None
            else Batch({}, rows.gather_target(piece), piece)
        )
        return self._per_member(batch)


def repeat_rows(batch: Batch, times: int) -> Batch:
    """Target and rows of a batch with each row `times` times in succession; inputs stay.

    >>> batch = Batch({}, torch.tensor([5, 7]), torch.tensor([0, 1]))
    >>> repeat_rows(batch, 2).target
    tensor([5, 5, 7, 7])
    """
    return replace(
        batch, target=_repeated(batch.target, times), rows=batch.rows.repeat_interleave(times, 0)
    )


def _repeated(target: object, times: int) -> object:
    """A target tensor, or a dict of them by target name."""
    if isinstance(target, Mapping):
        columns = cast("Mapping[str, object]", target)
        return {name: _repeated(column, times) for name, column in columns.items()}
    assert isinstance(target, Tensor)
    return target.repeat_interleave(times, 0)
