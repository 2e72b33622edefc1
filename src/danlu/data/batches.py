"""Rows to batches in an order that is a function of (seed, n).

All rows stand ready as tensors (in memory, or memory-mapped); a batch is a gather by index. There
is no iterator and so no state: `batches.take(n)` gives the batch of update n, whatever was asked
before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from danlu.data.examples import Field, Ragged
from danlu.data.gather import FieldLoader, ImageLoader, RaggedLoader, as_tensor, field_loader
from danlu.system.placement import ORDER, Placement, draw_seed
from danlu.terms import Batch, OutputSpec

BUCKET = 50  # batches whose rows are sorted by length before they are cut: little padding, and rows still meet others each epoch


class Rows:
    """All examples as a model takes them, and the gather that makes a Batch of any of them.

    `arrays` maps input names to Fields: arrays (N, ...), danlu.data.examples.Ragged or Windows;
    `pixels` maps the names of uint8 images (N, H, W, C) to their normalising constants {"mean":
    [C], "std": [C]} on the scale 0..1; `target` is a Field, a dict of them, or None."""

    def __init__(
        self,
        arrays: Mapping[str, Field],
        pixels: Mapping[str, Mapping[str, Any]],
        target: Any,
        placement: Placement,
    ) -> None:
        self.placement = placement
        put = placement.put
        self.inputs: dict[str, FieldLoader] = {}
        for name, field in arrays.items():
            if name in pixels and isinstance(field, np.ndarray):
                self.inputs[name] = ImageLoader(field, pixels[name], put)
            else:
                self.inputs[name] = field_loader(field, put)
        self.target: Any = None
        if isinstance(target, Mapping):
            self.target = {name: field_loader(target_field, put) for name, target_field in target.items()}
        elif target is not None:
            self.target = field_loader(target, put)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def width(self) -> int:
        """Numbers that the inputs of one example hold at most."""
        return sum(loader.width for loader in self.inputs.values())

    @property
    def longest(self) -> int:
        """Places of the longest example; 0 where examples have no length."""
        return max((loader.longest for loader in self.inputs.values()), default=0)

    def gather(self, rows: Tensor) -> Batch:
        """The Batch of `rows`, int64 (B,) on the device."""
        inputs = {}
        for name, loader in self.inputs.items():
            inputs[name] = loader.gather(rows)
            if loader.lengths and isinstance(loader, RaggedLoader):
                inputs[f"{name}_lengths"] = loader.sizes_of(rows)
        return Batch(inputs, self.gather_target(rows), rows)

    def gather_target(self, rows: Tensor) -> Any:
        """The target of `rows` alone, in the form that a Batch holds."""
        target = self.target
        if isinstance(target, FieldLoader):
            return target.gather(rows)
        if isinstance(target, dict):
            return {name: loader.gather(rows) for name, loader in target.items()}
        return None


def lengths_of(arrays: Mapping[str, Field]) -> np.ndarray | None:
    """A number for each example, int64 (N,), by which examples of like length stand together; None
    where none has a length.

    The length of the only such input. Of several (a source and a target) that of the longer, among
    equals that of the last: each input is padded by itself, and rows of equal sums would be long in
    one and short in the other (Multi30k: 20 % of the places were padding, so 8 %)."""
    sizes = [field.sizes for field in arrays.values() if isinstance(field, Ragged)]
    if len(sizes) < 2:
        return sizes[0] if sizes else None
    return np.max(sizes, axis=0) * (int(sizes[-1].max(initial=0)) + 1) + sizes[-1]


class Batches:
    """The batches of training: `take(n)` for n = 0, 1, 2, ... without end.

    Each epoch visits every row once, in an order drawn from (seed, epoch). The last batch of an
    epoch is shorter; a last batch of a single row joins the one before it, since batch
    normalisation has no variance over one row.

    `lengths` (N,), where given, brings rows of like length together. `phase` moves all windows of
    an epoch by 0 to phase - 1 places."""

    def __init__(
        self,
        rows: Rows,
        order: np.ndarray,
        batch_size: int | None,
        seed: int,
        lengths: np.ndarray | None = None,
        phase: int = 1,
    ) -> None:
        self.rows = rows
        order = np.ascontiguousarray(order, dtype=np.int64)
        self.order = rows.placement.put(torch.from_numpy(order.copy()))
        self.lengths = None if lengths is None else as_tensor(np.ascontiguousarray(lengths[order]))
        self.phase = phase
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
        if (
            epoch != self._epoch
        ):  # the order of the running epoch is kept, it is not state: any n can be asked at any time
            self._shuffled = self._order_of(epoch)
            self._epoch = epoch
        start = position * self.batch_size
        if self.joins_last and position == self.steps_per_epoch - 1:
            return self._shuffled[start:]
        return self._shuffled[start : start + self.batch_size]

    def _order_of(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(draw_seed(self.seed, ORDER, epoch))
        shuffle = torch.randperm(len(self.order), generator=generator)
        if self.lengths is not None and self.batch_size > 1:
            shuffle = self._by_length(shuffle, self.lengths[shuffle], generator)
        order = self.order.index_select(0, shuffle.to(self.order.device))
        if self.phase > 1:
            order = order + int(torch.randint(self.phase, (), generator=generator))
        return order

    def _by_length(self, shuffle: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
        """The shuffled rows, sorted by length within some batches at a time; then whole batches
        change places."""
        full = len(shuffle) // self.batch_size
        whole = full * self.batch_size
        chunk = torch.arange(whole) // (self.batch_size * BUCKET)
        near = torch.argsort(lengths[:whole], stable=True)
        near = near[torch.argsort(chunk[near], stable=True)]
        places = torch.randperm(full, generator=generator)
        batches = shuffle[:whole][near].reshape(full, self.batch_size)[places]
        return torch.cat([batches.reshape(-1), shuffle[whole:]])

    def take(self, n: int) -> Batch:
        """The whole batch of update n."""
        return self.rows.gather(self.indices(n))

    def take_micro(self, n: int, size: int) -> list[Tensor]:
        """The rows of update n cut into micro batches of at most `size` rows; none of a single row
        where that can be avoided."""
        rows = self.indices(n)
        pieces = list(rows.split(size))
        if len(pieces) > 1 and len(pieces[-1]) == 1 and size > 1:
            pieces[-2:] = [torch.cat(pieces[-2:])]
        return pieces


_BYTES = 64 << 20  # of inputs in one forward pass


_MOST_ROWS = 1024


def rows_at_once(rows: Rows, output: OutputSpec | None = None) -> int:
    """Rows of one forward pass without gradients: many, while inputs and outputs stay within 64
    MiB. Depends on shapes alone."""
    numbers_per_row = rows.width
    if output is not None and output.per in ("token", "frame"):
        numbers_per_row += rows.longest * output.size
    return max(1, min(_MOST_ROWS, _BYTES // max(numbers_per_row * 4, 1)))
