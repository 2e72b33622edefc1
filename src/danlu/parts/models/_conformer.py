"""Conformer blocks over the frames of a recording: attention and convolution.

B batch, T frames, F bands, D width; t frames after strides, rounded up.
Source: Gulati et al., 2020, arXiv:2005.08100. Layer normalization replaces the paper's batch
normalization, so that padding and other rows do not change a row's output; positions are rotary.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.attention.multi_head import Attention, visible_places
from danlu.layers.attention.rotary import Angles, Rotary
from danlu.layers.audio.masked_convolution import halved
from danlu.layers.dropout import Dropout
from danlu.layers.pooling import real_places

CERTAIN = -1e4  # the logit of all other characters where the blank has probability 1


class Subsampling(nn.Module):
    """(x_BTF, lengths_B) -> ((B, t, D), lengths_B): convolutions of stride 2, which halve time and
    bands."""

    def __init__(self, bands: int, width: int, halvings: int, channels: int) -> None:
        super().__init__()
        sizes = [1, *[channels] * halvings]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in itertools.pairwise(sizes)
        )
        for _ in range(halvings):
            bands = (bands + 1) // 2
        self.project = nn.Linear(bands * sizes[-1], width)

    def forward(self, x_BTF: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        x = x_BTF[:, None]
        for convolution in self.convolutions:
            x, lengths_B = functional.silu(convolution(x)), halved(lengths_B)
            x = x * real_places(lengths_B, x.shape[2])[:, None, :, None]
        return self.project(x.transpose(1, 2).flatten(2)), lengths_B


class Near(nn.Module):
    """x_BTD -> (B, T, D): the convolution module: a gate, a depthwise convolution over frames, a
    linear layer."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 2 * width)
        self.convolution = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, there_BT1: Tensor) -> Tensor:
        x_BTD = functional.glu(self.gate(x_BTD), dim=-1) * there_BT1
        x_BTD = self.convolution(x_BTD.transpose(1, 2)).transpose(1, 2)
        return self.out(functional.silu(self.norm(x_BTD)))


class Half(nn.Sequential):
    """x_BTD -> (B, T, D): a feed-forward layer; a block adds half the output of one at its start
    and of one at its end."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.SiLU(),
            Dropout(dropout),
            nn.Linear(4 * width, width),
            Dropout(dropout),
        )


class ConformerBlock(nn.Module):
    """x_BTD -> (B, T, D)."""

    def __init__(self, width: int, num_heads: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.before, self.after = Half(width, dropout), Half(width, dropout)
        self.attention_norm, self.near_norm, self.last_norm = (
            nn.LayerNorm(width),
            nn.LayerNorm(width),
            nn.LayerNorm(width),
        )
        self.attention = Attention(width, num_heads, bias=True)
        self.near = Near(width, kernel)
        self.dropout = Dropout(dropout)

    def forward(
        self, x_BTD: Tensor, there_BT1: Tensor, mask: Tensor | None, angles: Angles
    ) -> Tensor:
        x_BTD = x_BTD + 0.5 * self.before(x_BTD)
        x_BTD = x_BTD + self.dropout(
            self.attention(self.attention_norm(x_BTD), mask=mask, angles=angles)
        )
        x_BTD = x_BTD + self.dropout(self.near(self.near_norm(x_BTD), there_BT1))
        return self.last_norm(x_BTD + 0.5 * self.after(x_BTD))


class Conformer(nn.Module):
    """{name: x_BTF, name_lengths: (B,)} -> (x_BtD, lengths_B)."""

    def __init__(
        self,
        name: str,
        bands: int,
        width: int,
        num_heads: int,
        num_layers: int,
        kernel: int,
        halvings: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.name, self.width = name, width
        self.subsampling = Subsampling(bands, width, halvings, channels=max(8, width // 4))
        self.dropout = Dropout(dropout)
        self.rotary = Rotary(width // num_heads, 512)
        self.blocks = nn.ModuleList(
            ConformerBlock(width, num_heads, kernel, dropout) for _ in range(num_layers)
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        x_BTF, lengths_B = inputs[self.name], inputs[f"{self.name}_lengths"]
        if x_BTF.shape[1] == 0:
            x_BTF = functional.pad(x_BTF, (0, 0, 0, 1))
        x_BTD, lengths_B = self.subsampling(x_BTF, lengths_B)
        present_BT = real_places(lengths_B, x_BTD.shape[1])
        mask, angles = visible_places(present_BT), self.rotary.angles(x_BTD.shape[1])
        x_BTD = self.dropout(x_BTD)
        for block in self.blocks:
            x_BTD = block(x_BTD, present_BT[:, :, None], mask, angles)
        return x_BTD, lengths_B


class RecordingRow(nn.Module):
    """inputs -> (B, D): the mean of a recording's frames."""

    def __init__(self, body: Conformer) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        x_BTD, lengths_B = self.body(inputs)
        there_BT1 = real_places(lengths_B, x_BTD.shape[1])[:, :, None]
        return (x_BTD * there_BT1).sum(dim=1) / lengths_B.clamp(min=1)[:, None]


class RecordingFrames(nn.Module):
    """inputs -> logits (B, t, S) of characters; the first is the blank, with probability 1 after a
    row's end."""

    def __init__(self, body: Conformer, size: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(body.width, size)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        x_BTD, lengths_B = self.body(inputs)
        logits_BTS = self.head(x_BTD).float()
        blank_S = torch.full((logits_BTS.shape[2],), CERTAIN, device=logits_BTS.device)
        blank_S[0] = 0.0
        return torch.where(
            real_places(lengths_B, logits_BTS.shape[1])[:, :, None], logits_BTS, blank_S
        )
