"""Batch normalization that also takes the last batch of an epoch when it holds a single row.

B batch, C channels, H height, W width.
Source: Ioffe and Szegedy, 2015, arXiv:1502.03167.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class BatchNorm1d(nn.BatchNorm1d):
    """nn.BatchNorm1d; a training batch of one row is normalised as in evaluation, since one value has no spread."""

    def forward(self, input: Tensor) -> Tensor:
        x_BC = input  # torch's name, so that a call by keyword works here too
        return _as_in_evaluation(self, x_BC) if self.training and x_BC.shape[0] == 1 else super().forward(x_BC)


class BatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d; a training batch of one row of one pixel is normalised as in evaluation, since one value has no spread."""

    def forward(self, input: Tensor) -> Tensor:
        x_BCHW = input
        if self.training and x_BCHW.shape[0] == x_BCHW.shape[2] == x_BCHW.shape[3] == 1:
            return _as_in_evaluation(self, x_BCHW)
        return super().forward(x_BCHW)


def _as_in_evaluation(norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Tensor) -> Tensor:
    return functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)
