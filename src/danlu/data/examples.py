"""Examples that are not rows of a table: pieces of unequal length, and windows over a running text or series.

    Ragged     one example a row, of its own length; a batch is padded to its longest
    Windows    one example a place: what stands from there on, of one length; places may overlap
    Examples   inputs, target and splits of a task that cuts its examples itself

numpy arrays here, tensors in danlu.data.batches. An id of an example is a row (Ragged, plain
arrays) or a place (Windows)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from danlu.terms import InputSpec


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length: row i is values[offsets[i]:offsets[i+1]].

    values    (places,) or (places, D) integers or float32
    offsets   int64 (N + 1,)
    fill      what stands after the end of a shorter row of a batch
    lengths   whether a batch tells the rows' lengths as well, in a second tensor NAME_lengths (frames, where 0 is no sure sign)
    """

    values: np.ndarray
    offsets: np.ndarray
    fill: float = 0
    lengths: bool = False

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> np.ndarray:
        """The length of each row, int64 (N,)."""
        return np.diff(self.offsets)

    def row(self, number: int) -> np.ndarray:
        """What row `number` holds."""
        return self.values[self.offsets[number] : self.offsets[number + 1]]


@dataclass(frozen=True)
class Windows:
    """What stands at places p + shift to p + shift + length, for any example p.

    values   (places,) or (places, D); what would lie outside of it is `fill`
    fill     stands outside of `values`
    ignore   where given, a place that holds it reads as danlu.terms.IGNORED (int64 targets: the padding between splits)
    """

    values: np.ndarray
    length: int
    shift: int = 0
    fill: float = 0
    ignore: int | None = None

    def __len__(self) -> int:
        return len(self.values)

    def at(self, places: np.ndarray) -> np.ndarray:
        """The windows of examples `places` (M,), as (M, length) or (M, length, D)."""
        where = np.asarray(places)[:, None] + self.shift + np.arange(self.length)
        inside = (where >= 0) & (where < len(self.values))
        values = self.values[np.clip(where, 0, max(len(self.values) - 1, 0))]
        if not inside.all():
            values = np.where(
                inside.reshape(*inside.shape, *[1] * (values.ndim - 2)),
                values,
                values.dtype.type(self.fill),
            )
        return values


Field = np.ndarray | Ragged | Windows


@dataclass
class Examples:
    """What a task with a `frame` of its own makes of a table's rows.

    inputs      input name -> Field; every one is asked for the same ids
    input_specs input name -> danlu.terms.InputSpec, which the model is built from
    target      a Field, a dict of them, or None where there is nothing to compare with
    splits      split -> ids of its examples, int64, ascending
    row_of      ids (M,) -> the row of the table each is best named by, int64 (M,)
    phase       training only: in each epoch all examples begin 0 to phase - 1 places later, a number drawn from (seed, epoch), so
                that windows are cut elsewhere each time; the splits' ids leave room for it
    units       how many units (tokens, moments) one example holds, for "tokens a second"; 0: nothing to tell
    unit        what they are called, in the plural
    facts       sentences for the reader
    """

    inputs: dict[str, Field]
    input_specs: dict[str, InputSpec]
    target: Field | Mapping[str, Field] | None
    splits: dict[str, np.ndarray]
    row_of: Callable[[np.ndarray], np.ndarray] = lambda ids: ids
    phase: int = 1
    units: int = 0
    unit: str = ""
    facts: list[str] = field(default_factory=list)


def take_examples(field: Any, ids: np.ndarray) -> Any:
    """The part of a Field that examples `ids` hold: an array where it is one or Windows, else a
    Ragged of those rows."""
    if isinstance(field, Windows):
        return field.at(ids)
    if isinstance(field, Ragged):
        sizes = field.sizes[ids]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        where = np.repeat(field.offsets[:-1][ids] - offsets[:-1], sizes) + np.arange(offsets[-1])
        return Ragged(field.values[where], offsets, field.fill, field.lengths)
    return field[ids]
