"""Normalization: over the batch, also where it holds a single row; and over the features of each place, as Transformers do.

B batch, C channels, H height, W width, D features.
Sources: Ioffe and Szegedy, 2015, arXiv:1502.03167 (batch); Ba et al., 2016, arXiv:1607.06450 (layer); Zhang and Sennrich, 2019,
arXiv:1910.07467 (root mean square).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

Normalization = Literal["rms", "layer"]
EPSILON = 1e-5  # added to the mean square; that of Llama and of torch's LayerNorm


def normalization(name: Normalization, width: int, *, bias: bool = False) -> nn.Module:
    """A new normalization over the last dimension: RMSNorm (scale only) or LayerNorm (scale, and a shift where `bias`)."""
    return nn.RMSNorm(width, eps=EPSILON) if name == "rms" else nn.LayerNorm(width, eps=EPSILON, bias=bias)


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
