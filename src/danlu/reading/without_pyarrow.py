"""Values of a known kind to a typed column with numpy alone, where pyarrow is not installed.

For rows to predict: a few values at a time, whose kind the artifact names. The rules are those of
danlu.reading.inference with `typed` and `strict`; tests/reading/test_plain_reading.py checks that
both read the same values alike."""

from __future__ import annotations

import datetime
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from danlu.errors import DataError
from danlu.reading import date_formats, number_formats, word_lists
from danlu.terms import MISSING_DATETIME, Column, Kind

MISSING_MARKS = frozenset(
    (
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
)  # those of inference
_TRUE, _FALSE = (
    frozenset(("true", "yes", "y", "t", "1", "on")),
    frozenset(("false", "no", "n", "f", "0", "off")),
)
_MOST_DIGITS = 1300  # bits of a whole number
_MEND = "mend the row"

Where = Callable[[int], str]


def read_column(name: str, kind: Kind, values: Iterable[Any], where: Where) -> Column:
    """The column of `kind` that raw `values` hold: Python values or a numpy array, one per row.

    Kinds: number, category, boolean, datetime, text, sequence, frames (images and recordings have
    readers of their own). `where(row)` names a row in messages. DataError naming row and column
    where a value is not of the kind.

    >>> read_column("age", "number", ["31", None, " 40 "], "row {}".format).values.tolist()
    [31.0, nan, 40.0]
    >>> read_column("age", "number", ["old"], "row {}".format)
    Traceback (most recent call last):
    danlu.errors.DataError: row 0, column age: "old" is not a number...
    """
    cells = _Cells(name, where)
    if kind == "frames":
        return _frames(cells, values)
    if kind == "sequence":
        return _sequence(cells, values)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iufb" and kind == "number":
        return _numbers_of(cells, values.astype(np.float64))
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        values = values.astype("datetime64[us]").tolist()
    listed: list[Any] = (
        values.tolist() if isinstance(values, np.ndarray) else [_single(value) for value in values]
    )
    if kind == "number" and any(isinstance(value, list | tuple | np.ndarray) for value in listed):
        return _wide(cells, listed)
    if kind == "datetime":
        return _moments(cells, listed)
    if kind == "number" and _all(listed, (int, float), but=bool):
        return _numbers_of(cells, _floats(cells, listed))
    strings = _strings(cells, listed)
    if kind == "text":
        return _text(name, strings)
    if kind == "number" and _all(listed, bool):
        return _numbers_of(
            cells, np.array([np.nan if value is None else float(value) for value in listed])
        )
    present = [
        None if value is None or value.strip() in MISSING_MARKS else value.strip()
        for value in strings
    ]
    if kind == "number":
        return Column(name, "number", _numerals(cells, present))
    return _booleans(cells, present) if kind == "boolean" else _category(name, present)


class _Cells:
    """The errors of one column: they name the row and the column."""

    def __init__(self, name: str, where: Where) -> None:
        self.name = name
        self.where = where

    def error(self, row: int, message: str, hint: str = _MEND) -> DataError:
        return DataError(message, where=f"{self.where(row)}, column {self.name}", hint=hint)


def _single(value: Any) -> Any:
    return (
        value.item()
        if isinstance(value, np.generic) and not isinstance(value, np.datetime64)
        else value
    )


def _lost(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _all(
    values: Sequence[Any], kinds: type | tuple[type, ...], but: type | tuple[type, ...] = ()
) -> bool:
    present_values = [value for value in values if not _lost(value)]
    return bool(present_values) and all(
        isinstance(value, kinds) and not isinstance(value, but or ()) for value in present_values
    )


def _floats(cells: _Cells, values: Sequence[Any]) -> np.ndarray:
    for row, value in enumerate(values):
        if isinstance(value, int) and value.bit_length() > 1023:
            raise cells.error(row, "the whole number is too large.")
    return np.array([np.nan if value is None else float(value) for value in values])


def _numbers_of(cells: _Cells, values: np.ndarray) -> Column:
    infinite = np.isinf(values)
    if infinite.any():
        row = int(np.flatnonzero(infinite.reshape(len(values), -1).any(axis=1))[0])
        raise cells.error(
            row,
            "an infinite number." if values.ndim > 1 else f"{values[row]} is not a finite number.",
        )
    names = (
        tuple(f"{cells.name}_{number}" for number in range(1, values.shape[1] + 1))
        if values.ndim > 1
        else ()
    )
    return Column(cells.name, "number", values, names=names)


def _wide(cells: _Cells, values: Sequence[Any]) -> Column:
    rows = [
        list(row_values) if isinstance(row_values, list | tuple | np.ndarray) else None
        for row_values in values
    ]
    width = next((len(row_values) for row_values in rows if row_values is not None), 0)
    for row, row_values in enumerate(rows):
        if row_values is None or len(row_values) != width or not width:
            content = "no list" if row_values is None else f"a list of {len(row_values)} numbers"
            raise cells.error(
                row, f"{content}; every row of this column needs the same count ({width})."
            )
        if not all(
            _lost(number) or isinstance(number, int | float | np.number) for number in row_values
        ):
            raise cells.error(row, "a list that does not hold numbers only.")
    return _numbers_of(
        cells,
        np.array(
            [
                [np.nan if number is None else float(number) for number in row_values]
                for row_values in rows
                if row_values
            ]
        ),
    )


# --- strings --------------------------------------------------------------------------------------


def _strings(cells: _Cells, values: Sequence[Any]) -> list[str | None]:
    """The values as a person would write them; DataError for a value that is not a single one."""
    strings: list[str | None] = []
    for row, value in enumerate(values):
        if _lost(value):
            strings.append(None)
        elif isinstance(value, str):
            if not value.isascii() and value.encode("utf-8", "replace").decode("utf-8") != value:
                raise cells.error(
                    row, "the text holds half of a surrogate pair, which is no character."
                )
            strings.append(value)
        elif isinstance(value, bool):
            strings.append("true" if value else "false")
        elif isinstance(value, int):
            if value.bit_length() > _MOST_DIGITS:
                raise cells.error(row, "the whole number has more than 390 digits.")
            strings.append(str(value))
        elif isinstance(value, float):
            strings.append(
                str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
            )
        elif isinstance(value, datetime.date):
            strings.append(str(value))
        else:
            raise cells.error(
                row,
                f"a value of type {type(value).__name__} is no single value.",
                "give one value a row",
            )
    return strings


def _short(value: str) -> str:
    return json.dumps(value if len(value) <= 60 else value[:57] + "...", ensure_ascii=False)


def _text(name: str, strings: Sequence[str | None]) -> Column:
    missing = np.array([value is None or not value.strip() for value in strings], dtype=bool)
    data = [
        b"" if gone or value is None else value.encode("utf-8")
        for value, gone in zip(strings, missing)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(value) for value in data])]).astype(np.int64)
    values = np.frombuffer(b"".join(data), dtype=np.uint8)
    return Column(name, "text", values, offsets=offsets, missing=missing if missing.any() else None)


def _category(name: str, present: Sequence[str | None]) -> Column:
    categories = tuple(sorted({value for value in present if value is not None}))
    code: dict[str | None, int] = {value: number for number, value in enumerate(categories)}
    return Column(
        name,
        "category",
        np.array([code.get(value, -1) for value in present], dtype=np.int32),
        categories,
    )


def _booleans(cells: _Cells, present: Sequence[str | None]) -> Column:
    codes = np.full(len(present), -1, dtype=np.int8)
    for row, value in enumerate(present):
        if value is None:
            continue
        if value.lower() not in _TRUE | _FALSE:
            raise cells.error(row, f"{_short(value)} is not true or false.")
        codes[row] = value.lower() in _TRUE
    return Column(cells.name, "boolean", codes)


def _python(pattern: str) -> re.Pattern[str]:
    """A pattern of RE2 (ASCII classes, \\x{00A0}) compiled for Python's re module."""
    return re.compile(
        re.sub(r"\\x\{([0-9A-F]+)\}", lambda match: chr(int(match[1], 16)), pattern).removesuffix(
            "$"
        )
        + r"\Z",
        re.ASCII,
    )


_POINT, _COMMA = _python(number_formats.FORM_POINT), _python(number_formats.FORM_COMMA)
_GROUPING = re.compile("[,'’ \u00a0\u2009\u202f]"), re.compile("[.'’ \u00a0\u2009\u202f]")
_NONZERO = re.compile(r"[^eE]*[1-9]")


def _numerals(cells: _Cells, present: Sequence[str | None]) -> np.ndarray:
    """The numbers, float64 (N,), that strings without surrounding spaces hold; one convention for
    the whole column."""
    written = [None if text is None else text.replace("−", "-") for text in present]
    point = [text is not None and _POINT.match(text) is not None for text in written]
    comma = [text is not None and _COMMA.match(text) is not None for text in written]
    only_point = sum(one and not other for one, other in zip(point, comma))
    only_comma = sum(other and not one for one, other in zip(point, comma))
    by_comma = only_comma > only_point
    if not (only_point or only_comma):
        for row, text in enumerate(written):
            if text is not None and point[row] and comma[row] and "," in text:
                raise cells.error(
                    row,
                    f'"{text}" can be read in two ways.',
                    "write it without a mark between thousands",
                )
    values = np.full(len(written), np.nan)
    for row, text in enumerate(written):
        if text is None:
            continue
        value = _number(text, by_comma) if (comma if by_comma else point)[row] else math.nan
        if math.isnan(value):
            raise cells.error(row, f"{_short(text)} is not a number.")
        values[row] = value
    return values


def _number(text: str, by_comma: bool) -> float:
    """The number that a string holds; NaN where float64 cannot hold it."""
    plain = _GROUPING[by_comma].sub("", text)
    value = float(plain.replace(",", ".") if by_comma else plain)
    return math.nan if math.isinf(value) or (value == 0 and _NONZERO.match(plain)) else value


# --- date-times -----------------------------------------------------------------------------------

_CERTAIN = [_python(form) for form in (*date_formats.FORMS_CERTAIN, date_formats.FORM_COMPACT)]
_NUMERIC = _python(date_formats.FORM_NUMERIC)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _moments(cells: _Cells, values: Sequence[Any]) -> Column:
    if any(isinstance(value, bool) for value in values):
        raise cells.error(
            next(row for row, value in enumerate(values) if isinstance(value, bool)),
            "true and false are no date-times.",
        )
    microseconds = np.full(len(values), MISSING_DATETIME, dtype=np.int64)
    strings: list[str | None] = [None] * len(values)
    for row, value in enumerate(values):
        if isinstance(value, int | float) and not _lost(value):
            raise cells.error(row, "numbers are no date-times.", "write dates as 2016-07-01")
        if isinstance(value, np.datetime64):
            microseconds[row] = value.astype("datetime64[us]").astype(np.int64)
        elif isinstance(value, datetime.date):
            microseconds[row] = _microseconds(value)
        elif isinstance(value, str):
            strings[row] = None if value.strip() in MISSING_MARKS else value.strip()
        elif not _lost(value):
            raise cells.error(row, f"a value of type {type(value).__name__} is no date-time.")
    return Column(cells.name, "datetime", _written_moments(cells, strings, microseconds))


def _microseconds(moment: datetime.date) -> int:
    if not isinstance(moment, datetime.datetime):
        moment = datetime.datetime(moment.year, moment.month, moment.day)
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)
    return (aware - _EPOCH) // datetime.timedelta(microseconds=1)


def _written_moments(
    cells: _Cells, strings: Sequence[str | None], microseconds: np.ndarray
) -> np.ndarray:
    unclear: list[tuple[int, re.Match[str]]] = []
    for row, text in enumerate(strings):
        if text is None:
            continue
        match = next((match for match in (form.match(text) for form in _CERTAIN) if match), None)
        if match is not None:
            microseconds[row] = _moment(match.groupdict())
        elif match := _NUMERIC.match(text):
            unclear.append((row, match))
        if match is None or (match.re is not _NUMERIC and microseconds[row] == MISSING_DATETIME):
            raise cells.error(row, f"{_short(text)} is not a date.")
    day_first = any(int(match["first"]) > 12 for _, match in unclear)
    month_first = any(int(match["second_part"]) > 12 for _, match in unclear)
    for row, match in unclear:
        if day_first == month_first:
            message = (
                f'"{strings[row]}" may be day first or month first, and no value of the '
                "column decides it."
            )
            raise cells.error(row, message, "write the year first: 2016-07-31")
        day, month = ("first", "second_part") if day_first else ("second_part", "first")
        microseconds[row] = _moment({**match.groupdict(), "day": match[day], "month": match[month]})
        if microseconds[row] == MISSING_DATETIME:
            raise cells.error(row, f"{_short(str(strings[row]))} is not a date.")
    return microseconds


def _moment(parts: dict[str, str | None]) -> int:
    """Microseconds since 1970 of the parts of one date; MISSING_DATETIME where they are no date."""
    read: dict[str, np.ndarray] = {}
    for name, word in parts.items():
        if name == "fraction":
            value = int(f"{word or '0':0<6}"[:6])
        elif name in ("name", "zone", "half"):
            value = date_formats.part_value(word or "", name)
        elif name in ("first", "second_part"):
            continue
        else:
            value = int(word or 0)
        read[name] = np.array([value], dtype=np.int64)
    return int(date_formats.microseconds(read)[0])


# --- sequences and frames -------------------------------------------------------------------------


def _sequence(cells: _Cells, values: Any) -> Column:
    """The sequence column of lists of words, or of texts, which are split into words."""
    rows = list(values)
    if all(row_words is None or isinstance(row_words, str) for row_words in rows):
        return replace(word_lists.split_words(_text(cells.name, rows), "words"), reason="")
    listed: list[list[str | None]] = []
    for row, row_words in enumerate(rows):
        if row_words is not None and not isinstance(row_words, list | tuple | np.ndarray):
            raise cells.error(
                row,
                f"{type(row_words).__name__} is no list of words.",
                "give each row a list of words, or a text",
            )
        listed.append(_strings(cells, [] if row_words is None else list(row_words)))
    lost = np.array([row_words is None for row_words in rows], dtype=bool)
    return word_lists.sequence_column(cells.name, listed, missing=lost if lost.any() else None)


def _frames(cells: _Cells, values: Any) -> Column:
    hint = "give each row a list of moments, and each moment a list of equally many numbers"
    matrices: list[np.ndarray] = []
    for row, matrix in enumerate(values):
        try:
            converted = (
                np.zeros((0, 0))
                if matrix is None or not len(matrix)
                else np.array(matrix, dtype=np.float64)
            )
        except (TypeError, ValueError, OverflowError):
            raise cells.error(row, "this is not a list of lists of numbers.", hint) from None
        matrices.append(converted[:, None] if converted.ndim == 1 else converted)
    width = next((matrix.shape[1] for matrix in matrices if matrix.ndim == 2 and len(matrix)), 1)
    for row, matrix in enumerate(matrices):
        if matrix.ndim != 2 or (len(matrix) and matrix.shape[1] != width):
            raise cells.error(
                row,
                f"a moment has {matrix.shape[-1]} numbers, and the column's first has {width}.",
                hint,
            )
        bad = np.flatnonzero(~np.isfinite(matrix.astype(np.float32)).all(axis=1))
        if len(bad):
            raise cells.error(
                row, f"moment {int(bad[0]) + 1:,} holds a number that is missing or not finite."
            )
    lost = np.array([matrix is None for matrix in values], dtype=bool)
    flat = (
        np.concatenate([matrix.reshape(-1, width) for matrix in matrices])
        if matrices
        else np.zeros((0, width))
    )
    offsets = np.concatenate([[0], np.cumsum([len(matrix) for matrix in matrices])]).astype(
        np.int64
    )
    names = tuple(f"{cells.name}_{number}" for number in range(width))
    return Column(
        cells.name,
        "frames",
        flat.astype(np.float32),
        offsets=offsets,
        missing=lost if lost.any() else None,
        names=names,
    )
