"""Infers what kind of values a column holds, and says why: raw values to one typed Column."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import DataError
from danlu.reading import arrow, date_formats, nested_lists, number_formats, word_lists
from danlu.reading.arrow import RawValues, compute, first_true, to_mask
from danlu.recipe import ColumnOptions
from danlu.terms import MISSING_DATETIME, Column, Kind

if TYPE_CHECKING:
    import pyarrow as pa

MISSING_MARKS = (
    "",
    "?",
    "NA",
    "N/A",
    "NaN",
    "null",
    "None",
    "-",
    "n/a",
    "na",
    "nan",
    "NAN",
    "NULL",
    "none",
    "#N/A",
)
MOST = 0.9  # share of the values that must be numbers (or dates) for the column to be of that kind
FEW = 20  # up to so many distinct strings are categories; so few whole numbers may be categories
LONG = 30  # average characters per value above which varied strings are text
WORDS = 4  # average words per value from which on varied strings are text
_TRUE, _FALSE = ("true", "yes", "y", "t", "1", "on"), ("false", "no", "n", "f", "0", "off")
_PLAIN: dict[Kind, str] = {
    "number": "number",
    "boolean": "boolean",
    "datetime": "date-time",
    "category": "category",
    "text": "text",
    "image": "image",
}

Where = str | Callable[[int], str]


@dataclass
class _Subject:
    """The column that is being read: how messages name it, the recipe's options for it, and the
    notices for the reader."""

    name: str
    where: Where
    options: ColumnOptions
    missing_marks: Sequence[str]
    decimal: str | None
    strict: bool
    notices: list[str]

    def at(self, row: int) -> str:
        row_name = (
            self.where(row) if callable(self.where) else f"{self.where} row {row + 1:,}".strip()
        )
        return f"{row_name}, column {self.name}"

    def error(self, row: int, message: str, hint: str) -> DataError:
        return DataError(message, where=self.at(row), hint=hint)

    def whole(self) -> str:
        """What a message calls the column where the fault is not in a single row."""
        return (
            f"column {self.name}"
            if callable(self.where) or not self.where
            else f"{self.where}, column {self.name}"
        )

    def tell(self, sentence: str) -> None:
        self.notices.append(f"column {self.name}: {sentence}")


def infer_column(
    name: str,
    values: RawValues,
    options: ColumnOptions | None = None,
    where: Where = "",
    *,
    missing: Sequence[str] = MISSING_MARKS,
    decimal: str | None = None,
    typed: bool = False,
    strict: bool = False,
    notices: list[str] | None = None,
) -> Column:
    """The typed column of raw `values`: strings, Python values, a numpy array or a pyarrow array,
    one value per row.

    options   `kind` overrides the inference; `on_error` says whether a value that is not of the
              kind is a DataError or missing
    where     names a row in messages: a function of the row (0-based), or the file's name (rows are
              then counted from 1)
    missing   the strings that stand for a missing value
    decimal   the decimal mark, where the values do not decide it
    typed     the values come from a format with numbers of its own (Parquet, JSON), so that a
              string is not taken for a number or boolean
    strict    raises DataError where a value can be read only under an assumption
    notices   sentences for the reader beyond `Column.reason` are appended here

    >>> column = infer_column("price", ["1.5", "NA", "2"])
    >>> column.kind, column.values.tolist(), column.reason
    ('number', [1.5, nan, 2.0], 'number: 2 of 2 values are numbers; 1 missing ("NA" 1)')
    """
    options = options or ColumnOptions.model_validate({})
    subject = _Subject(
        name, where, options, missing, decimal, strict, notices if notices is not None else []
    )
    if options.kind == "image":
        return _images(values, subject)
    if options.kind == "frames" or (options.kind is None and nested_lists.holds_frames(values)):
        return nested_lists.read_frames(name, values, subject.error)
    array = _arrow(values, subject)
    if isinstance(array, np.ndarray):
        return _wide(array, subject)
    if options.kind == "sequence" or _holds_lists(array):
        return _sequence(array, subject)
    try:
        return _typed(array, subject, typed)
    except DataError:
        if options.use or options.kind is not None:
            raise
    subject.options = options.model_copy(
        update={"kind": "category"}
    )  # no model reads this column, so its bad values do not stop the training
    return _typed(array, subject, typed)


def _images(values: Any, subject: _Subject) -> Column:
    """The image column of cells that are paths of images, or the bytes of their files."""
    import pyarrow as pa

    # imported here since it imports the decoders' library, which one kind of column needs
    from danlu.reading.image_files import decode_images

    cells = values.to_pylist() if isinstance(values, pa.Array | pa.ChunkedArray) else list(values)
    wrong = next(
        (row for row, cell in enumerate(cells) if not isinstance(cell, str | bytes) or not cell),
        None,
    )
    if wrong is not None:
        problem = (
            "there is no image"
            if cells[wrong] in (None, "")
            else "a value that is no path cannot be read as an image"
        )
        raise subject.error(
            wrong,
            f"{problem}.",
            "give the path of an image in every row, or use the source images, idx or numpy",
        )
    pixels = decode_images(cells, size=subject.options.pixels, name=subject.at)
    return Column(subject.name, "image", pixels, reason="image: you said so")


def _holds_lists(array: pa.Array) -> bool:
    import pyarrow as pa

    return pa.types.is_list(array.type) or pa.types.is_large_list(array.type)


def _sequence(array: pa.Array, subject: _Subject) -> Column:
    """The sequence column of lists of words, or of texts, which are split into words."""
    import pyarrow as pa

    if subject.options.kind not in (None, "sequence"):
        wanted = _PLAIN.get(subject.options.kind, subject.options.kind)
        raise DataError(
            f"each row holds a list of words, which is no {wanted}.",
            where=subject.whole(),
            hint=f"leave data.columns.{subject.name}.kind out",
        )
    if _holds_lists(array):
        return word_lists.sequence_from_arrow(subject.name, array)
    if not (
        pa.types.is_string(array.type)
        or pa.types.is_large_string(array.type)
        or pa.types.is_null(array.type)
    ):
        raise DataError(
            f"the column holds {array.type}, and a sequence is a list of words or a text.",
            where=subject.whole(),
            hint=f"leave data.columns.{subject.name}.kind out",
        )
    lost = ~arrow.valid_mask(array)
    values, offsets = arrow.text_buffers(compute().fill_null(array.cast(pa.large_string()), ""))
    text = Column(
        subject.name, "text", values, offsets=offsets, missing=lost if lost.any() else None
    )
    return replace(word_lists.split_words(text, "words"), reason="sequence: the words of a text")


# --- what the values are --------------------------------------------------------------------------


def _arrow(values: Any, subject: _Subject) -> pa.Array | np.ndarray:
    """The values as one pyarrow array, or as float64 (N, D) where each value is a list of D
    numbers."""
    import pyarrow as pa

    if isinstance(values, pa.ChunkedArray):
        large = values.nbytes > 2**30 and pa.types.is_string(
            values.type
        )  # 32-bit offsets end at 2 GiB
        values = (values.cast(pa.large_string()) if large else values).combine_chunks()
        values = values if isinstance(values, pa.Array) else pa.concat_arrays(values.chunks)
    if isinstance(values, pa.Array):
        return _from_arrow(values, subject)
    if isinstance(values, np.ndarray):
        if values.ndim == 2 and values.dtype.kind in "iufb":
            return values.astype(np.float64)
        if values.ndim != 1:
            raise DataError(
                f"an array of shape {values.shape} is no column.",
                where=subject.whole(),
                hint="a column has one value a row",
            )
        if values.dtype == np.float16:
            values = values.astype(np.float32)
        if values.dtype.kind == "U":
            return pa.array(values.tolist(), pa.string())
        if values.dtype.kind in "iufbM":
            return _from_arrow(pa.array(values, from_pandas=True), subject)
        values = values.tolist()
    values = list(values)
    try:
        return _from_arrow(pa.array(values, from_pandas=True), subject)
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,
        OverflowError,
        UnicodeEncodeError,
        ValueError,
    ):
        return pa.array(_written(values, subject), pa.string())


def _written(values: list[Any], subject: _Subject) -> list[str | None]:
    """Mixed Python values as the strings a person would write; DataError for a value that is not a
    single one."""
    import math

    strings: list[str | None] = []
    for row, value in enumerate(values):
        value = value.item() if isinstance(value, np.generic) else value
        if value is None or (isinstance(value, float) and math.isnan(value)):
            strings.append(None)
        elif isinstance(value, str):
            strings.append(_encodable(value, row, subject))
        elif isinstance(value, bool):
            strings.append("true" if value else "false")
        elif isinstance(value, int):
            if value.bit_length() > 1300:
                raise subject.error(
                    row, "the whole number has more than 390 digits.", "mend the row"
                )
            strings.append(str(value))
        elif isinstance(value, float):
            strings.append(
                str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
            )
        else:
            raise subject.error(
                row,
                f"a value of type {type(value).__name__} is no single value.",
                _leave_out(subject),
            )
    return strings


def _encodable(text: str, row: int, subject: _Subject) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise subject.error(
            row, "the text holds half of a surrogate pair, which is no character.", "mend the row"
        ) from None
    return text


def _leave_out(subject: _Subject) -> str:
    return f"set data.columns.{subject.name}.use to false, or give one value a row"


def _from_arrow(array: pa.Array, subject: _Subject) -> pa.Array | np.ndarray:
    """An array of a type that the functions below handle; lists of equally many numbers become
    float64 (N, D)."""
    import pyarrow as pa

    kind = array.type
    types = pa.types
    if types.is_dictionary(kind):
        return _from_arrow(array.dictionary_decode(), subject)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = kind.value_type
        if (
            subject.options.kind == "sequence"
            or types.is_string(inner)
            or types.is_large_string(inner)
        ):
            return array.cast(pa.large_list(pa.string()))
        if types.is_struct(inner) and {"role", "content"} <= {field.name for field in inner}:
            return _conversations(array)
        return _rectangle(array, subject)
    if types.is_decimal(kind):
        return array.cast(pa.float64())
    if types.is_float16(kind):
        return array.cast(pa.float32())
    if types.is_date(kind) or types.is_timestamp(kind):
        return array
    if str(kind) == "string_view":  # older versions of pyarrow have no types.is_string_view
        return array.cast(pa.large_string())
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        bad = first_true(arrow.valid_mask(array))
        raise subject.error(max(bad, 0), "the column holds bytes, not text.", _leave_out(subject))
    flat_type = (
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_boolean(kind)
        or types.is_null(kind)
    )
    if flat_type or types.is_string(kind) or types.is_large_string(kind):
        return array
    raise DataError(
        f"the column holds {kind}, which is no single value.",
        where=subject.whole(),
        hint=_leave_out(subject),
    )


def _conversations(array: pa.Array) -> pa.Array:
    """Lists of {"role", "content"} as JSON texts, the form in which instruction tuning reads
    them."""
    import pyarrow as pa

    turns = array.to_pylist()
    return pa.array(
        [
            None if conversation is None else json.dumps(conversation, ensure_ascii=False)
            for conversation in turns
        ],
        pa.large_string(),
    )


def _rectangle(array: pa.Array, subject: _Subject) -> np.ndarray:
    import pyarrow as pa

    pc = compute()

    inner = array.type.value_type
    if not (
        pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner)
    ):
        raise DataError(
            f"the column holds lists of {inner}, not numbers.",
            where=subject.whole(),
            hint=_leave_out(subject),
        )
    lengths = pc.fill_null(pc.list_value_length(array), -1).to_numpy(zero_copy_only=False)
    width = int(lengths[0]) if len(lengths) else 0
    uneven = first_true(lengths != width)
    if uneven >= 0 or width < 1:
        row = max(uneven, 0)
        content = (
            "no list"
            if len(lengths) and lengths[row] < 0
            else f"a list of {lengths[row] if len(lengths) else 0} numbers"
        )
        message = (
            f"{content}, where the first row has {width}."
            if width > 0
            else f"{content}; a column of lists needs one in every row."
        )
        raise subject.error(row, message, "every row of a column of numbers needs equally many")
    flat = pc.list_flatten(array)
    flat = flat.cast(pa.int8()) if pa.types.is_boolean(inner) else flat
    return (
        flat.cast(pa.float64(), safe=False)
        .to_numpy(zero_copy_only=False)
        .reshape(len(array), width)
    )


def _wide(values: np.ndarray, subject: _Subject) -> Column:
    width = values.shape[1]
    if subject.options.kind not in (None, "number"):
        raise DataError(
            f"each row holds {width} numbers, which is no {_PLAIN[subject.options.kind]}.",
            where=subject.whole(),
            hint=f"leave data.columns.{subject.name}.kind out",
        )
    infinite = np.asarray(np.isinf(values).any(axis=1))
    if infinite.any():
        raise subject.error(first_true(infinite), "an infinite number.", "mend the row")
    names = tuple(f"{subject.name}_{number}" for number in range(1, width + 1))
    return Column(
        subject.name,
        "number",
        values,
        names=names,
        reason=f"number: every row holds {width} numbers",
    )


# --- which kind it is -----------------------------------------------------------------------------


def _typed(array: pa.Array, subject: _Subject, typed: bool) -> Column:
    import pyarrow as pa

    types = pa.types
    wanted = subject.options.kind
    if types.is_string(array.type) or types.is_large_string(array.type):
        return _from_strings(array, subject, typed)
    if types.is_null(array.type):
        return _from_strings(array.cast(pa.string()), subject, typed)
    if types.is_boolean(array.type):
        return _from_booleans(array, subject)
    if types.is_date(array.type) or types.is_timestamp(array.type):
        return _from_moments(array, subject)
    if wanted in (None, "number"):
        return _from_numbers(array, subject)
    if wanted == "boolean":
        return _booleans(_as_strings(array), subject)
    if wanted == "datetime":
        raise DataError(
            "numbers are no date-times.",
            where=subject.whole(),
            hint="write dates as 2016-07-01, or leave the kind out",
        )
    return _from_strings(_as_strings(array), subject, typed=True)


def _as_strings(array: pa.Array) -> pa.Array:
    """Numbers as written in a table: 3, not 3.0."""
    import pyarrow as pa

    pc = compute()

    if pa.types.is_integer(array.type):
        return array.cast(pa.string())
    values = array.cast(pa.float64())
    whole = pc.and_(pc.equal(values, pc.trunc(values)), pc.less(pc.abs(values), 1e15))
    integers = pc.if_else(whole, values, None).cast(pa.int64()).cast(pa.string())
    nan = pc.is_nan(values)
    return pc.if_else(
        nan, None, pc.if_else(pc.fill_null(whole, False), integers, values.cast(pa.string()))
    )


def _from_booleans(array: pa.Array, subject: _Subject) -> Column:
    import pyarrow as pa

    pc = compute()

    wanted = subject.options.kind
    if wanted == "number":
        return _from_numbers(array.cast(pa.int8()), subject)
    if wanted in ("category", "text"):
        return _from_strings(pc.if_else(array, "true", "false"), subject, typed=True)
    if wanted == "datetime":
        raise DataError(
            "true and false are no date-times.", where=subject.whole(), hint="leave the kind out"
        )
    values = np.array(
        pc.fill_null(array.cast(pa.int8()), -1).to_numpy(zero_copy_only=False), dtype=np.int8
    )
    return Column(
        subject.name,
        "boolean",
        values,
        reason=f"boolean: the values are true and false{_absent(int((values < 0).sum()))}",
    )


def _from_moments(array: pa.Array, subject: _Subject) -> Column:
    import pyarrow as pa

    pc = compute()

    wanted = subject.options.kind
    if wanted in ("category", "text"):
        return _from_strings(array.cast(pa.string()), subject, typed=True)
    if wanted in ("number", "boolean"):
        raise DataError(
            f"date-times are no {wanted}.",
            where=subject.whole(),
            hint="leave the kind out; transforms take dates apart",
        )
    try:
        moments = array.cast(
            pa.timestamp("us", tz=array.type.tz if pa.types.is_timestamp(array.type) else None),
            safe=False,
        ).cast(pa.int64())
    except pa.ArrowInvalid:
        raise DataError(
            "a date is outside the years danlu can hold.",
            where=subject.whole(),
            hint=_leave_out(subject),
        ) from None
    values = np.array(
        pc.fill_null(moments, MISSING_DATETIME).to_numpy(zero_copy_only=False), dtype=np.int64
    )
    lost = int((values == MISSING_DATETIME).sum())
    return Column(
        subject.name,
        "datetime",
        values,
        reason=f"datetime: the file says {array.type}{_absent(lost)}",
    )


def _from_numbers(array: pa.Array, subject: _Subject) -> Column:
    import pyarrow as pa

    pc = compute()

    if pa.types.is_integer(array.type) and len(array):
        largest = max(abs(pc.max(array).as_py() or 0), abs(pc.min(array).as_py() or 0))
        if largest > number_formats.LARGEST_EXACT and subject.options.kind is None:
            return _from_strings(
                _as_strings(array), subject, typed=True, because=_too_long(str(largest))
            )
    values = np.array(
        array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64
    )
    infinite = np.isinf(values)
    if infinite.any():
        row = first_true(infinite)
        if subject.options.on_error == "error":
            raise subject.error(
                row, f"{values[row]} is not a finite number.", _remedy(subject, kind_is_set=True)
            )
        values[infinite] = np.nan
    lost = int(np.isnan(values).sum())
    return Column(
        subject.name,
        "number",
        values,
        reason=f"number: the values are numbers{_few(values, subject)}{_absent(lost)}",
    )


def _few(values: np.ndarray, subject: _Subject) -> str:
    """What the report says of whole numbers with few distinct values: they may be categories."""
    sample = values[:10_000]
    distinct = np.unique(sample[~np.isnan(sample)])
    if (
        len(values) <= FEW
        or len(distinct) > FEW
        or not np.array_equal(distinct, np.trunc(distinct))
    ):
        return ""
    distinct = np.unique(values[~np.isnan(values)])
    if len(distinct) > FEW:
        return ""
    if len(distinct) < 2:
        return f"; all are {distinct[0]:g}" if len(distinct) else ""
    return (
        f"; only {len(distinct)} distinct whole numbers (set data.columns.{subject.name}.kind "
        "to category if they are names)"
    )


def _absent(count: int, which: str = "") -> str:
    return f"; {count:,} missing{which}" if count else ""


def _too_long(example: str) -> str:
    return f"whole numbers such as {_short(example)} are too long to be exact as numbers"


# --- strings --------------------------------------------------------------------------------------


def _from_strings(array: pa.Array, subject: _Subject, typed: bool, because: str = "") -> Column:
    import pyarrow as pa

    pc = compute()

    wanted = subject.options.kind
    if wanted == "text":
        return _text(array, subject, "the recipe says so")
    trimmed = pc.utf8_trim_whitespace(array)
    marks = pa.array(list(dict.fromkeys(["", *subject.missing_marks])), trimmed.type)
    lost = to_mask(pc.is_in(trimmed, value_set=marks)) | ~arrow.valid_mask(trimmed)
    present = pc.if_else(pa.array(lost), None, trimmed)
    total = len(array) - int(lost.sum())
    missing = _absent(int(lost.sum()), _which(trimmed, lost))
    if wanted == "boolean":
        return _booleans(present, subject, missing)
    if wanted == "number":
        return _asked_number(present, subject, total, missing)
    if wanted == "datetime":
        return _asked_datetime(present, subject, total, missing)
    if wanted == "category":
        return _category(present, subject, f"the recipe says so{_spaces(array, trimmed)}{missing}")
    if not total:
        return _category(present, subject, f"no row holds a value{missing}")
    sample = _sample(present)
    if (
        not typed
        and number_formats.parse_numbers(sample, subject.decimal).written.sum() >= len(sample) / 2
    ):
        numbers = number_formats.parse_numbers(present, subject.decimal)
        if numbers.written.sum() >= MOST * total:
            names = _names_after_all(present, numbers, subject)
            if names:
                return _category(present, subject, f"{names}{_spaces(array, trimmed)}{missing}")
            return _number(present, numbers, subject, total, missing)
        because = because or (
            _nearly("numbers", int(numbers.written.sum()), total)
            if 2 * numbers.written.sum() >= total
            else ""
        )
    sample_dates = date_formats.parse_dates(sample)
    hopeless = sample_dates.ambiguous < 0 and 2 * sample_dates.readable.sum() < len(sample)
    parsed_dates = sample_dates if hopeless else date_formats.parse_dates(present)
    if not hopeless and parsed_dates.readable.sum() >= MOST * total:
        return _datetime(present, parsed_dates, subject, total, missing)
    if not hopeless and parsed_dates.ambiguous >= 0:
        example = present[parsed_dates.ambiguous].as_py()
        because = (
            f'dates such as "{example}" may be day first or month first, and no value decides it'
        )
        subject.tell(
            f"{because}; they are kept as they are written. Write the year first to have dates."
        )
    if not typed and _only_true_and_false(sample) and _only_true_and_false(present):
        return _booleans(present, subject, missing)
    return _names_or_text(array, present, subject, because, _spaces(array, trimmed), missing, total)


def _sample(present: pa.Array) -> pa.Array:
    """At most a thousand of the values, drawn with a fixed seed: what is rare among them is rare in
    the column."""
    import pyarrow as pa

    filled = np.flatnonzero(arrow.valid_mask(present))
    if len(filled) > 1000:
        filled = filled[np.random.default_rng(0).integers(0, len(filled), 1000)]
    return present.take(pa.array(filled))


def _nearly(what: str, readable: int, total: int) -> str:
    return f"only {readable:,} of {total:,} values are {what}"


def _which(trimmed: pa.Array, lost: np.ndarray) -> str:
    """' ("?" 12, "NA" 3)': how often each mark stands for a missing value; '' where all missing
    values are empty cells."""
    import pyarrow as pa

    pc = compute()

    if not lost.any():
        return ""
    counted = pc.value_counts(pc.filter(trimmed, pa.array(lost)))
    pairs = [(pair["values"], pair["counts"]) for pair in counted.to_pylist()]
    counts = [f'"{mark}" {count:,}' for mark, count in pairs if mark]
    return f" ({', '.join(counts)})" if counts else ""


def _spaces(array: pa.Array, trimmed: pa.Array) -> str:
    pc = compute()

    changed = pc.sum(pc.not_equal(array, trimmed)).as_py() or 0
    return f"; spaces around {changed:,} values left out" if changed else ""


def _short(value: str) -> str:
    return json.dumps(value if len(value) <= 60 else value[:57] + "...", ensure_ascii=False)


def _remedy(subject: _Subject, kind_is_set: bool) -> str:
    name = subject.name
    base = f"set data.columns.{name}.on_error to missing, or mend the row"
    return (
        f"{base}."
        if kind_is_set or subject.options.kind
        else f"{base}; if the values are names, set data.columns.{name}.kind to category."
    )


def _reject(
    present: pa.Array, readable: np.ndarray, subject: _Subject, one: str, many: str, total: int
) -> str:
    """Raises DataError for the first value that is not of the kind, or, where on_error is
    "missing", says how many count as missing; '' where all values are of the kind."""
    bad = ~readable & arrow.valid_mask(present)
    count = int(bad.sum())
    if not count:
        return ""
    row = first_true(bad)
    value = _short(present[row].as_py())
    good = total - count
    if subject.options.on_error == "error":
        rows = f"{total:,} rows" if total == len(present) else f"{total:,} rows that hold a value"
        message = f"{value} is not {one} (the column holds {many} in {good:,} of {rows})."
        raise subject.error(row, message, _remedy(subject, kind_is_set=False))
    counted = "1 value that is" if count == 1 else f"{count:,} values that are"
    sentence = f"{counted} not {one} counted as missing ({value}{', ...' if count > 1 else ''})"
    subject.tell(f"{sentence}, as on_error says.")
    return f"; {sentence}"


def _asked_number(present: pa.Array, subject: _Subject, total: int, missing: str) -> Column:
    numbers = number_formats.parse_numbers(present, subject.decimal)
    if subject.strict and numbers.ambiguous >= 0:
        value = present[numbers.ambiguous].as_py()
        raise subject.error(
            numbers.ambiguous,
            f'"{value}" can be read in two ways.',
            "write it without a mark between thousands",
        )
    return _number(present, numbers, subject, total, missing)


def _number(
    present: pa.Array,
    numbers: number_formats.ParsedNumbers,
    subject: _Subject,
    total: int,
    missing: str,
) -> Column:
    rejected = _reject(present, numbers.readable, subject, "a number", "numbers", total)
    good = int(numbers.readable.sum())
    marks = "; decimal comma" if numbers.decimal == "," and numbers.thousands != "." else ""
    marks = (
        "; decimal comma, points mark thousands"
        if numbers.decimal == "," and numbers.thousands == "."
        else marks
    )
    names = {",": "commas", " ": "spaces", "'": "apostrophes"}
    marks = f"; {names[numbers.thousands]} mark thousands" if numbers.thousands in names else marks
    if numbers.assumed:
        marks += f"; assumed: {numbers.assumed}"
        subject.tell(
            f"{numbers.assumed}. Nothing in the column decides it; set data.source.decimal if it "
            "is wrong."
        )
    if numbers.inexact >= 0:
        marks += f"; rounded: {_too_long(present[numbers.inexact].as_py())}"
    values = numbers.values
    reason = (
        f"number: {good:,} of {total:,} values are "
        f"numbers{marks}{rejected}{_few(values, subject)}{missing}"
    )
    return Column(subject.name, "number", values, reason=reason)


def _names_after_all(
    present: pa.Array, numbers: number_formats.ParsedNumbers, subject: _Subject
) -> str:
    """Why a column that can be read as numbers is a category all the same, or ''."""
    if numbers.zeros >= 0:
        example = _short(present[numbers.zeros].as_py())
        subject.tell(
            f"kept as names, since {example} begins with a zero; set "
            f"data.columns.{subject.name}.kind to number if it is one."
        )
        return f"whole numbers with leading zeros such as {example} are names (postcodes, codes)"
    return _too_long(present[numbers.inexact].as_py()) if numbers.inexact >= 0 else ""


def _asked_datetime(present: pa.Array, subject: _Subject, total: int, missing: str) -> Column:
    parsed_dates = date_formats.parse_dates(present, compact=True)
    if parsed_dates.ambiguous >= 0 and subject.options.on_error == "error":
        value = present[parsed_dates.ambiguous].as_py()
        raise subject.error(
            parsed_dates.ambiguous,
            f'"{value}" may be day first or month first, and no value of the column decides it.',
            "write the year first: 2016-07-31",
        )
    return _datetime(present, parsed_dates, subject, total, missing)


def _datetime(
    present: pa.Array,
    parsed_dates: date_formats.ParsedDates,
    subject: _Subject,
    total: int,
    missing: str,
) -> Column:
    rejected = _reject(present, parsed_dates.readable, subject, "a date", "dates", total)
    written = f", {parsed_dates.form}" if parsed_dates.form else ""
    reason = (
        f"datetime: {int(parsed_dates.readable.sum()):,} of {total:,} values are "
        f"dates{written}{rejected}{missing}"
    )
    return Column(subject.name, "datetime", parsed_dates.values, reason=reason)


def _only_true_and_false(present: pa.Array) -> bool:
    pc = compute()

    words = pc.unique(pc.utf8_lower(pc.drop_null(pc.unique(present))))
    return len(words) == 2 and sorted(words.to_pylist()) == ["false", "true"]


def _booleans(present: pa.Array, subject: _Subject, missing: str = "") -> Column:
    import pyarrow as pa

    pc = compute()

    lowered = pc.utf8_lower(present)
    true = to_mask(pc.is_in(lowered, value_set=pa.array(_TRUE, lowered.type)))
    false = to_mask(pc.is_in(lowered, value_set=pa.array(_FALSE, lowered.type)))
    total = len(present) - present.null_count
    rejected = _reject(present, true | false, subject, "true or false", "true or false", total)
    values = np.where(true, 1, np.where(false, 0, -1)).astype(np.int8)
    why = "the recipe says so" if subject.options.kind else "the values are true and false"
    return Column(subject.name, "boolean", values, reason=f"boolean: {why}{rejected}{missing}")


def _names_or_text(
    array: pa.Array,
    present: pa.Array,
    subject: _Subject,
    because: str,
    spaces: str,
    missing: str,
    total: int,
) -> Column:
    pc = compute()

    distinct = pc.count_distinct(present).as_py()
    length = pc.mean(pc.utf8_length(present)).as_py()
    words = 1 + pc.mean(pc.count_substring_regex(present, pattern=r"\S\s+\S")).as_py()
    lead = f"{because}; " if because else ""
    exact = because.startswith("whole numbers")
    varied = distinct > FEW and distinct > total / 10
    if not exact and varied and (length > LONG or words >= WORDS):
        return _text(
            array,
            subject,
            f"{lead}{distinct:,} distinct values of {length:.0f} characters on average",
        )
    if not exact and length > 20 * LONG:
        return _text(array, subject, f"{lead}{length:,.0f} characters on average")
    if not exact and distinct > FEW and distinct > total / 2:
        return _text(
            array,
            subject,
            f"{lead}{distinct:,} of {total:,} values are distinct, so they name single rows",
        )
    return _category(
        present, subject, f"{lead}{distinct:,} distinct values in {total:,} rows{spaces}{missing}"
    )


def _category(present: pa.Array, subject: _Subject, why: str) -> Column:
    pc = compute()

    coded = pc.dictionary_encode(present)
    words = coded.dictionary.to_pylist()
    order = _in_order(words)
    code_of = np.empty(len(words) + 1, dtype=np.int32)
    code_of[order] = np.arange(len(words), dtype=np.int32)
    code_of[-1] = -1
    indices = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)
    return Column(
        subject.name,
        "category",
        code_of[indices],
        tuple(words[index] for index in order),
        reason=f"category: {why}",
    )


def _in_order(words: list[str]) -> list[int]:
    """The indices of `words` sorted by number where all are plain whole numbers, else by code
    point: the order of categories must not depend on the order of rows."""
    if words and all(
        word.isascii() and word.removeprefix("-").isdigit() and len(word) < 19 for word in words
    ):
        return sorted(range(len(words)), key=lambda index: (int(words[index]), words[index]))
    return sorted(range(len(words)), key=words.__getitem__)


def _text(array: pa.Array, subject: _Subject, why: str) -> Column:
    import pyarrow as pa

    pc = compute()

    lost = to_mask(pc.equal(pc.utf8_trim_whitespace(array), "")) | ~arrow.valid_mask(array)
    filled = pc.if_else(pa.array(lost), "", array).cast(pa.large_string())
    values, offsets = arrow.text_buffers(filled)
    return Column(
        subject.name,
        "text",
        values,
        offsets=offsets,
        missing=lost if lost.any() else None,
        reason=f"text: {why}{_absent(int(lost.sum()))}",
    )
