"""The key-value cache of a generating model, so that each token is read once.

Rows of one cache may have different lengths. `keep` and `join` take rows out of a cache and add
others while generation goes on: beams, and requests that come and go.

B batch, T new places, S cached places, H heads of keys and values, E size of a head.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

GROWING = ("keys", "values")  # tensors with one entry a place, in their third dimension


@dataclass(frozen=True)
class NewPlaces:
    """The places of the next tokens.

    start        the place of the first new token, where all rows are equally long; else None
    end          the length of the longest row, new tokens included
    positions    int64 (B, T), the place of each token in its row, on the device
    visible      bool (B, 1, T, S), which cached places (S = end) each new one may see; None where
                 it is all of them
    causal       whether the cache was empty: plain causal attention among the new tokens; `visible`
                 is then None
    """

    start: int | None
    end: int
    positions: Tensor
    visible: Tensor | None
    causal: bool


@runtime_checkable
class Cached(Protocol):
    """A model that generates text with a cache. A module of the user's own need not derive from it.

    The logits of tokens that are appended piece by piece are those of `forward` over the whole
    text, to float32's last digits."""

    @abstractmethod
    def cache(self, batch: int, length: int) -> Cache:
        """An empty cache for `batch` rows with room for `length` tokens each; it grows."""

    @abstractmethod
    def extend(
        self, tokens_BT: Tensor, cache: Cache, sizes_B: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        """Append tokens to the cache and give their logits_BTV.

        The first sizes_B[b] tokens of row b are real, the rest is padding at the end, whose logits
        mean nothing; None: all are real.
        """


class Cache:
    """The state of `batch` rows.

    lengths   int64 (B,), on the CPU: tokens in each row
    layers    one dict for each layer: name -> Tensor, rows first. Attention stores "keys" and
              "values" (B, H, places, E); a layer may store other state under other names (keys and
              values of a memory, the state of a recurrent layer)
    shared    the same for what all layers use (the mask of a memory)

    >>> cache = Cache(batch=2, length=4, num_layers=1)
    >>> cache.advance(3)
    >>> cache.lengths.tolist(), cache.keep([0]).lengths.tolist()
    ([3, 3], [3])
    """

    def __init__(self, batch: int, length: int, num_layers: int) -> None:
        self.lengths = torch.zeros(batch, dtype=torch.int64)
        self.capacity = max(length, 1)
        self.layers: list[dict[str, Tensor]] = [{} for _ in range(num_layers)]
        self.shared: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """The tokens of the longest row."""
        return int(self.lengths.max()) if len(self.lengths) else 0

    def places(self, count: int, device: torch.device) -> NewPlaces:
        """The places of `count` more tokens in each row; makes room for them."""
        longest = self.longest
        end = longest + count
        self._grow(end)
        equal = bool((self.lengths == longest).all())
        positions_BT = (self.lengths[:, None] + torch.arange(count)).to(device)
        causal = equal and longest == 0
        visible = None
        if not causal and not (equal and count == 1):
            visible = (torch.arange(end, device=device) <= positions_BT[..., None]).unsqueeze(1)
        return NewPlaces(longest if equal else None, end, positions_BT, visible, causal)

    def write(
        self, layer: int, places: NewPlaces, keys_BHTE: Tensor, values_BHTE: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Store the keys and values of new tokens; gives those of all places, (B, H, S, E) each."""
        kept = self.layers[layer]
        for name, new in (("keys", keys_BHTE), ("values", values_BHTE)):
            if name not in kept:
                batch, heads, _, size = new.shape
                kept[name] = new.new_zeros(batch, heads, self.capacity, size)
            if places.start is not None:
                kept[name][:, :, places.start : places.end] = new
            else:
                rows_B1 = torch.arange(len(self), device=new.device)[:, None]
                kept[name][rows_B1, :, places.positions] = new.transpose(1, 2).to(kept[name].dtype)
        return kept["keys"][:, :, : places.end], kept["values"][:, :, : places.end]

    def advance(self, count: int, sizes_B: Tensor | Sequence[int] | None = None) -> None:
        """Add `count` new tokens to the length of every row, or sizes_B[b] to that of row b. What
        was stored beyond is overwritten later."""
        self.lengths = self.lengths + (
            count if sizes_B is None else torch.as_tensor(sizes_B, dtype=torch.int64, device="cpu")
        )

    def keep(self, rows: Sequence[int] | Tensor) -> Cache:
        """A new cache of `rows` of this one, in their order; a row may be repeated."""
        rows = torch.as_tensor(rows, dtype=torch.int64, device="cpu")
        kept = Cache(0, self.capacity, len(self.layers))
        kept.lengths = self.lengths[rows]
        kept.layers = [
            {name: tensor[rows.to(tensor.device)] for name, tensor in layer.items()}
            for layer in self.layers
        ]
        kept.shared = {name: tensor[rows.to(tensor.device)] for name, tensor in self.shared.items()}
        return kept

    def join(self, other: Cache) -> Cache:
        """A new cache: the rows of this one, then those of `other`, of the same model."""
        joined = Cache(0, max(self.capacity, other.capacity), len(self.layers))
        joined.lengths = torch.cat([self.lengths, other.lengths])
        ones, others = [self.shared, *self.layers], [other.shared, *other.layers]
        joined.shared, *joined.layers = (
            _joined(*pair, len(self), len(other), joined.capacity)
            for pair in zip(ones, others, strict=True)
        )
        return joined

    def _grow(self, length: int) -> None:
        if length <= self.capacity:
            return
        self.capacity = max(
            length, self.capacity * 3 // 2
        )  # by half at once, because each growth copies everything
        for layer in self.layers:
            for name in layer.keys() & set(GROWING):
                layer[name] = _padded(layer[name], 2, self.capacity)


def _joined(
    one: dict[str, Tensor], other: dict[str, Tensor], rows: int, more: int, capacity: int
) -> dict[str, Tensor]:
    """The tensors of both caches, rows one after the other; zeros where one of them has none of
    that name yet."""
    tensors = {}
    for name in [*one, *(tensor for tensor in other if tensor not in one)]:
        like = one.get(name, other.get(name))
        assert like is not None
        pair = [
            one.get(name, like.new_zeros(rows, *like.shape[1:])),
            other.get(name, like.new_zeros(more, *like.shape[1:])),
        ]
        if name in GROWING:
            pair = [_padded(tensor, 2, capacity) for tensor in pair]
        for dimension in range(1, like.ndim):  # memories of different lengths, and their masks
            size = max(tensor.shape[dimension] for tensor in pair)
            pair = [_padded(tensor, dimension, size) for tensor in pair]
        tensors[name] = torch.cat(pair)
    return tensors


def _padded(tensor: Tensor, dimension: int, size: int) -> Tensor:
    """The tensor with zeros after its end along `dimension`, up to `size`."""
    missing = size - tensor.shape[dimension]
    if missing <= 0:
        return tensor
    widths = [0, 0] * (tensor.ndim - 1 - dimension) + [0, missing]
    return functional.pad(tensor, widths)
