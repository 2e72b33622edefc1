"""Examples of a task: rows, rows of unequal length, or windows over a running text or series.

    Ragged     one example per row, each of its own length; a batch is padded to its longest
    Windows    one example per position: the values from there on, of a fixed length, overlapping
    Examples   the inputs, target and splits of all examples of a task

numpy arrays here, tensors in danlu.data.batches. The id of an example is a row (Ragged, plain
arrays) or a position (Windows)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, overload

import numpy as np

from danlu.terms import InputSpec


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length: row i is values[offsets[i]:offsets[i+1]].

    values    (total length,) or (total length, D), integers or float32
    offsets   int64 (N + 1,)
    fill      the value that pads shorter rows of a batch
    lengths   whether a batch also has the rows' lengths, in a second tensor NAME_lengths (frames,
              where a padding of 0 cannot be told from a value)

    >>> ragged = Ragged(np.array([7, 8, 9]), np.array([0, 1, 3]))
    >>> len(ragged), ragged.sizes.tolist(), ragged.row(1).tolist()
    (2, [1, 2], [8, 9])
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
        """The values of row `number`, (length,) or (length, D)."""
        return self.values[self.offsets[number] : self.offsets[number + 1]]


@dataclass(frozen=True)
class Windows:
    """Windows of one length: example p is values[p + shift : p + shift + length].

    values   (positions,) or (positions, D)
    fill     the value of positions outside of `values`
    ignore   a value that a batch replaces by danlu.terms.IGNORED (int64 targets: the padding
             between splits); None: no value

    >>> Windows(np.arange(5), length=3, shift=1).at(np.array([0, 2])).tolist()
    [[1, 2, 3], [3, 4, 0]]
    """

    values: np.ndarray
    length: int
    shift: int = 0
    fill: float = 0
    ignore: int | None = None

    def __len__(self) -> int:
        return len(self.values)

    def at(self, places: np.ndarray) -> np.ndarray:
        """The windows of the examples `places` (M,): (M, length) or (M, length, D)."""
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
# The target of all examples: a Field, one per target name for several tasks, or none.
Target: TypeAlias = "Field | Mapping[str, Field] | None"


@dataclass
class Examples:
    """What a task with a `frame` of its own makes of a table's rows.

    inputs        input name -> Field; the ids of examples mean the same in each of them
    input_specs   input name -> danlu.terms.InputSpec, from which the model is built
    target        a Field, a dict of them by target name, or None where there is no target
    splits        split -> ids of its examples, int64, ascending
    row_of        ids (M,) -> for each the row of the table by which messages name it, int64 (M,)
    phase         training only: in each epoch all examples begin 0 to phase - 1 positions later, a
                  number drawn from (seed, epoch), so that windows are cut elsewhere each time; the
                  ids of the splits leave room for it
    units         how many units (tokens, moments) one example has, for "tokens per second"; 0: none
    unit          what the units are called, in the plural
    facts         sentences for the reader
    """

    inputs: dict[str, Field]
    input_specs: dict[str, InputSpec]
    target: Target
    splits: dict[str, np.ndarray]
    row_of: Callable[[np.ndarray], np.ndarray] = lambda ids: ids
    phase: int = 1
    units: int = 0
    unit: str = ""
    facts: list[str] = field(default_factory=list[str])


@overload
def take_examples(field: np.ndarray | Windows, ids: np.ndarray) -> np.ndarray: ...
@overload
def take_examples(field: Ragged, ids: np.ndarray) -> Ragged: ...
@overload
def take_examples(field: Field, ids: np.ndarray) -> np.ndarray | Ragged: ...
def take_examples(field: Field, ids: np.ndarray) -> np.ndarray | Ragged:
    """The examples `ids` (int64 (M,)) of a Field: an array (M, ...) of an array or Windows, a
    Ragged of M rows of a Ragged.

    >>> take_examples(np.array([5, 6, 7]), np.array([2, 0])).tolist()
    [7, 5]
    """
    if isinstance(field, Windows):
        return field.at(ids)
    if isinstance(field, Ragged):
        sizes = field.sizes[ids]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        shifts = field.offsets[:-1][ids] - offsets[:-1]
        entries = np.repeat(shifts, sizes) + np.arange(offsets[-1], dtype=np.int64)
        return Ragged(field.values[entries], offsets, field.fill, field.lengths)
    return field[ids]
