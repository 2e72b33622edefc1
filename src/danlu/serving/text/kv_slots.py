"""One key-value cache that many texts share, one slot each: texts come and go while others go on.

Shapes: B rows taken, T new places, S places kept, H heads of keys and values, E size of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from danlu.layers.generation.kv_cache import GROWING, Cache, NewPlaces
from danlu.terms import END


class Slots:
    """`count` slots of `length` tokens each, allocated once. A module with `cache` and `extend`
    (danlu.layers.generation.kv_cache) writes into them.

    lengths   how many tokens each slot holds
    layers    one dict per layer: name -> Tensor whose first dimension is the slot
    """

    def __init__(self, module: nn.Module, count: int, length: int) -> None:
        self.length = length
        self.lengths = [0] * count
        self.layers = [
            {
                name: tensor.new_zeros(count, *_slot_shape(name, tensor, length))
                for name, tensor in layer.items()
            }
            for layer in _probe(module)
        ]

    @property
    def bytes(self) -> int:
        """The memory of all slots."""
        tensors = [tensor for layer in self.layers for tensor in layer.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def take(self, rows: Sequence[int]) -> SelectedSlots:
        """A cache of some slots for `extend`. Call `keep` with it afterwards."""
        return SelectedSlots(self, list(rows))

    def keep(self, selected: SelectedSlots) -> None:
        """Store what was read into a cache of `take`."""
        for row, length in zip(selected.rows, selected.lengths.tolist(), strict=True):
            self.lengths[row] = length
        for kept, layer in zip(self.layers, selected.layers, strict=True):
            for name in kept.keys() - set(GROWING):
                kept[name][selected.index] = layer[name]

    def clear(self, row: int) -> None:
        """Empty a slot."""
        self.lengths[row] = 0
        for layer in self.layers:
            for name in layer.keys() - set(GROWING):
                layer[name][row] = 0

    def swap(self, one: int, other: int) -> None:
        """Exchange two slots; only the places that are filled are copied."""
        filled = max(self.lengths[one], self.lengths[other])
        for layer in self.layers:
            for name, tensor in layer.items():
                if name in GROWING:
                    first, second = tensor[one, :, :filled], tensor[other, :, :filled]
                else:
                    first, second = tensor[one], tensor[other]
                if not self.lengths[other]:
                    second.copy_(first)
                elif not self.lengths[one]:
                    first.copy_(second)
                else:
                    copy = first.clone()
                    first.copy_(second)
                    second.copy_(copy)
        self.lengths[one], self.lengths[other] = self.lengths[other], self.lengths[one]
        for row in (one, other):
            if not self.lengths[row]:
                self.clear(row)


class SelectedSlots(Cache):
    """Some slots as a cache. Slots side by side are read and written in place; of others the places
    are copied."""

    def __init__(self, slots: Slots, rows: list[int]) -> None:
        super().__init__(0, slots.length, len(slots.layers))
        self.slots, self.rows = slots, rows
        self.lengths = torch.tensor([slots.lengths[row] for row in rows], dtype=torch.int64)
        adjacent = rows == list(range(rows[0], rows[0] + len(rows)))
        self.index: slice | list[int] = slice(rows[0], rows[0] + len(rows)) if adjacent else rows
        self.layers = [
            {
                name: tensor[self.index]
                for name, tensor in layer.items()
                if adjacent or name not in GROWING
            }
            for layer in slots.layers
        ]

    def write(
        self, layer: int, places: NewPlaces, keys_BHTE: Tensor, values_BHTE: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Keep the keys and values of new tokens; those of all places, (B, H, S, E) each."""
        if isinstance(self.index, slice):
            return super().write(layer, places, keys_BHTE, values_BHTE)
        rows_B = torch.tensor(self.rows, device=keys_BHTE.device)
        kept = self.slots.layers[layer]
        for name, new_BHTE in (("keys", keys_BHTE), ("values", values_BHTE)):
            new_BTHE = new_BHTE.transpose(1, 2).to(kept[name].dtype)
            kept[name][rows_B[:, None], :, places.positions] = new_BTHE
        keys, values = kept["keys"][:, :, : places.end], kept["values"][:, :, : places.end]
        return keys[rows_B], values[rows_B]

    def _grow(self, length: int) -> None:
        if length > self.capacity:
            raise ValueError(f"a slot has room for {self.capacity} tokens, not {length}")


def bytes_of_slot(module: nn.Module, length: int) -> int:
    """The memory of a slot of `length` tokens."""
    return sum(
        torch.Size(_slot_shape(name, tensor, length)).numel() * tensor.element_size()
        for layer in _probe(module)
        for name, tensor in layer.items()
    )


def _slot_shape(name: str, row: Tensor, length: int) -> tuple[int, ...]:
    """The shape of one slot, of a tensor `row` that holds one row with one token."""
    return (row.shape[1], length, *row.shape[3:]) if name in GROWING else tuple(row.shape[1:])


@torch.inference_mode()
def _probe(module: Any) -> list[dict[str, Tensor]]:
    """What the layers of a module keep of one row of one token."""
    cache = module.cache(1, 1)
    module.extend(torch.tensor([[END]], device=next(module.parameters()).device), cache)
    return [dict(layer) for layer in cache.layers]
