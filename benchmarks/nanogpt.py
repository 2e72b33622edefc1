"""The GPT of nanoGPT in plain torch, with which `language_models.py` compares danlu.

As in nanoGPT: LayerNorm before attention and MLP, one layer for query, key and value, GELU, learned
positions, tied head, no bias, normal initial weights (standard deviation 0.02), AdamW (betas 0.9
and 0.99, weight decay 0.1 on matrices), cosine schedule to a tenth, gradient clipping at 1.
Source: Karpathy, github.com/karpathy/nanoGPT, model.py, train.py and
config/train_shakespeare_char.py (2022-2023)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """x + attention(norm(x)), then + two layers with GELU."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_forward_norm = (
            nn.LayerNorm(width, bias=False),
            nn.LayerNorm(width, bias=False),
        )
        self.attention, self.attention_out = (
            nn.Linear(width, 3 * width, bias=False),
            nn.Linear(width, width, bias=False),
        )
        self.up, self.down = (
            nn.Linear(width, 4 * width, bias=False),
            nn.Linear(4 * width, width, bias=False),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        three = self.attention(self.attention_norm(x)).split(width, dim=2)
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in three
        )
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.dropout(
            self.attention_out(y.transpose(1, 2).contiguous().view(batch, length, width))
        )
        return x + self.dropout(self.down(functional.gelu(self.up(self.feed_forward_norm(x)))))


class NanoGPT(nn.Module):
    """tokens (B, T) -> logits (B, T, vocabulary); with `targets`, the mean loss."""

    def __init__(
        self,
        vocabulary: int,
        layers: int,
        heads: int,
        width: int,
        context: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for name, parameter in self.named_parameters():
            if parameter.ndim >= 2:
                last = name.endswith(("attention_out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * layers) if last else 0.02)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        x = self.dropout(self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1])))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return (
            logits
            if targets is None
            else functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        )


def optimizer(
    network: nn.Module, learning_rate: float, *, fused: bool = True
) -> torch.optim.Optimizer:
    """AdamW; nanoGPT takes the fused one on CUDA only, here everyone has it who can."""
    parameters = list(network.parameters())
    groups: list[dict[str, Any]] = [
        {
            "params": [parameter for parameter in parameters if parameter.ndim >= 2],
            "weight_decay": 0.1,
        },
        {
            "params": [parameter for parameter in parameters if parameter.ndim < 2],
            "weight_decay": 0.0,
        },
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99), fused=fused)


def rate(step: int, steps: int, warmup: int) -> float:
    """The share of the learning rate at a step: linear warm-up, cosine to a tenth."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(steps - warmup, 1)
    return 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress))
