"""Connectionist temporal classification: minus the log probability of all ways to spell the target.

Divided by the number of characters of the targets, so a recording weighs as much as its text is
long. A target that needs more frames than there are (one per character, and one for a blank between
two equal ones) has an infinite loss, which stops the update and names the row. Source: Graves et
al., 2006, "Connectionist temporal classification"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from danlu.parts.losses._base import Loss
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("spelling",)


class Config(Options):
    """ctc has no options."""


class Ctc(Loss):
    """Over logits (B, F, S), column 0 the blank, and targets int64 (B, C) with 0 after the end."""

    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        import torch
        from torch.nn.functional import ctc_loss

        target_BC = batch.target
        log_TBS = outputs.float().log_softmax(dim=2).transpose(0, 1)
        frames_B = torch.full((outputs.shape[0],), outputs.shape[1], dtype=torch.int64)
        sizes_B = (target_BC != 0).sum(dim=1)
        return ctc_loss(
            log_TBS, target_BC, frames_B, sizes_B.cpu(), blank=0, reduction="sum"
        ), self.count(batch)

    def count(self, batch: Batch) -> Tensor:
        """The number of characters of the targets; at least 1."""
        return (batch.target != 0).sum().clamp(min=1).float()


def build(config: Config, task: Task) -> Ctc:
    """The loss."""
    return Ctc()
