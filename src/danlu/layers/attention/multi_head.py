"""Multi-head attention: causal, full with padding, or to a memory.

Keys and values may be grouped, queries and keys normalised and rotated (rotary positions).
B batch, T places of queries, S places of keys, D width, M width of a memory, H heads, G heads of
keys and values, E size of a head.
Sources: Vaswani et al., 2017, arXiv:1706.03762; Ainslie et al., 2023, arXiv:2305.13245 (grouped
queries); Henry et al., 2020, arXiv:2010.04245 (normalised queries and keys).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.compat.torch_export import is_exporting
from danlu.layers.attention.kernel import attention
from danlu.layers.attention.rotary import Angles, normalise_and_rotate, rotate
from danlu.layers.generation.kv_cache import Cache, NewPlaces
from danlu.layers.normalization import EPSILON
from danlu.layers.parametrization import WidensFrom


def padding_mask(tokens_BS: Tensor) -> Tensor | None:
    """The mask of tokens_BS, bool (B, 1, 1, S): True where there is a token, None where none is
    padding.

    A row that is all padding keeps its first place, because attention to nothing is undefined.
    Reading whether there is padding waits for the device; for a compiled or exported program make
    the mask outside of it.
    """
    present_BS = tokens_BS != 0
    return visible_places(present_BS)


def visible_places(present_BS: Tensor) -> Tensor | None:
    """`padding_mask` of present_BS, bool, True where there is a token.

    >>> visible_places(torch.tensor([[True, False]])).tolist()
    [[[[True, False]]]]
    """
    if not is_exporting() and bool(present_BS.all()):
        return None
    first_S = torch.arange(present_BS.shape[1], device=present_BS.device) == 0
    present_BS = present_BS | (first_S & ~present_BS.any(1, keepdim=True))
    return present_BS[:, None, None]


class Attention(WidensFrom):
    """x_BTD -> (B, T, D): for each place the mean of the values of the places it may see, weighted
    by the softmax of query times key.

    With `memory`, keys and values are made of a memory of that width. Query, key, value and output
    are separate matrices, because Muon makes each orthogonal, which parts of a fused one would not
    be. There is no dropout of the attention weights, which would rule out the fused kernels;
    dropout of the output works as well. Raises ValueError for head counts that do not divide.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_key_value_heads: int | None = None,
        *,
        memory: int | None = None,
        qk_norm: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        num_key_value_heads = num_key_value_heads or num_heads
        if width % num_heads or num_heads % num_key_value_heads:
            raise ValueError(
                f"width {width}, num_heads {num_heads} and num_key_value_heads "
                f"{num_key_value_heads} do not divide"
            )
        self.num_heads, self.num_key_value_heads = num_heads, num_key_value_heads
        self.head_size = width // num_heads
        self.qk_norm = qk_norm
        self.sharpness = 1.0  # a factor of the scores beside 1 / sqrt(E)
        narrow = self.head_size * num_key_value_heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(memory or width, narrow, bias=bias)
        self.value = nn.Linear(memory or width, narrow, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(
        self,
        x_BTD: Tensor,
        *,
        causal: bool = False,
        mask: Tensor | None = None,
        angles: Angles | None = None,
        cache: Cache | None = None,
        layer: int = 0,
        places: NewPlaces | None = None,
    ) -> Tensor:
        """Attention among the places of x, and with a cache also to the cached ones.

        `mask` is bool, True where a place may be seen, and broadcasts to (B, H, T, S); it is not
        combined with `causal`. `angles` rotate queries and keys (rotary positions). With a cache,
        `layer` and `places` say where new keys and values are stored.
        """
        query_BHTE = self._heads(self.query(x_BTD), self.num_heads, angles)
        key_BGTE = self._heads(self.key(x_BTD), self.num_key_value_heads, angles)
        value_BGTE = self._split(self.value(x_BTD), self.num_key_value_heads).transpose(1, 2)
        if cache is not None and places is not None:
            key_BGTE, value_BGTE = cache.write(layer, places, key_BGTE, value_BGTE)
            causal, mask = places.causal, places.visible
        return self._attend(query_BHTE, key_BGTE, value_BGTE, causal, mask)

    def forward_multipliers(self) -> dict[str, float]:
        return {"sharpness": self.sharpness}

    def widen_from(self, base: nn.Module) -> None:
        """Scale the scores so that beyond the head size of `base` they grow as 1 / E, not as 1 /
        sqrt(E): trained queries and keys are correlated, so their E products add up."""
        assert isinstance(base, Attention)
        self.sharpness = (base.head_size / self.head_size) ** 0.5

    def scores(self, x_BTD: Tensor, angles: Angles | None = None) -> Tensor:
        """The scores that the softmax takes, for every pair of places of x, (B, H, T, T); for
        inspection."""
        query_BHTE = self._heads(self.query(x_BTD), self.num_heads, angles)
        key_BGTE = self._heads(self.key(x_BTD), self.num_key_value_heads, angles)
        key_BHTE = key_BGTE.repeat_interleave(self.num_heads // self.num_key_value_heads, dim=1)
        return (query_BHTE * (self.sharpness * self.head_size**-0.5)) @ key_BHTE.mT

    def remember(self, memory_BSM: Tensor) -> tuple[Tensor, Tensor]:
        """(keys, values) of a memory, (B, G, S, E) each, computed once for all queries that
        follow."""
        key_BGSE = self._heads(self.key(memory_BSM), self.num_key_value_heads, None)
        return key_BGSE, self._split(self.value(memory_BSM), self.num_key_value_heads).transpose(
            1, 2
        )

    def look(
        self, x_BTD: Tensor, keys_BGSE: Tensor, values_BGSE: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Attention from x to a memory's keys and values, (B, T, D); `mask` as in forward."""
        query_BHTE = self._heads(self.query(x_BTD), self.num_heads, None)
        return self._attend(query_BHTE, keys_BGSE, values_BGSE, False, mask)

    def _split(self, x_BTD: Tensor, heads: int) -> Tensor:
        return x_BTD.unflatten(-1, (heads, self.head_size))

    def _heads(self, x_BTD: Tensor, heads: int, angles: Angles | None) -> Tensor:
        """Queries or keys (B, heads, T, E), normalised and rotated where the layer does. In memory
        they stay (B, T, heads, E)."""
        x_BTHE = self._split(x_BTD, heads)
        if self.qk_norm and angles is not None:
            x_BTHE = normalise_and_rotate(x_BTHE, angles, EPSILON)
        elif self.qk_norm:
            x_BTHE = functional.rms_norm(x_BTHE, (self.head_size,), eps=EPSILON)
        elif angles is not None:
            x_BTHE = rotate(x_BTHE, angles)
        return x_BTHE.transpose(1, 2)

    def _attend(
        self,
        query_BHTE: Tensor,
        key_BGSE: Tensor,
        value_BGSE: Tensor,
        causal: bool,
        mask: Tensor | None,
    ) -> Tensor:
        key_BGSE, value_BGSE = key_BGSE.to(query_BHTE.dtype), value_BGSE.to(query_BHTE.dtype)
        if self.sharpness != 1.0:
            query_BHTE = query_BHTE * self.sharpness
        group = self.num_heads // self.num_key_value_heads
        if group > 1:  # torch's own grouping (enable_gqa) leaves the fused kernel on a CPU
            key_BGSE, value_BGSE = (
                tensor.repeat_interleave(group, dim=1) for tensor in (key_BGSE, value_BGSE)
            )
        y_BHTE = attention(query_BHTE, key_BGSE, value_BGSE, mask, causal)
        return self.output(y_BHTE.transpose(1, 2).flatten(-2))
