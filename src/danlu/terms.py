"""The types that all packages use: Column, Table, InputSpec, OutputSpec, Batch, Sample, Scores, ...

Nothing here imports torch, so that a recipe is checked and parts are listed without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# A value that a JSON file can hold.
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
# Kinds whose rows differ in length: stored as values and offsets.
RAGGED: tuple[Kind, ...] = ("text", "sequence", "frames", "audio")
MISSING_DATETIME = -(2**63)  # numpy's NaT as int64
# An element of an int64 target that neither losses nor metrics count (torch's own ignore_index).
IGNORED = -100

# Codes that every vocabulary reserves; its own entries begin at FIRST_TOKEN.
PADDING, UNKNOWN, BEGINNING, END, MASK = 0, 1, 2, 3, 4
SPECIAL_TOKENS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
FIRST_TOKEN = 5


@dataclass(frozen=True)
class Column:
    """One typed column of a table: N rows of one kind.

    kind      values
    number    float64 (N,), or float32/float64 (N, D) where each row holds D numbers; missing: NaN
    category  int32 (N,), an index into `categories`; missing: -1
    boolean   int8 (N,), 0 or 1; missing: -1
    datetime  int64 (N,), microseconds since 1970 UTC; missing: MISSING_DATETIME
    image     uint8 (N, H, W, C), C = 1 (grey) or 3 (RGB)
    text      uint8 (total bytes,), UTF-8
    sequence  integers (total elements,), or (total elements, D) where each element has D codes.
              In a raw column (the words of a sentence): int32 indices into `categories`, -1 where a
              word is missing. Ready for a model: tokens, 0 is padding, 1 unknown; `cardinalities`
              holds the number of codes, once for each of the D
    frames    float32 (total frames, F): F numbers at each moment
    audio     int16 (total samples,), mono, `rate` samples per second

    Row i of text, sequence, frames and audio is values[offsets[i]:offsets[i+1]], `offsets` int64
    (N + 1,); it is missing where `missing[i]`, bool (N,).

    `reason` says why type inference chose this kind. `names` are the names of the D numbers of a
    wide number column.

    >>> import numpy as np
    >>> column = Column("size", "category", np.array([1, -1], np.int32), categories=("S", "L"))
    >>> column.python_value(0), column.is_missing().tolist()
    ('L', [False, True])
    """

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
        """Which rows are missing, bool (N,)."""
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
        """Row `row` of a text column; None where it is missing. Raises TypeError for other
        kinds."""
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

    def python_value(self, row: int) -> Json:
        """Row `row` as a plain Python value: str, float, bool, list or None. Date-times are in ISO
        form, images and recordings are described in a few words."""
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
    """Typed columns of equal length (N rows), and where each row came from.

    columns       the columns by name
    origin        what messages call the table ("adult.csv")
    row_names     (N,) the name of each row, where the source has names (the files of images)
    row_numbers   int64 (N,), the 1-based row in its file; None: 1, 2, 3, ...
    files         the names of the files, where there are several
    file_numbers  int32 (N,), the index into `files` of each row
    notices       sentences about the data that the user should read
    split         int8 (N,): 0 train, 1 validation, 2 test, -1 none; None where the source itself
                  assigns no splits
    continues     bool (N,): the next row continues this one (pieces of a text, moments of a series)
    joined_by     what separated two rows of a running text in its file ("\\n" for lines)
    """

    columns: Mapping[str, Column]
    origin: str
    row_names: Sequence[str] | None = None
    row_numbers: np.ndarray | None = None
    files: tuple[str, ...] = ()
    file_numbers: np.ndarray | None = None
    notices: tuple[str, ...] = ()
    split: np.ndarray | None = None
    continues: np.ndarray | None = None
    joined_by: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def where(self, row: int) -> str:
        """What messages call row `row`: "adult.csv row 1,204", or "cat/7.png"."""
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
        """`continues` of some rows: a row is continued only where the next one still follows it."""
        import numpy as np

        assert self.continues is not None
        follows = np.append(np.diff(rows) == 1, False) if len(rows) else np.zeros(0, dtype=bool)
        return self.continues[rows] & follows


@dataclass(frozen=True)
class InputSpec:
    """One input of a model; `shape` is the shape of its tensor without the batch dimension B.

    kind        tensor
    numbers     float32 (B, F). `names`: the F features. `of`: the column that each feature was made
                from, or (); the features of one column are neighbours
    categories  int64 (B, C). `cardinalities`: how many values each column can take, with 0 for
                "unknown or missing"
    image       float32 (B, channels, height, width), normalised: (pixel / 255 - mean) / std, with
                one `mean` and `std` per channel, or one for all channels
    tokens      int64 (B, T) or (B, T, D), padded with 0 at the end. A batch is as long as its
                longest row, which may be longer than any of training. `shape`: the longest row,
                (T,) or (T, D). `cardinalities`: the number of codes, once for each of the D.
                `names`: what each of the D is; neighbours of the same name share their codes
    frames      float32 (B, T, F), 0 after the end of a row. `shape`: the longest row, (T, F).
                Beside it comes NAME_lengths, int64 (B,), the number of frames of each row
    series      float32 (B, L, F): L moments of F variables (`names`), oldest first, none missing

    >>> InputSpec("numbers", (2,), names=("age", "income")).shape
    (2,)
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
    """What a model must return: a float32 tensor.

    per         shape
    row         (B, size)
    token       (B, T, size): one prediction per token or frame of the batch
    step        (B, steps, size): one prediction for each of the next `steps` moments
    moment      (B, L, size): one prediction for each of the L moments of the series
    frame       (B, T', size), T' at most the number of frames. After the end of a row column 0 (the
                blank) is 0 and all others are -1e4, so that lengths are not needed
    image       (B, channels, height, width), on the scale of the input image; `shape` holds it
                without B

    names       the names of the `size` columns (classes, targets), or ()
    causal      the output at a token must depend on that token and those before it alone
    of          for steps and moments: the variable of the series that each column predicts, or ().
                Every variable has equally many columns (its quantiles), which are neighbours
    means       what the columns are, in groups from the left: ("classes", n) n logits of one
                distribution, ("labels", n) n logits of independent yes-or-no labels,
                ("numbers", n) n numbers; (): all are numbers. danlu.layers.averaging averages
                several predictions by it

    >>> OutputSpec(3, ("red", "green", "blue"), means=(("classes", 3),)).per
    'row'
    """

    size: int
    names: tuple[str, ...] = ()
    per: Literal["row", "token", "step", "moment", "frame", "image"] = "row"
    steps: int = 0
    shape: tuple[int, ...] = ()
    causal: bool = False
    of: tuple[str, ...] = ()
    means: tuple[tuple[Literal["classes", "labels", "numbers"], int], ...] = ()


@dataclass
class Batch:
    """Some examples, on the device.

    inputs   one tensor for each InputSpec of the model, by its name
    target   what the model should answer. int64 (B,): classes. float32 (B, size): numbers, or class
             probabilities after mixup. int64 (B, T): tokens, IGNORED where they do not count.
             float32 (B, steps, size): NaN where they do not count. A dict by target name, of
             several tasks. None where only predictions are wanted
    rows     int64 (B,), which examples these are (rows of the table, or the starts of windows), so
             that messages can name them
    """

    inputs: dict[str, Tensor]
    target: Any  # every task has its own form; a union would have to be narrowed at each use
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Sample:
    """What a generative model made: a text, or an image as pixels uint8 (H, W, C)."""

    name: str
    value: str | np.ndarray


@dataclass(frozen=True)
class Scores:
    """The scores of one split of the data.

    rows     how many rows they are computed over
    values   the scores by metric name, and the loss as "loss"
    tables   results that are no single number, such as a confusion matrix as nested lists
    samples  what a generative model made
    """

    split: str
    rows: int
    values: Mapping[str, float]
    tables: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class TrainingEvent:
    """One thing that happened in a training, for the watchers.

    kind     start | first_loss | train | validation | test | notice | saved | end
    step     how many updates were done
    epoch    how many passes over the training rows were done
    values   what a run with the same seed repeats exactly (loss, learning_rate, grad_norm, scores);
             metrics.jsonl keeps it
    timing   what it does not repeat (seconds, rows_per_second, eta_seconds, memory_bytes)
    message  a sentence, of notices
    samples  what a generative model made at this step
    """

    kind: Literal["start", "first_loss", "train", "validation", "test", "notice", "saved", "end"]
    step: int
    epoch: float = 0.0
    values: Mapping[str, Any] = field(default_factory=dict)
    timing: Mapping[str, float] = field(default_factory=dict)
    message: str = ""
    samples: tuple[Sample, ...] = ()
