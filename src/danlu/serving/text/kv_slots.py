"""One cache that many texts share, each in a slot of its own: they come and go while the others go on.

B rows taken, T new places, S places kept, H heads of keys and values, E size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from danlu.layers.generation.kv_cache import GROWING, Cache, NewPlaces
from danlu.terms import END


class Slots:
    """`count` slots of `length` tokens each, allocated once; a module with `cache` and `extend`
    (danlu.layers.generation.kv_cache) writes into them.

    lengths   tokens that each slot holds
    layers    one dict a layer: name -> Tensor, a row a slot
    """

    def __init__(self, module: nn.Module, count: int, length: int) -> None:
        self.length = length
        self.lengths = [0] * count
        self.layers = [
            {
                name: each.new_zeros(count, *_shape(name, each, length))
                for name, each in layer.items()
            }
            for layer in _probe(module)
        ]

    @property
    def bytes(self) -> int:
        """The memory of all slots."""
        return sum(
            each.numel() * each.element_size() for layer in self.layers for each in layer.values()
        )

    def take(self, rows: Sequence[int]) -> Taken:
        """A cache of some slots for `extend`. `keep` it afterwards."""
        return Taken(self, list(rows))

    def keep(self, taken: Taken) -> None:
        """Remember what was read into a cache of `take`."""
        for row, length in zip(taken.rows, taken.lengths.tolist(), strict=True):
            self.lengths[row] = length
        for kept, layer in zip(self.layers, taken.layers, strict=True):
            for name in kept.keys() - set(GROWING):
                kept[name][taken.where] = layer[name]

    def clear(self, row: int) -> None:
        """Forget what a slot holds."""
        self.lengths[row] = 0
        for layer in self.layers:
            for name in layer.keys() - set(GROWING):
                layer[name][row] = 0

    def swap(self, one: int, other: int) -> None:
        """Let two slots change places; only what they hold is copied."""
        most = max(self.lengths[one], self.lengths[other])
        for layer in self.layers:
            for name, each in layer.items():
                pair = (
                    (each[one, :, :most], each[other, :, :most])
                    if name in GROWING
                    else (each[one], each[other])
                )
                if not self.lengths[other]:
                    pair[1].copy_(pair[0])
                elif not self.lengths[one]:
                    pair[0].copy_(pair[1])
                else:
                    first = pair[0].clone()
                    pair[0].copy_(pair[1])
                    pair[1].copy_(first)
        self.lengths[one], self.lengths[other] = self.lengths[other], self.lengths[one]
        for row in (one, other):
            if not self.lengths[row]:
                self.clear(row)


class Taken(Cache):
    """Some slots as a cache. Slots that stand side by side are written and read in place; of others
    the places kept are copied."""

    def __init__(self, slots: Slots, rows: list[int]) -> None:
        super().__init__(0, slots.length, len(slots.layers))
        self.slots, self.rows = slots, rows
        self.lengths = torch.tensor([slots.lengths[row] for row in rows], dtype=torch.int64)
        together = rows == list(range(rows[0], rows[0] + len(rows)))
        self.where: slice | list[int] = slice(rows[0], rows[0] + len(rows)) if together else rows
        self.layers = [
            {
                name: each[self.where]
                for name, each in layer.items()
                if together or name not in GROWING
            }
            for layer in slots.layers
        ]

    def write(
        self, layer: int, places: NewPlaces, keys_BHTE: Tensor, values_BHTE: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Keep the keys and values of new tokens; gives those of all places, (B, H, S, E) each."""
        if isinstance(self.where, slice):
            return super().write(layer, places, keys_BHTE, values_BHTE)
        rows_B = torch.tensor(self.rows, device=keys_BHTE.device)
        kept = self.slots.layers[layer]
        for name, new in (("keys", keys_BHTE), ("values", values_BHTE)):
            kept[name][rows_B[:, None], :, places.positions] = new.transpose(1, 2).to(
                kept[name].dtype
            )
        return kept["keys"][:, :, : places.end][rows_B], kept["values"][:, :, : places.end][rows_B]

    def _grow(self, length: int) -> None:
        if length > self.capacity:
            raise ValueError(f"a slot has room for {self.capacity} tokens, not {length}")


def bytes_of_slot(module: nn.Module, length: int) -> int:
    """The memory that a slot of `length` tokens takes."""
    return sum(
        torch.Size(_shape(name, each, length)).numel() * each.element_size()
        for layer in _probe(module)
        for name, each in layer.items()
    )


def _shape(name: str, like: Tensor, length: int) -> tuple[int, ...]:
    """Of one slot, as that of the one row of `like`, which holds one token."""
    return (like.shape[1], length, *like.shape[3:]) if name in GROWING else tuple(like.shape[1:])


@torch.inference_mode()
def _probe(module: Any) -> list[dict[str, Tensor]]:
    """What the layers of a module keep of one row of one token."""
    cache = module.cache(1, 1)
    module.extend(torch.tensor([[END]], device=next(module.parameters()).device), cache)
    return [dict(layer) for layer in cache.layers]
