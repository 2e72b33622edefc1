"""The places of a row pooled to one vector: largest, mean, or attention; padding is ignored.

B batch, T places, D numbers at a place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def real_places(lengths_B: Tensor, places: int) -> Tensor:
    """Which of `places` places are within each row's length, bool (B, T).

    >>> real_places(torch.tensor([1, 2]), 2).tolist()
    [[True, False], [True, True]]
    """
    return torch.arange(places, device=lengths_B.device) < lengths_B[:, None]


class MaxPooling(nn.Module):
    """x_BTD, inside_BT -> the maximum over the places of each row, (B, D); 0 for a row without
    places."""

    def forward(self, x_BTD: Tensor, inside_BT: Tensor) -> Tensor:
        lowest = torch.finfo(x_BTD.dtype).min
        found_BD = x_BTD.masked_fill(~inside_BT[:, :, None], lowest).amax(dim=1)
        return found_BD.masked_fill(~inside_BT.any(dim=1, keepdim=True), 0.0)


class MeanPooling(nn.Module):
    """x_BTD, inside_BT -> the mean over the places of each row, (B, D); 0 for a row without
    places."""

    def forward(self, x_BTD: Tensor, inside_BT: Tensor) -> Tensor:
        count_B1 = inside_BT.sum(dim=1, keepdim=True).clamp(min=1)
        return x_BTD.masked_fill(~inside_BT[:, :, None], 0.0).sum(dim=1) / count_B1


class AttentionPooling(nn.Module):
    """x_BTD, inside_BT -> the mean of the places, weighted by the softmax of a learnt score, (B,
    D); 0 for a row without places.

    score = v . tanh(W x). Source: Yang et al., 2016, "Hierarchical attention networks for document
    classification".
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)  # a bias would change no softmax

    def forward(self, x_BTD: Tensor, inside_BT: Tensor) -> Tensor:
        score_BT = self.score(torch.tanh(self.inner(x_BTD))).squeeze(2)
        score_BT = score_BT.masked_fill(~inside_BT, torch.finfo(score_BT.dtype).min)
        weight_BT1 = score_BT.softmax(dim=1).masked_fill(~inside_BT, 0.0).unsqueeze(2)
        return (x_BTD.masked_fill(~inside_BT[:, :, None], 0.0) * weight_BT1).sum(dim=1)
