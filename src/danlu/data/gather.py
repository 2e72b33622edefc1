"""Tensors that examples are gathered from: plain rows, images as bytes, rows of unequal length, windows over a running whole.

    gather(ids) -> what a batch of these examples holds        ids int64 (B,), on the device
    width                                                      numbers that one example holds at most, for the memory of a forward pass
    longest                                                    places of the longest example; 0 where examples have no length

B batch, T places of the longest row of the batch, D what one place holds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danlu.data.examples import Field, Ragged, Windows
from danlu.terms import IGNORED

# Pixels up to this many bytes as float32 are normalised once and kept; more are normalised batch by
# batch from their bytes.
LARGEST_RESIDENT = 1 << 30

Put = Callable[[Tensor], Tensor]


def as_tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor over the same memory; a read-only memory map stays one (it is only ever
    gathered from)."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="The given NumPy array is not writable", category=UserWarning
        )
        return torch.from_numpy(array)


def field_loader(field: Field, put: Put) -> FieldLoader:
    """What gathers from a field; `put` moves a tensor to the device."""
    if isinstance(field, Ragged):
        return RaggedLoader(field, put)
    if isinstance(field, Windows):
        return WindowLoader(field, put)
    return ArrayLoader(as_tensor(field), put)


class FieldLoader:
    """What all of them offer."""

    width = 1
    longest = 0
    lengths = False

    def __len__(self) -> int:
        raise NotImplementedError

    def gather(self, ids: Tensor) -> Tensor:
        """What a batch of examples `ids` holds."""
        raise NotImplementedError


class ArrayLoader(FieldLoader):
    """Rows of one shape: (N, ...)."""

    def __init__(self, tensor: Tensor, put: Put) -> None:
        self.tensor = put(tensor)
        self.width = self.tensor.shape[1:].numel()

    def __len__(self) -> int:
        return len(self.tensor)

    def gather(self, ids: Tensor) -> Tensor:
        """(B, ...)."""
        return self.tensor.index_select(0, ids)


class ImageLoader(FieldLoader):
    """Images uint8 (N, H, W, C), normalised to (bytes / 255 - mean) / std; gathered as (B, C, H,
    W)."""

    def __init__(self, bytes_: np.ndarray, constants: Mapping[str, Any], put: Put) -> None:
        mean, std = torch.tensor(constants["mean"]), torch.tensor(constants["std"])
        scale, shift = 1.0 / (255.0 * std), -mean / std
        # one channel: plain numbers, which cost less than a broadcast tensor
        self.scaling: tuple[Any, Any] | None = (
            (float(scale), float(shift)) if len(mean) == 1 else (put(scale), put(shift))
        )
        self.tensor = put(as_tensor(bytes_))
        self.width = self.tensor.shape[1:].numel()
        if self.tensor.numel() * 4 <= LARGEST_RESIDENT:
            self.tensor = self._normalised(self.tensor)
            self.scaling = None

    def __len__(self) -> int:
        return len(self.tensor)

    def _normalised(self, bytes_: Tensor) -> Tensor:
        assert self.scaling is not None
        scale, shift = self.scaling
        return bytes_.to(torch.float32).mul_(scale).add_(shift)

    def gather(self, ids: Tensor) -> Tensor:
        """float32 (B, C, H, W); a change of strides, no copy, and the layout convolutions like."""
        piece = self.tensor.index_select(0, ids)
        return (piece if self.scaling is None else self._normalised(piece)).permute(0, 3, 1, 2)


class RaggedLoader(FieldLoader):
    """Rows of unequal length, padded to the longest of the batch."""

    def __init__(self, field: Ragged, put: Put) -> None:
        self.values, self.dtype = _stored(field.values, put)
        self.fill = field.fill
        self.lengths = field.lengths
        sizes = field.sizes
        self.starts = put(as_tensor(np.ascontiguousarray(field.offsets[:-1], dtype=np.int64)))
        self.sizes = put(as_tensor(np.ascontiguousarray(sizes, dtype=np.int64)))
        self.longest = int(sizes.max(initial=1))
        self.width = self.longest * self.values.shape[1:].numel()

    def __len__(self) -> int:
        return len(self.starts)

    def sizes_of(self, ids: Tensor) -> Tensor:
        """int64 (B,), the length of each row."""
        return self.sizes.index_select(0, ids)

    def gather(self, ids: Tensor) -> Tensor:
        """(B, T) or (B, T, D); T is at least 1."""
        sizes = self.sizes_of(ids)
        longest = max(int(sizes.max()), 1)
        steps = torch.arange(longest, device=ids.device)
        inside = steps < sizes[:, None]
        where = (self.starts.index_select(0, ids)[:, None] + steps).masked_fill_(~inside, 0)
        return _filled(_picked(self.values, where, self.dtype), inside, self.fill)


class WindowLoader(FieldLoader):
    """What stands from a place on, for a fixed length."""

    def __init__(self, field: Windows, put: Put) -> None:
        self.values, self.dtype = _stored(field.values, put)
        self.fill, self.shift, self.ignore = field.fill, field.shift, field.ignore
        self.longest = field.length
        self.width = field.length * self.values.shape[1:].numel()
        self.steps = put(torch.arange(field.shift, field.shift + field.length))

    def __len__(self) -> int:
        return len(self.values)

    def gather(self, ids: Tensor) -> Tensor:
        """(B, length) or (B, length, D)."""
        where = ids[:, None] + self.steps
        if (
            where.device.type == "cpu"
            and int(where.min()) >= 0
            and int(where.max()) < len(self.values)
        ):
            values = _picked(self.values, where, self.dtype)
        else:
            inside = (where >= 0) & (where < len(self.values))
            values = _filled(
                _picked(self.values, where.masked_fill(~inside, 0), self.dtype), inside, self.fill
            )
        return values if self.ignore is None else values.masked_fill_(values == self.ignore, IGNORED)


# torch gathers from no unsigned numbers wider than a byte: their bits are kept as signed ones and
# read back after the gather
_SIGNED = {"uint16": ("int16", 0xFFFF), "uint32": ("int32", 0xFFFFFFFF)}


def _stored(values: np.ndarray, put: Put) -> tuple[Tensor, tuple[torch.dtype, int | None]]:
    """(the values on the device, what they become when gathered: (dtype, mask of the bits, where
    there is one))."""
    if len(values) == 0:  # an index needs something to point at, whatever fills it afterwards
        values = np.zeros((1, *values.shape[1:]), dtype=values.dtype)
    if values.dtype.name in _SIGNED:
        signed, mask = _SIGNED[values.dtype.name]
        return put(as_tensor(np.asarray(values).view(signed))), (torch.int64, mask)
    dtype = torch.float32 if values.dtype.kind == "f" else torch.int64
    return put(as_tensor(np.asarray(values))), (dtype, None)


def _picked(values: Tensor, where: Tensor, into: tuple[torch.dtype, int | None]) -> Tensor:
    dtype, mask = into
    picked = (
        values.index_select(0, where.reshape(-1)).reshape(*where.shape, *values.shape[1:]).to(dtype)
    )
    return picked if mask is None else picked.bitwise_and_(mask)


def _filled(values: Tensor, inside: Tensor, fill: float) -> Tensor:
    outside = ~inside
    return values.masked_fill(outside.reshape(*outside.shape, *[1] * (values.ndim - 2)), fill)
