"""The key-value cache of a generating model: what it keeps of the tokens it has read, so that each is read once.

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
    """Where the next tokens stand.

    start        the place of the first, where all rows are equally long; else None
    end          places that any row reaches, new ones included
    positions    int64 (B, T), the place of each token in its row, on the device
    visible      bool (B, 1, T, S), which kept places (S = end) each new one may look at; None where that is all of them
    causal       whether the cache was empty: plain causal attention among the new tokens, `visible` is None
    """

    start: int | None
    end: int
    positions: Tensor
    visible: Tensor | None
    causal: bool


@runtime_checkable
class Cached(Protocol):
    """A model that generates text with a cache. A module of the user's own need not derive from it.

    The logits of tokens that are appended piece by piece are those of `forward` over the whole text,
    to float32's last digits.
    """

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
    layers    one dict a layer: name -> Tensor, rows first. "keys" and "values" (B, H, places, E) of attention; a layer may keep
              whatever else it needs under other names (keys and values of a memory, the state of a recurrent layer)
    shared    the same for what all layers use (the mask of a memory)
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
        """Where `count` more tokens a row stand; makes room for them."""
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
        """Keep the keys and values of new tokens; gives those of all places, (B, H, S, E) each."""
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
        """Count the new tokens: `count` in every row, or sizes_B[b] in row b. What was written
        beyond is written over later."""
        self.lengths = self.lengths + (
            count if sizes_B is None else torch.as_tensor(sizes_B, dtype=torch.int64, device="cpu")
        )

    def keep(self, rows: Sequence[int] | Tensor) -> Cache:
        """A new cache of `rows` of this one, in their order; a row may stand there several
        times."""
        rows = torch.as_tensor(rows, dtype=torch.int64, device="cpu")
        found = Cache(0, self.capacity, len(self.layers))
        found.lengths = self.lengths[rows]
        found.layers = [
            {name: each[rows.to(each.device)] for name, each in layer.items()}
            for layer in self.layers
        ]
        found.shared = {name: each[rows.to(each.device)] for name, each in self.shared.items()}
        return found

    def join(self, other: Cache) -> Cache:
        """A new cache: the rows of this one, then those of `other`, of the same model."""
        found = Cache(0, max(self.capacity, other.capacity), len(self.layers))
        found.lengths = torch.cat([self.lengths, other.lengths])
        ones, others = [self.shared, *self.layers], [other.shared, *other.layers]
        found.shared, *found.layers = (
            _joined(*pair, len(self), len(other), found.capacity)
            for pair in zip(ones, others, strict=True)
        )
        return found

    def _grow(self, length: int) -> None:
        if length <= self.capacity:
            return
        self.capacity = max(length, self.capacity * 3 // 2)  # in leaps: each one copies everything
        for layer in self.layers:
            for name in layer.keys() & set(GROWING):
                layer[name] = _padded(layer[name], 2, self.capacity)


def _joined(
    one: dict[str, Tensor], other: dict[str, Tensor], rows: int, more: int, capacity: int
) -> dict[str, Tensor]:
    """The tensors of both, one below the other; zeros where one of them has none of that name
    yet."""
    found = {}
    for name in [*one, *(each for each in other if each not in one)]:
        like = one.get(name, other.get(name))
        assert like is not None
        pair = [
            one.get(name, like.new_zeros(rows, *like.shape[1:])),
            other.get(name, like.new_zeros(more, *like.shape[1:])),
        ]
        if name in GROWING:
            pair = [_padded(each, 2, capacity) for each in pair]
        for dimension in range(1, like.ndim):  # memories of different lengths, their masks
            size = max(each.shape[dimension] for each in pair)
            pair = [_padded(each, dimension, size) for each in pair]
        found[name] = torch.cat(pair)
    return found


def _padded(tensor: Tensor, dimension: int, size: int) -> Tensor:
    """The tensor with zeros after its end along `dimension`, up to `size`."""
    missing = size - tensor.shape[dimension]
    if missing <= 0:
        return tensor
    widths = [0, 0] * (tensor.ndim - 1 - dimension) + [0, missing]
    return functional.pad(tensor, widths)
