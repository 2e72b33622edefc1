"""Rows to batches in an order that is a function of (seed, n).

All rows stand ready as tensors (in memory, or memory-mapped); a batch is a gather by index. There is no iterator and so no state:
`batches.take(n)` gives the batch of update n, whatever was asked before.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from danlu.placement import ORDER, Placement, draw_seed
from danlu.terms import Batch

if TYPE_CHECKING:
    import numpy as np

# Pixels up to this many bytes as float32 are normalised once and kept; more are normalised batch by batch from their bytes.
LARGEST_RESIDENT = 1 << 30


def as_tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor over the same memory; a read-only memory map stays one (it is only ever gathered from)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
        return torch.from_numpy(array)


class Rows:
    """All rows of a table as a model takes them, and the gather that makes a Batch of any of them.

    `arrays` maps input names to arrays (N, ...); `pixels` maps the names of uint8 images (N, H, W, C) to their normalising constants
    {"mean": [C], "std": [C]} on the scale 0..1; `target` is an array (N, ...), a dict of them, or None.
    """

    def __init__(
        self, arrays: Mapping[str, np.ndarray], pixels: Mapping[str, Mapping[str, Any]], target: Any, placement: Placement
    ) -> None:
        self.placement = placement
        self.tensors = {name: as_tensor(array) for name, array in arrays.items()}
        self.scaling: dict[str, tuple[Any, Any]] = {}
        self.images = frozenset(pixels)
        for name, constants in pixels.items():
            mean, std = torch.tensor(constants["mean"]), torch.tensor(constants["std"])
            scale, shift = 1.0 / (255.0 * std), -mean / std
            # one channel: plain numbers, which cost less than a broadcast tensor
            pair = (float(scale), float(shift)) if len(mean) == 1 else (placement.put(scale), placement.put(shift))
            self.scaling[name] = pair
            if self.tensors[name].numel() * 4 <= LARGEST_RESIDENT:
                self.tensors[name] = self._normalised(name, placement.put(self.tensors[name]))
                del self.scaling[name]
        if placement.device.type != "cpu":
            self.tensors = {name: placement.put(tensor) for name, tensor in self.tensors.items()}
        self.target = _put(target, placement)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def _normalised(self, name: str, bytes_: Tensor) -> Tensor:
        scale, shift = self.scaling[name]
        return bytes_.to(torch.float32).mul_(scale).add_(shift)

    def gather(self, rows: Tensor) -> Batch:
        """The Batch of `rows`, int64 (B,) on the device."""
        inputs = {}
        for name, tensor in self.tensors.items():
            piece = tensor.index_select(0, rows)
            if name in self.scaling:
                piece = self._normalised(name, piece)
            # (B, H, W, C) to (B, C, H, W) is a change of strides: no copy, and the layout convolutions like
            inputs[name] = piece.permute(0, 3, 1, 2) if name in self.images else piece
        return Batch(inputs, self.gather_target(rows), rows)

    def gather_target(self, rows: Tensor) -> Any:
        """The target of `rows` alone, in the form that a Batch holds."""
        target = self.target
        if isinstance(target, Tensor):
            return target.index_select(0, rows)
        if isinstance(target, dict):
            return {name: each.index_select(0, rows) for name, each in target.items()}
        return None


def _put(target: Any, placement: Placement) -> Any:
    if target is None:
        return None
    if isinstance(target, Mapping):
        return {name: placement.put(as_tensor(each)) for name, each in target.items()}
    return placement.put(as_tensor(target))


class Batches:
    """The batches of training: `take(n)` for n = 0, 1, 2, ... without end.

    Each epoch visits every row once, in an order drawn from (seed, epoch). The last batch of an epoch is shorter; a last batch of a
    single row joins the one before it, since batch normalisation has no variance over one row.
    """

    def __init__(self, rows: Rows, order: np.ndarray, batch_size: int | None, seed: int) -> None:
        self.rows = rows
        self.order = rows.placement.put(torch.as_tensor(order, dtype=torch.int64))
        count = len(order)
        self.batch_size = count if batch_size is None else min(batch_size, count)
        self.seed = seed
        full, rest = divmod(count, self.batch_size)
        self.joins_last = rest == 1 and full > 0
        self.steps_per_epoch = full + (1 if rest and not self.joins_last else 0)
        self._epoch = -1
        self._shuffled = self.order

    def indices(self, n: int) -> Tensor:
        """int64 (B,), the rows of update n: a pure function of (seed, n)."""
        epoch, position = divmod(n, self.steps_per_epoch)
        if epoch != self._epoch:  # the order of the running epoch is kept, it is not state: any n can be asked at any time
            generator = torch.Generator().manual_seed(draw_seed(self.seed, ORDER, epoch))
            shuffle = torch.randperm(len(self.order), generator=generator)
            self._shuffled = self.order.index_select(0, shuffle.to(self.order.device))
            self._epoch = epoch
        start = position * self.batch_size
        if self.joins_last and position == self.steps_per_epoch - 1:
            return self._shuffled[start:]
        return self._shuffled[start : start + self.batch_size]

    def take(self, n: int) -> Batch:
        """The whole batch of update n."""
        return self.rows.gather(self.indices(n))

    def take_micro(self, n: int, size: int) -> list[Tensor]:
        """The rows of update n cut into micro batches of at most `size` rows; none of a single row where that can be avoided."""
        rows = self.indices(n)
        pieces = list(rows.split(size))
        if len(pieces) > 1 and len(pieces[-1]) == 1 and size > 1:
            pieces[-2:] = [torch.cat(pieces[-2:])]
        return pieces
