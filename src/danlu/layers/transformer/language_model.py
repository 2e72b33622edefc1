"""The decoder-only language model.

B batch, T places, D width, V codes of the vocabulary.
Source: Radford et al., 2019 (GPT-2), with the parts that Llama (Touvron et al., 2023,
arXiv:2302.13971) and the speed runs of nanoGPT (Jordan and others, 2024) changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from danlu.compat.torch_export import is_exporting
from danlu.errors import PartError
from danlu.layers.attention.rotary import Rotary
from danlu.layers.dropout import Dropout
from danlu.layers.generation.kv_cache import Cache, Cached
from danlu.layers.parametrization import VocabularyTables, WidensFrom
from danlu.layers.quantization.weight_only import tied_product
from danlu.layers.transformer.blocks import Stack, StackSizes

# The input of the first block is as large as what a block adds. With GPT-2's 0.02 it would be lost
# beside what the first blocks add: 1.750 in place of 1.718 nats a character of tinyshakespeare
# after 0.6 M tokens (size nano).
EMBEDDING_SPREAD = 0.5
# Small logits, so that the first loss is close to the logarithm of V. A tied embedding starts like
# the head.
HEAD_SPREAD = 0.02


class Head(nn.Linear, VocabularyTables):
    """x_BTD -> logits_BTV, without bias."""

    TABLES = ("weight",)
    spread = HEAD_SPREAD

    def __init__(self, width: int, cardinality: int) -> None:
        super().__init__(width, cardinality, bias=False)
        nn.init.normal_(self.weight, std=HEAD_SPREAD)


class LanguageModel(WidensFrom, Cached):
    """{name: tokens_BT int64} -> logits_BTV float32 of the token that follows each token, given it
    and those before it.

    `context` is the number of learned positions; with `rotary` there is no limit. A tied head
    multiplies by the embedding's weights. Padding at the end changes nothing before it.
    """

    def __init__(
        self,
        name: str,
        cardinality: int,
        sizes: StackSizes,
        *,
        rotary: bool,
        context: int,
        tied: bool,
        theta: float = 10_000.0,
    ) -> None:
        super().__init__()
        self.name = name
        self.context = context
        self.embedding = nn.Embedding(cardinality, sizes.width)
        spread = HEAD_SPREAD if tied else EMBEDDING_SPREAD
        nn.init.normal_(self.embedding.weight, std=spread)
        self.positions = None if rotary else nn.Embedding(context, sizes.width)
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=spread)
        self.dropout = Dropout(sizes.dropout) if sizes.dropout else nn.Identity()
        turning = Rotary(sizes.width // sizes.num_heads, context, theta) if rotary else None
        self.stack = Stack(sizes, causal=True, rotary=turning)
        self.head = None if tied else Head(sizes.width, cardinality)
        self.tied_multiplier = 1.0  # a factor of the input of a tied head

    def forward_multipliers(self) -> dict[str, float]:
        return {"tied_multiplier": self.tied_multiplier}

    def widen_from(self, base: nn.Module) -> None:
        """Keep the logits of a tied head, which are sums over the width, at the size of those of
        `base`."""
        assert isinstance(base, LanguageModel)
        if self.head is None:
            self.tied_multiplier = base.embedding.embedding_dim / self.embedding.embedding_dim

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        tokens_BT = inputs[self.name]
        return self._logits(self.stack(self._embedded(tokens_BT, None)))

    def cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` rows with room for `length` tokens each."""
        return self.stack.cache(batch, length)

    def extend(
        self, tokens_BT: Tensor, cache: Cache, sizes_B: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        """Append tokens to the cache and give their logits_BTV; see Cached."""
        places = cache.places(tokens_BT.shape[1], tokens_BT.device)
        x_BTD = self.stack.extend(self._embedded(tokens_BT, places.positions), cache, places)
        cache.advance(tokens_BT.shape[1], sizes_B)
        return self._logits(x_BTD)

    def _embedded(self, tokens_BT: Tensor, positions_BT: Tensor | None) -> Tensor:
        x_BTD = self.embedding(tokens_BT)
        if self.positions is not None:
            if positions_BT is None:
                positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
            x_BTD = x_BTD + self.positions(self._within_context(positions_BT))
        return self.dropout(x_BTD)

    def _within_context(self, positions_BT: Tensor) -> Tensor:
        if (
            is_exporting()
        ):  # a place beyond the last has no position, which stops whoever runs the graph
            return positions_BT
        last = int(positions_BT.max()) if positions_BT.numel() else 0
        if last >= self.context:
            raise PartError(
                f"the model learned positions for {self.context:,} tokens, and a text has "
                f"{last + 1:,}.",
                hint="shorten the text, or train with positions: rotary, which have no limit",
            )
        return positions_BT

    def _logits(self, x_BTD: Tensor) -> Tensor:
        if self.head is not None:
            return self.head(x_BTD).float()
        if self.tied_multiplier != 1.0:
            x_BTD = x_BTD * self.tied_multiplier
        return tied_product(x_BTD, self.embedding).float()
