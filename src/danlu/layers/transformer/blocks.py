"""Transformer blocks, and the stack of them that encoders and decoders are.

B batch, T places, S places of a memory, D width, M width of a memory.
Sources: Vaswani et al., 2017, arXiv:1706.03762 (normalization after each half of a block); before
it: Xiong et al., 2020, arXiv:2002.04745.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from danlu.layers.attention.multi_head import Attention, visible_places
from danlu.layers.attention.rotary import Angles, Rotary
from danlu.layers.dropout import Dropout
from danlu.layers.generation.kv_cache import Cache, NewPlaces
from danlu.layers.normalization import Normalization, normalization
from danlu.layers.parametrization import ResidualBranch
from danlu.layers.transformer.feed_forward import FeedForward, Kind


@dataclass(frozen=True)
class StackSizes:
    """The options of a stack; `memory` is the width of what cross-attention sees (None: there is no
    cross-attention)."""

    num_layers: int
    width: int
    num_heads: int
    num_key_value_heads: int | None = None
    feed_forward: Kind = "swiglu"
    feed_forward_width: int | None = None
    normalization: Normalization = "rms"
    qk_norm: bool = False
    bias: bool = False
    dropout: float = 0.0
    memory: int | None = None
    norm_first: bool = True


class Block(ResidualBranch):
    """x_BTD -> (B, T, D): x + attention(norm(x)), then, where there is a memory, the same with
    cross-attention, then x + feed_forward(norm(x)).

    Without `norm_first` each half is norm(x + attention(x)) instead.
    """

    def __init__(self, sizes: StackSizes) -> None:
        super().__init__()
        width, heads, groups = sizes.width, sizes.num_heads, sizes.num_key_value_heads
        self.attention_norm = normalization(sizes.normalization, width, bias=sizes.bias)
        self.attention = Attention(width, heads, groups, qk_norm=sizes.qk_norm, bias=sizes.bias)
        self.memory_norm = self.memory_attention = None
        if sizes.memory is not None:
            self.memory_norm = normalization(sizes.normalization, width, bias=sizes.bias)
            self.memory_attention = Attention(
                width, heads, groups, memory=sizes.memory, qk_norm=sizes.qk_norm, bias=sizes.bias
            )
        self.feed_forward_norm = normalization(sizes.normalization, width, bias=sizes.bias)
        self.feed_forward = FeedForward(
            width, sizes.feed_forward, sizes.feed_forward_width, bias=sizes.bias
        )
        self.dropout = Dropout(sizes.dropout) if sizes.dropout else nn.Identity()
        self.branch = 1.0  # a factor of what each half adds
        self.norm_first = sizes.norm_first

    def forward(
        self,
        x_BTD: Tensor,
        *,
        causal: bool,
        mask: Tensor | None = None,
        angles: Angles | None = None,
        memory: tuple[Tensor, Tensor] | None = None,
        memory_mask: Tensor | None = None,
        cache: Cache | None = None,
        layer: int = 0,
        places: NewPlaces | None = None,
    ) -> Tensor:
        """As Stack.forward; `memory` is what `remember` gave."""
        if not self.norm_first:
            attended = self.attention(
                x_BTD,
                causal=causal,
                mask=mask,
                angles=angles,
                cache=cache,
                layer=layer,
                places=places,
            )
            x_BTD = self.attention_norm(x_BTD + self._added(attended))
            if (
                memory is not None
                and self.memory_attention is not None
                and self.memory_norm is not None
            ):
                x_BTD = self.memory_norm(
                    x_BTD + self._added(self.memory_attention.look(x_BTD, *memory, memory_mask))
                )
            return self.feed_forward_norm(x_BTD + self._added(self.feed_forward(x_BTD)))
        attended = self.attention(
            self.attention_norm(x_BTD),
            causal=causal,
            mask=mask,
            angles=angles,
            cache=cache,
            layer=layer,
            places=places,
        )
        x_BTD = x_BTD + self._added(attended)
        if (
            memory is not None
            and self.memory_attention is not None
            and self.memory_norm is not None
        ):
            x_BTD = x_BTD + self._added(
                self.memory_attention.look(self.memory_norm(x_BTD), *memory, memory_mask)
            )
        return x_BTD + self._added(self.feed_forward(self.feed_forward_norm(x_BTD)))

    def _added(self, x_BTD: Tensor) -> Tensor:
        x_BTD = self.dropout(x_BTD)
        return x_BTD if self.branch == 1.0 else x_BTD * self.branch

    def remember(self, memory_BSM: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a memory, (B, G, S, E) each."""
        if self.memory_attention is None:
            raise ValueError(
                "this block has no attention to a memory: give Sizes(memory=...) its width"
            )
        return self.memory_attention.remember(memory_BSM)


class Stack(nn.Module):
    """x_BTD -> (B, T, D): blocks in sequence, and a last normalization where the blocks do not end
    in one. causal=False makes an encoder, causal=True a decoder.

    `rotary` rotates the queries and keys of every block; without it x must contain its positions.
    Weights are drawn by `init_weights`.
    """

    def __init__(self, sizes: StackSizes, *, causal: bool, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.causal = causal
        self.rotary = rotary
        self.blocks = nn.ModuleList(Block(sizes) for _ in range(sizes.num_layers))
        last = normalization(sizes.normalization, sizes.width, bias=sizes.bias)
        self.norm = last if sizes.norm_first else nn.Identity()
        init_weights(self)

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def forward(
        self,
        x_BTD: Tensor,
        present_BT: Tensor | None = None,
        memory_BSM: Tensor | None = None,
        memory_present_BS: Tensor | None = None,
    ) -> Tensor:
        """All places at once.

        present_BT, memory_present_BS   bool, False at padding (None: no padding). A causal stack
                                        needs no present_BT: padding is at the end, which no token
                                        sees
        memory_BSM                      what cross-attention sees
        """
        mask = None if self.causal or present_BT is None else visible_places(present_BT)
        memory_mask = None if memory_present_BS is None else visible_places(memory_present_BS)
        angles = None if self.rotary is None else self.rotary.angles(x_BTD.shape[1])
        for block in self._blocks():
            memory = None if memory_BSM is None else block.remember(memory_BSM)
            x_BTD = block(
                x_BTD,
                causal=self.causal,
                mask=mask,
                angles=angles,
                memory=memory,
                memory_mask=memory_mask,
            )
        return self.norm(x_BTD)

    def remember(self, memory_BSM: Tensor, memory_present_BS: Tensor | None, cache: Cache) -> None:
        """Store the keys and values of a memory for every block in the cache, once, before the
        first `extend`."""
        if memory_present_BS is None:
            memory_present_BS = torch.ones(
                memory_BSM.shape[:2], dtype=torch.bool, device=memory_BSM.device
            )
        cache.shared["memory_present"] = memory_present_BS
        for block, kept in zip(self._blocks(), cache.layers, strict=True):
            kept["memory_keys"], kept["memory_values"] = block.remember(memory_BSM)

    def cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` rows with room for `length` tokens each."""
        return Cache(batch, length, len(self.blocks))

    def extend(self, x_BTD: Tensor, cache: Cache, places: NewPlaces) -> Tensor:
        """(B, T, D) of new places after those in the cache; `places` is cache.places(T, device).
        The caller advances the cache."""
        angles = None if self.rotary is None else self.rotary.angles(places.end, places.positions)
        present_BS = cache.shared.get("memory_present")
        memory_mask = None if present_BS is None else visible_places(present_BS)
        for number, (block, kept) in enumerate(zip(self._blocks(), cache.layers, strict=True)):
            memory = (kept["memory_keys"], kept["memory_values"]) if "memory_keys" in kept else None
            x_BTD = block(
                x_BTD,
                causal=True,
                angles=angles,
                memory=memory,
                memory_mask=memory_mask,
                cache=cache,
                layer=number,
                places=places,
            )
        return self.norm(x_BTD)


def init_weights(stack: nn.Module) -> None:
    """Draw the weights of linear layers, in place: normal with standard deviation 1 /
    sqrt(inputs), biases 0; the last layer of each half of a block ten times smaller.

    Blocks then start close to the identity, and every parameter still has a gradient, which it
    would not have if the last layers started at 0.
    """
    for layer in stack.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in stack.modules():
        if isinstance(layer, Attention | FeedForward):
            last = layer.output if isinstance(layer, Attention) else layer.down
            with torch.no_grad():
                last.weight.mul_(0.1)
