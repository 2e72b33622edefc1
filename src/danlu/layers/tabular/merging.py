"""Merging the dict of inputs into one tensor: taking one input, concatenating, adding.

B batch, F features, D all features together.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class TakeInput(nn.Module):
    """inputs -> body(inputs[name]); without a body inputs[name]."""

    def __init__(self, name: str, body: nn.Module | None = None) -> None:
        super().__init__()
        self.name = name
        self.body = body

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        x = inputs[self.name]
        return x if self.body is None else self.body(x)


class Concatenate(nn.Module):
    """inputs -> (B, D): the outputs of all branches, concatenated."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([branch(inputs) for branch in self.branches], dim=1)


class Add(nn.Module):
    """inputs -> the sum of the outputs of all branches."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        first, *others = self.branches
        total = first(inputs)
        for branch in others:
            total = total + branch(inputs)
        return total


def concatenated(branches: list[nn.Module]) -> nn.Module:
    """Concatenate of several branches; a single one itself."""
    return branches[0] if len(branches) == 1 else Concatenate(branches)
