"""Gathers the tensor of a batch from all examples: plain rows, images, ragged rows, windows.

Shapes: B examples in a batch, T the length of the longest of them, D numbers per position.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from danlu.data.examples import Field, Ragged, Windows
from danlu.terms import IGNORED

# Images of up to this many bytes as float32 are normalised once and kept; larger ones are kept as
# bytes and normalised batch by batch.
LARGEST_RESIDENT = 1 << 30

Put = Callable[[Tensor], Tensor]


def as_tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor over the same memory. The array may be read-only (a memory map): the
    tensor is only read.

    >>> as_tensor(np.array([1, 2]))
    tensor([1, 2])
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="The given NumPy array is not writable", category=UserWarning
        )
        tensor: Tensor = torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
        return tensor


def field_loader(field: Field, put: Put) -> FieldLoader:
    """The FieldLoader of a field; `put` moves a tensor to the device.

    >>> field_loader(np.array([5, 6, 7]), lambda tensor: tensor).gather(torch.tensor([2, 0]))
    tensor([7, 5])
    """
    if isinstance(field, Ragged):
        return RaggedLoader(field, put)
    if isinstance(field, Windows):
        return WindowLoader(field, put)
    return ArrayLoader(as_tensor(field), put)


class FieldLoader(ABC):
    """One field of all examples, from which batches are gathered.

    width     the largest count of numbers in one example, for the memory of a forward pass
    longest   the length of the longest example; 0 where examples have no length
    lengths   whether a batch also needs the lengths of its rows
    """

    width: int = 1
    longest: int = 0
    lengths: bool = False

    @abstractmethod
    def __len__(self) -> int:
        """How many examples there are (of windows: positions)."""

    @abstractmethod
    def gather(self, ids: Tensor) -> Tensor:
        """The field of the examples `ids`, int64 (B,) on the device: (B, ...)."""


class ArrayLoader(FieldLoader):
    """Examples of one shape: a tensor (N, ...)."""

    def __init__(self, tensor: Tensor, put: Put) -> None:
        self.tensor = put(tensor)
        self.width = self.tensor.shape[1:].numel()

    def __len__(self) -> int:
        return len(self.tensor)

    def gather(self, ids: Tensor) -> Tensor:
        """(B, ...)."""
        return self.tensor.index_select(0, ids)


class ImageLoader(FieldLoader):
    """Images uint8 (N, H, W, C), gathered as float32 (B, C, H, W), normalised to
    (byte / 255 - mean) / std."""

    def __init__(
        self, bytes_: np.ndarray, constants: Mapping[str, Sequence[float]], put: Put
    ) -> None:
        mean, std = torch.tensor(constants["mean"]), torch.tensor(constants["std"])
        scale, shift = 1.0 / (255.0 * std), -mean / std
        # one channel: plain numbers, which cost less than a broadcast tensor
        self.scaling: tuple[float, float] | tuple[Tensor, Tensor] | None = (
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
        """float32 (B, C, H, W) with channels last in memory: no copy, and fast for convolutions."""
        piece = self.tensor.index_select(0, ids)
        return (piece if self.scaling is None else self._normalised(piece)).permute(0, 3, 1, 2)


class RaggedLoader(FieldLoader):
    """Rows of unequal length, padded to the longest row of the batch."""

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
        """The length of each of the rows `ids`, int64 (B,)."""
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
    """Windows of a fixed length over a running text or series."""

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
        return (
            values if self.ignore is None else values.masked_fill_(values == self.ignore, IGNORED)
        )


# torch cannot gather from unsigned numbers wider than a byte: their bits are stored as signed
# numbers, and masked back after the gather
_SIGNED = {"uint16": ("int16", 0xFFFF), "uint32": ("int32", 0xFFFFFFFF)}


def _stored(values: np.ndarray, put: Put) -> tuple[Tensor, tuple[torch.dtype, int | None]]:
    """(the values on the device, (dtype of gathered values, mask of their bits or None))."""
    if len(values) == 0:  # an index must point at a value, although padding replaces it later
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
