"""A Transformer over patches of a series: each token is a time span.

N rows, L time steps of the past, H time steps ahead, C channels of the window, P patches, W numbers
in a patch, D width, K columns known in advance, S static columns.
Source: Nie et al., 2022, arXiv:2211.14730 (PatchTST).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.dropout import Dropout
from danlu.layers.forecasting.forecaster import BodySizes
from danlu.layers.transformer.blocks import Stack
from danlu.layers.transformer.blocks import StackSizes as StackSizes


class Patches(nn.Module):
    """x_NLC -> (N, P, D): patches of `length` time steps, one every `stride`; the end is padded
    with the last time step. Position embeddings are learned."""

    def __init__(self, moments: int, channels: int, length: int, stride: int, width: int) -> None:
        super().__init__()
        self.length, self.stride = min(length, moments), min(stride, moments)
        self.beyond = (
            self.length - moments
        ) % self.stride or self.stride  # whole strides, and one more, as published
        self.count = (moments + self.beyond - self.length) // self.stride + 1
        self.embed = nn.Linear(channels * self.length, width)
        self.places = nn.Parameter(0.02 * torch.randn(self.count, width))

    def forward(self, x_NLC: Tensor) -> Tensor:
        x_NCL = functional.pad(x_NLC.transpose(1, 2), (0, self.beyond), mode="replicate")
        patches_NPW = x_NCL.unfold(2, self.length, self.stride).transpose(1, 2).flatten(2)
        return self.embed(patches_NPW) + self.places


class PatchTokens(nn.Module):
    """(window_NLC, future_NHK or None, static_NS or None) -> (N, P, D): tokens after the encoder.

    Patches of columns known in advance, and one token of static columns, follow those of the past.
    """

    def __init__(self, sizes: BodySizes, length: int, stride: int, stack: StackSizes) -> None:
        super().__init__()
        self.past = Patches(sizes.moments, sizes.channels, length, stride, stack.width)
        self.future = (
            Patches(sizes.steps, sizes.future, length, length, stack.width)
            if sizes.future
            else None
        )
        self.static = nn.Linear(sizes.static, stack.width) if sizes.static else None
        self.count = (
            self.past.count
            + (self.future.count if self.future is not None else 0)
            + (self.static is not None)
        )
        self.dropout = Dropout(stack.dropout)
        self.stack = Stack(stack, causal=False)

    def forward(
        self, window_NLC: Tensor, future_NHK: Tensor | None, static_NS: Tensor | None
    ) -> Tensor:
        tokens = [self.past(window_NLC)]
        if self.future is not None and future_NHK is not None:
            tokens.append(self.future(future_NHK))
        if self.static is not None and static_NS is not None:
            tokens.append(self.static(static_NS)[:, None])
        return self.stack(self.dropout(torch.cat(tokens, dim=1)))


class PatchForecast(nn.Module):
    """(window_NLC, future_NHK or None, static_NS or None) -> (N, H, size), linear in all tokens."""

    def __init__(
        self, sizes: BodySizes, length: int, stride: int, stack: StackSizes, head_dropout: float
    ) -> None:
        super().__init__()
        self.tokens = PatchTokens(sizes, length, stride, stack)
        self.steps = sizes.steps
        self.head = nn.Sequential(
            nn.Flatten(),
            Dropout(head_dropout),
            nn.Linear(self.tokens.count * stack.width, sizes.steps * sizes.size),
        )

    def forward(
        self, window_NLC: Tensor, future_NHK: Tensor | None, static_NS: Tensor | None
    ) -> Tensor:
        return self.head(self.tokens(window_NLC, future_NHK, static_NS)).unflatten(
            1, (self.steps, -1)
        )


class PatchSummary(nn.Module):
    """inputs -> (B, size): one output per series, from the mean of its tokens."""

    def __init__(self, sizes: BodySizes, length: int, stride: int, stack: StackSizes) -> None:
        super().__init__()
        self.tokens = PatchTokens(sizes, length, stride, stack)
        self.last = nn.Linear(stack.width, sizes.size)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.last(self.tokens(inputs["series"], None, inputs.get("numbers")).mean(1))
