"""The types every floor uses: Column, Table, InputSpec, OutputSpec, Batch, Sample, Scores, ...

Nothing here imports torch: a recipe is checked, and a shelf is listed, without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# What a JSON file can hold, as it is read or written.
Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

Kind = Literal[
    "number", "category", "boolean", "text", "datetime", "image", "sequence", "frames", "audio"
]
KINDS: tuple[Kind, ...] = (
    "number",
    "category",
    "boolean",
    "text",
    "datetime",
    "image",
    "sequence",
    "frames",
    "audio",
)
RAGGED: tuple[Kind, ...] = (
    "text",
    "sequence",
    "frames",
    "audio",
)  # kinds whose rows differ in length: values and offsets
MISSING_DATETIME = -(2**63)  # numpy's NaT as int64
IGNORED = -100  # a place of an int64 target where nothing is asked (torch's own ignore_index)

# Codes that every sequence of tokens keeps for itself; a vocabulary's own entries begin at
# FIRST_TOKEN.
PADDING, UNKNOWN, BEGINNING, END, MASK = 0, 1, 2, 3, 4
SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
FIRST_TOKEN = 5


@dataclass(frozen=True)
class Column:
    """One typed column of a table.

    `values` by kind (N rows):
      number    float64 (N,) or float32/float64 (N, D) when one column holds D numbers; missing is NaN
      category  int32 (N,), an index into `categories`; missing is -1
      boolean   int8 (N,), 0 or 1; missing is -1
      datetime  int64 (N,), microseconds since 1970 UTC; missing is MISSING_DATETIME
      text      uint8 (total bytes,), UTF-8, row i is values[offsets[i]:offsets[i+1]]; missing where `missing[i]`
      image     uint8 (N, H, W, C), C = 1 (grey) or 3 (RGB)
      sequence  integers (places,), or (places, D) where one place holds D codes; row i is values[offsets[i]:offsets[i+1]]. A raw
                column (the words of a sentence) holds int32 indices into `categories`, -1 where a place is missing; one that is
                ready for a model holds tokens: 0 is padding, 1 unknown, and `cardinalities` (one of each of the D codes)
                count the codes there are
      frames    float32 (frames, F): F numbers at each moment; row i is values[offsets[i]:offsets[i+1]]
      audio     int16 (samples,), mono; row i is values[offsets[i]:offsets[i+1]], `rate` samples a second

    `reason` says why the kind was chosen, for the report of type inference. `names` names the D
    numbers of a wide number column."""

    name: str
    kind: Kind
    values: np.ndarray
    categories: tuple[str, ...] = ()
    offsets: np.ndarray | None = None
    missing: np.ndarray | None = None
    reason: str = ""
    names: tuple[str, ...] = ()
    cardinalities: tuple[int, ...] = ()
    rate: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1 if self.offsets is not None else len(self.values)

    def is_missing(self) -> np.ndarray:
        """Which rows hold no value, bool (N,)."""
        import numpy as np

        if self.kind == "number":
            lost = np.asarray(np.isnan(self.values))
            return lost if lost.ndim == 1 else np.asarray(lost.any(axis=1))
        if self.kind in ("category", "boolean"):
            return np.asarray(self.values < 0)
        if self.kind == "datetime":
            return np.asarray(self.values == MISSING_DATETIME)
        if self.missing is not None:
            return np.asarray(self.missing, dtype=bool)
        return np.zeros(len(self), dtype=bool)

    def text(self, row: int) -> str | None:
        """Row `row` of a text column, or None where it is missing."""
        if self.offsets is None:
            raise TypeError(f"column {self.name} is {self.kind}, not text")
        if self.missing is not None and self.missing[row]:
            return None
        return bytes(self.values[self.offsets[row] : self.offsets[row + 1]]).decode("utf-8")

    def take(self, rows: np.ndarray) -> Column:
        """The same column with only `rows` (int64 (M,)), in their order."""
        import numpy as np

        if self.offsets is None:
            return replace(self, values=self.values[rows])
        lengths = (self.offsets[1:] - self.offsets[:-1])[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        parts = [self.values[self.offsets[row] : self.offsets[row + 1]] for row in rows]
        values = np.concatenate(parts) if parts else self.values[:0]
        return replace(
            self,
            values=values,
            offsets=offsets,
            missing=None if self.missing is None else self.missing[rows],
        )

    def answer(self, row: int) -> Any:
        """Row `row` as a plain Python value (str, float, bool, None; date-times in ISO form)."""
        import numpy as np

        if self.kind == "text":
            return self.text(row)
        if self.kind == "image":
            return f"image {'x'.join(str(size) for size in self.values[row].shape)}"
        if self.offsets is not None:
            if self.missing is not None and self.missing[row]:
                return None
            piece = self.values[self.offsets[row] : self.offsets[row + 1]]
            if self.kind == "audio":
                return f"audio of {len(piece) / max(self.rate, 1):.2f} s"
            if self.kind == "frames":
                return f"{len(piece)} frames of {piece.shape[1]} numbers"
            return [
                self.categories[code] if 0 <= code < len(self.categories) else None
                for code in piece.reshape(-1).tolist()
            ]
        value = self.values[row]
        if self.kind == "number":
            if np.ndim(value):
                return [None if np.isnan(number) else float(number) for number in value]
            return None if np.isnan(value) else float(value)
        if self.kind == "category":
            return None if value < 0 else self.categories[value]
        if self.kind == "boolean":
            return None if value < 0 else bool(value)
        return None if value == MISSING_DATETIME else str(np.datetime64(int(value), "us"))


@dataclass(frozen=True)
class Table:
    """Typed columns of equal length, and where each row came from.

    `origin` is what a message calls the whole ("adult.csv"). `row_names` (N,) holds a name a row
    where the source has one (the file of an image); else `row_numbers` int64 (N,) holds the 1-based
    row in the file (None: 1, 2, 3, ...). `file_numbers` int32 (N,) tells which of `files` a row
    came from when there are several. `notices` are plain sentences the reader wants told."""

    columns: Mapping[str, Column]
    origin: str
    row_names: Sequence[str] | None = None
    row_numbers: np.ndarray | None = None
    files: tuple[str, ...] = ()
    file_numbers: np.ndarray | None = None
    notices: tuple[str, ...] = ()
    split: np.ndarray | None = (
        None  # int8 (N,): 0 train, 1 validation, 2 test, -1 not given; where the source itself has splits
    )
    # bool (N,): the next row goes on where this one ends (pieces of a text, moments of a series)
    continues: np.ndarray | None = None
    joined_by: str = ""  # what stood between two rows of one file where rows are pieces of a running text ("\n" for lines)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def where(self, row: int) -> str:
        """What a message calls row `row`: 'adult.csv row 1,204' or 'cat/7.png'."""
        if self.row_names is not None:
            return self.row_names[row]
        name = (
            self.files[self.file_numbers[row]]
            if self.file_numbers is not None and self.files
            else self.origin
        )
        number = int(self.row_numbers[row]) if self.row_numbers is not None else row + 1
        return f"{name} row {number:,}"

    def take(self, rows: np.ndarray) -> Table:
        """The same table with only `rows` (int64 (M,)), in their order."""
        import numpy as np

        numbers = self.row_numbers if self.row_numbers is not None else np.arange(1, len(self) + 1)
        return replace(
            self,
            columns={name: column.take(rows) for name, column in self.columns.items()},
            row_names=None if self.row_names is None else [self.row_names[row] for row in rows],
            row_numbers=numbers[rows],
            file_numbers=None if self.file_numbers is None else self.file_numbers[rows],
            split=None if self.split is None else self.split[rows],
            continues=None if self.continues is None else self._still_continues(rows),
        )

    def _still_continues(self, rows: np.ndarray) -> np.ndarray:
        """A row goes on in the next one only where that is still the row after it."""
        import numpy as np

        assert self.continues is not None
        follows = np.append(np.diff(rows) == 1, False) if len(rows) else np.zeros(0, dtype=bool)
        return self.continues[rows] & follows


@dataclass(frozen=True)
class InputSpec:
    """What a model receives under one name; the batch dimension B is left out of `shape`.

    kind        dtype and shape of the tensor            also
    numbers     float32 (B, F)                           names: the F features; of: the column that each comes from, those of one
                                                         column side by side (its pieces, its dates' parts); () where nobody says
    categories  int64 (B, C)                             cardinalities: values a column can take (0 is "unknown or missing")
    image       float32 (B, channels, height, width)     pixels are normalised: (pixel / 255 - mean) / std, `mean` and `std` one a
                                                         channel, or one for all
    tokens      int64 (B, T) or (B, T, D)                shape: the longest (T,) or (T, D); a batch is as long as its longest row, and
                                                         a row may at times be longer than any in training. 0 is padding, at the end.
                                                         cardinalities: how many codes there are, one of each of the D. names: what
                                                         each of the D is; neighbours of one name share their codes (letters)
    frames      float32 (B, T, F)                        shape: the longest (T, F); 0 after a row's end. A second tensor, NAME_lengths
                                                         int64 (B,), tells how many frames each row has
    series      float32 (B, L, F)                        L moments of F variables (names), oldest first; none is missing
    """

    kind: Literal["numbers", "categories", "image", "tokens", "frames", "series"]
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    cardinalities: tuple[int, ...] = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    of: tuple[str, ...] = ()


@dataclass(frozen=True)
class OutputSpec:
    """What a model must return, float32. `names` names the `size` columns where they have names
    (classes, targets).

    each        shape
    row         (B, size)
    token       (B, T, size): one for each place of the tokens (or frames) that the batch holds
    step        (B, steps, size): one for each of `steps` moments ahead
    moment      (B, L, size): one for each of the L moments of the series that the model received
    frame       (B, T', size), T' at most the number of frames; after a row's end column 0 (the blank) is certain: 0, all others
                -1e4, so that nobody needs the lengths
    image       (B, channels, height, width), `shape` without B; on the scale of the input image

    `of` names, for each of the size columns of steps or moments, the variable of the series that
    the column continues (several columns may be of one variable: its quantiles, which then stand
    side by side; every variable has as many). () where there is none. `causal`: the output of a
    place must depend on that place and those before it alone (language models). `means` tells what
    the columns say, group by group from the left: ("classes", n) logits of one distribution,
    ("labels", n) logits each of a yes or no, ("numbers", n). Several opinions on a row are averaged
    by it (danlu.layers.averaging). () where all are numbers."""

    size: int
    names: tuple[str, ...] = ()
    each: Literal["row", "token", "step", "moment", "frame", "image"] = "row"
    steps: int = 0
    shape: tuple[int, ...] = ()
    causal: bool = False
    of: tuple[str, ...] = ()
    means: tuple[tuple[Literal["classes", "labels", "numbers"], int], ...] = ()


@dataclass
class Batch:
    """Examples of one update, on the device.

    inputs   one tensor for each name in the description of the inputs
    target   what the task asks: int64 (B,) classes; float32 (B, size) numbers, or class probabilities after mixup;
             int64 (B, T) tokens, IGNORED where nothing is asked; float32 (B, steps, size), NaN where nothing is asked;
             a dict by target name for several tasks; None when only answers are wanted
    rows     int64 (B,), the examples (rows of the table, or where a window begins), so that a message can name them
    """

    inputs: dict[str, Tensor]
    target: Any
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Sample:
    """Something that a generative model made: `value` is text, or pixels uint8 (H, W, C) of an
    image."""

    name: str
    value: Any


@dataclass(frozen=True)
class Scores:
    """The scores of one split: `values` by metric name (the loss too, as "loss"), over exactly
    `rows` rows.

    `tables` holds what is no single number (a confusion matrix, as nested lists).
    """

    split: str
    rows: int
    values: Mapping[str, float]
    tables: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class TrainingEvent:
    """What watchers hear.

    kind      start | train | validation | test | notice | saved | end
    step      updates done
    values    what a same-seed run repeats exactly (loss, learning_rate, grad_norm, scores): logged to metrics.jsonl
    timing    what it does not (seconds, rows_per_second, eta_seconds, memory_bytes): kept out of metrics.jsonl
    message   a plain sentence, for notices
    samples   what a generative model made at this step
    """

    kind: Literal["start", "train", "validation", "test", "notice", "saved", "end"]
    step: int
    epoch: float = 0.0
    values: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    samples: tuple[Sample, ...] = ()
