"""Rows to batches, in an order that is a function of (seed, n).

All rows are tensors (in memory, or memory-mapped); a batch is gathered by index. There is no
iterator and so no state: `batches.take(n)` returns the batch of update n, whatever was taken
before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from danlu.data.examples import Field, Ragged, Target
from danlu.data.gather import FieldLoader, ImageLoader, RaggedLoader, as_tensor, field_loader
from danlu.system.placement import ORDER, Placement, draw_seed
from danlu.terms import Batch, OutputSpec

# How many batches' rows are sorted by length together before they are cut into batches: enough for
# little padding, few enough that a row meets other rows in each epoch.
BUCKET = 50


class Rows:
    """All examples as tensors, from which a Batch of any of them is gathered.

    arrays      input name -> Field: an array (N, ...), danlu.data.examples.Ragged or Windows
    pixels      for uint8 images (N, H, W, C): input name -> {"mean": [C], "std": [C]} on the scale
                0..1, with which they are normalised
    target      a Field, a dict of them by target name, or None
    placement   the device that tensors are put on"""

    def __init__(
        self,
        arrays: Mapping[str, Field],
        pixels: Mapping[str, Mapping[str, Sequence[float]]],
        target: Target,
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
        self.target: FieldLoader | dict[str, FieldLoader] | None = None
        if isinstance(target, Mapping):
            self.target = {
                name: field_loader(target_field, put) for name, target_field in target.items()
            }
        elif target is not None:
            self.target = field_loader(target, put)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def width(self) -> int:
        """The largest count of numbers in the inputs of one example."""
        return sum(loader.width for loader in self.inputs.values())

    @property
    def longest(self) -> int:
        """The length of the longest example; 0 where examples have no length."""
        return max((loader.longest for loader in self.inputs.values()), default=0)

    def gather(self, rows: Tensor) -> Batch:
        """The Batch of `rows`, int64 (B,) on the device."""
        inputs: dict[str, Tensor] = {}
        for name, loader in self.inputs.items():
            inputs[name] = loader.gather(rows)
            if loader.lengths and isinstance(loader, RaggedLoader):
                inputs[f"{name}_lengths"] = loader.sizes_of(rows)
        return Batch(inputs, self.gather_target(rows), rows)

    def gather_target(self, rows: Tensor) -> Tensor | dict[str, Tensor] | None:
        """The target of `rows`, int64 (B,) on the device, as `Batch.target` holds it."""
        target = self.target
        if isinstance(target, FieldLoader):
            return target.gather(rows)
        if isinstance(target, dict):
            return {name: loader.gather(rows) for name, loader in target.items()}
        return None


def lengths_of(arrays: Mapping[str, Field]) -> np.ndarray | None:
    """A sort key for each example, int64 (N,), that brings examples of similar length together;
    None where no input has a length.

    The length of the only Ragged input. With several (a source and a target text) the length of the
    longest, and among equals that of the last: each input is padded on its own, and rows with equal
    sums of lengths may be long in one and short in the other (Multi30k: 20 % padding by sums, 8 %
    this way).

    >>> lengths_of({"x": Ragged(np.arange(3), np.array([0, 1, 3]))}).tolist()
    [1, 2]
    """
    sizes = [field.sizes for field in arrays.values() if isinstance(field, Ragged)]
    if len(sizes) < 2:
        return sizes[0] if sizes else None
    return np.max(sizes, axis=0) * (int(sizes[-1].max(initial=0)) + 1) + sizes[-1]


class Batches:
    """The batches of a training: `take(n)` for n = 0, 1, 2, ... without end.

    Each epoch visits every row once, in an order drawn from (seed, epoch). The last batch of an
    epoch is shorter; a last batch of a single row joins the one before it, since batch
    normalisation has no variance over one row.

    rows         the tensors to gather from
    order        int64 (M,), the rows of the training split
    batch_size   rows per batch; None: all
    lengths      (N,), what lengths_of returns; rows of similar length come into the same batch
    phase        all windows of an epoch are moved by 0 to phase - 1 positions"""

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
        self.order = rows.placement.put(as_tensor(order.copy()))
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
        """The rows of update n, int64 (B,) on the device: a pure function of (seed, n)."""
        epoch, position = divmod(n, self.steps_per_epoch)
        if epoch != self._epoch:  # a cache of the epoch's order, not state: any n can come next
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
        """The shuffled rows, sorted by length within BUCKET batches at a time; then the batches are
        shuffled."""
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
        """The rows of update n in micro batches of at most `size` rows; a last single row joins the
        micro batch before it where size > 1."""
        rows = self.indices(n)
        pieces = list(torch.split(rows, size))
        if len(pieces) > 1 and len(pieces[-1]) == 1 and size > 1:
            pieces[-2:] = [torch.cat(pieces[-2:])]
        return pieces


FORWARD_BYTES = 64 << 20  # of inputs and outputs in one forward pass
_MOST_ROWS = 1024


def row_pieces(rows: np.ndarray | Sequence[int] | Tensor, size: int) -> list[Tensor]:
    """Row numbers as int64 tensors of at most `size` each; a tensor's stay on its device.

    >>> [piece.tolist() for piece in row_pieces([5, 7, 9], 2)]
    [[5, 7], [9]]
    """
    numbers = (
        rows
        if isinstance(rows, Tensor)
        else torch.from_numpy(np.ascontiguousarray(rows, dtype=np.int64))  # pyright: ignore[reportUnknownMemberType]
    )
    return list(numbers.split(size))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def rows_at_once(rows: Rows, output: OutputSpec | None = None) -> int:
    """How many rows one forward pass without gradients takes, 1 to 1,024: as many as keep inputs
    and outputs within 64 MiB. It depends on shapes alone, so that rows are always cut alike."""
    numbers_per_row = rows.width
    if output is not None and output.per in ("token", "frame"):
        numbers_per_row += rows.longest * output.size
    return max(1, min(_MOST_ROWS, FORWARD_BYTES // max(numbers_per_row * 4, 1)))
