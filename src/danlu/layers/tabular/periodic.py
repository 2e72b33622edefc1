"""Numbers as sines and cosines of learnt frequencies, so that a network can learn steps and cycles.

B batch, F features, K frequencies, E size of an embedding.
Source: Gorishniy et al., 2022, arXiv:2203.05556 (the form PLR: periodic, linear, ReLU).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EMBEDDING = 16


class PeriodicEmbedding(nn.Module):
    """x_BF -> (B, width): each feature, and EMBEDDING numbers made of its sines and cosines at K
    frequencies of its own.

    embedding_f = relu(W_f [sin(2 pi c_f x_f), cos(2 pi c_f x_f)] + b_f), the frequencies c_f drawn
    from a normal distribution with standard deviation `scale`. Features should have unit scale.
    """

    def __init__(self, features: int, frequencies: int, scale: float) -> None:
        super().__init__()
        self.frequencies_FK = nn.Parameter(torch.randn(features, frequencies) * scale)
        edge = (2 * frequencies) ** -0.5
        self.weight_FKE = nn.Parameter(
            torch.empty(features, 2 * frequencies, EMBEDDING).uniform_(-edge, edge)
        )
        self.bias_F1E = nn.Parameter(torch.empty(features, 1, EMBEDDING).uniform_(-edge, edge))
        self.width = features * (EMBEDDING + 1)

    def forward(self, x_BF: Tensor) -> Tensor:
        angle_FBK = x_BF.t()[:, :, None] * (2 * math.pi * self.frequencies_FK[:, None])
        waves_FBK = torch.cat([angle_FBK.sin(), angle_FBK.cos()], dim=2)
        embedded_FBE = torch.baddbmm(self.bias_F1E, waves_FBK, self.weight_FKE).relu()
        return torch.cat([x_BF, embedded_FBE.transpose(0, 1).flatten(1)], dim=1)
