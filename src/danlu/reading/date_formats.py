"""Dates and times as people write them, to microseconds since 1970 UTC.

Dates with the year first (2016-07-01, 2016/7/1 12:30, 2016-07-01T12:30:00.5+02:00, 2016年7月1日) or
with the month's name (24 October 2011, Oct 24, 2011) have one meaning. 24/10/2011 and 10/24/2011
are read only where some value of the column has a part above 12, which decides whether the day or
the month comes first; 03/04/2011 alone is never guessed. A time zone is converted to UTC; a time
without a zone counts as UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from danlu.reading.arrow import compute, first_true, valid_mask
from danlu.terms import MISSING_DATETIME

if TYPE_CHECKING:
    import pyarrow as pa

_TIME = (
    r"(?:[T\s]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp][Mm])?\s*(?P<zone>Z|UTC|[+-]\d{2}:?\d{2})?)?$"
)
_NAMED = r"(?P<name>[A-Za-z]{3,9})\.?"
FORMS_CERTAIN = (  # forms with one meaning
    r"^(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})" + _TIME,
    r"^(?P<year>\d{4})\s*年\s*(?P<month>\d{1,2})\s*月\s*(?P<day>\d{1,2})\s*日?" + _TIME,
    r"^(?P<day>\d{1,2})(?:st|nd|rd|th)?[\s-]+" + _NAMED + r"[\s,-]+(?P<year>\d{4})" + _TIME,
    r"^" + _NAMED + r"\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?,?\s+(?P<year>\d{4})" + _TIME,
)
FORM_COMPACT = (
    r"^(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})" + _TIME
)  # a number, unless the recipe says otherwise
FORM_NUMERIC = r"^(?P<first>\d{1,2})[-/.](?P<second_part>\d{1,2})[-/.](?P<year>\d{4})" + _TIME
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_LONGER = ("uary", "ruary", "ch", "il", "", "e", "y", "ust", "tember", "ober", "ember", "ember")
_NAMES = {name: number for number, name in enumerate(_MONTHS, start=1)}
_NAMES |= {name + rest: _NAMES[name] for name, rest in zip(_MONTHS, _LONGER)} | {"sept": 9}


@dataclass(frozen=True)
class ParsedDates:
    """What a column of strings holds as dates.

    values      int64 (N,), microseconds since 1970 UTC; MISSING_DATETIME where not readable
    readable    bool (N,)
    form        how the dates are written, for the report ("year first", "day first", ...)
    ambiguous   row of the first value that may be day first or month first where no value of the
                column decides it, or -1
    """

    values: np.ndarray
    readable: np.ndarray
    form: str
    ambiguous: int


def parse_dates(trimmed: pa.Array, compact: bool = False) -> ParsedDates:
    """The dates in a string array without surrounding spaces; `compact` also accepts 20160701.

    >>> import pyarrow as pa
    >>> dates = parse_dates(pa.array(["24/10/2011", "03/04/2011"]))
    >>> dates.form, dates.values.view("M8[us]").astype("M8[D]").tolist()[1].isoformat()
    ('day first', '2011-04-03')
    """
    count = len(trimmed)
    values = np.full(count, MISSING_DATETIME, dtype=np.int64)
    forms: list[str] = []
    for number, pattern in enumerate((*FORMS_CERTAIN, FORM_COMPACT) if compact else FORMS_CERTAIN):
        rows, parts = _parts(trimmed, pattern)
        if len(rows):
            values[rows] = microseconds(parts)
            forms.append("with the month's name" if number in (2, 3) else "year first")
            if len(rows) == count - trimmed.null_count:  # nothing is left for the other forms
                return ParsedDates(values, values != MISSING_DATETIME, forms[-1], -1)
    rows, parts = _parts(trimmed, FORM_NUMERIC)
    ambiguous = -1
    if len(rows):
        day_first = bool((parts["first"] > 12).any())
        month_first = bool((parts["second_part"] > 12).any())
        if day_first != month_first:
            day, month = ("first", "second_part") if day_first else ("second_part", "first")
            values[rows] = microseconds({**parts, "day": parts[day], "month": parts[month]})
            forms.append("day first" if day_first else "month first")
        else:
            unclear = np.zeros(count, dtype=bool)
            unclear[rows] = True
            ambiguous = first_true(unclear)
    return ParsedDates(
        values, values != MISSING_DATETIME, " and ".join(dict.fromkeys(forms)), ambiguous
    )


def _parts(trimmed: pa.Array, pattern: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(rows that match `pattern`, int64; the pattern's named groups as int64 arrays of them)."""
    import pyarrow as pa

    pc = compute()

    matches = pc.extract_regex(trimmed, pattern=pattern)
    rows = np.flatnonzero(valid_mask(matches))
    if not len(rows):
        return rows, {}
    matches = matches.take(pa.array(rows))
    parts: dict[str, np.ndarray] = {}
    for field in matches.type:
        words = pc.struct_field(matches, field.name)
        if field.name == "fraction":
            words = pc.utf8_slice_codeunits(pc.utf8_rpad(words, 6, "0"), 0, 6)
        if field.name in ("name", "zone", "half"):
            parts[field.name] = _words(words, field.name)
        else:
            parts[field.name] = pc.cast(
                pc.if_else(pc.equal(words, ""), "0", words), pa.int64()
            ).to_numpy(zero_copy_only=False)
    return rows, parts


def _words(words: pa.Array, name: str) -> np.ndarray:
    """`part_value` of every word, int64 (N,)."""
    pc = compute()

    coded = pc.dictionary_encode(words)
    meanings = [part_value(word, name) for word in coded.dictionary.to_pylist()]
    return np.array(meanings, dtype=np.int64)[coded.indices.to_numpy(zero_copy_only=False)]


def part_value(word: str, name: str) -> int:
    """The number that a word stands for. `name` says which part of a date it is: "name" gives the
    month 1..12 (0: no month), "zone" minutes east of UTC, "half" 1 for am and 2 for pm (else 0).

    >>> part_value("October", "name"), part_value("+02:00", "zone"), part_value("PM", "half")
    (10, 120, 2)
    """
    lowered = word.lower()
    if name == "name":
        return _NAMES.get(lowered, 0)
    if name == "half":
        return {"am": 1, "pm": 2}.get(lowered, 0)
    if len(lowered) < 5:  # "", Z, UTC
        return 0
    minutes = int(word[1:3]) * 60 + int(word[-2:])
    return -minutes if word[0] == "-" else minutes


def microseconds(parts: dict[str, np.ndarray]) -> np.ndarray:
    """Microseconds since 1970, int64 (N,), of the parts of N dates (int64 (N,) each).

    `parts` has "year", "day", and "month" or "name"; "hour", "minute", "second", "fraction"
    (microseconds), "zone" (minutes east of UTC) and "half" (1 am, 2 pm) are optional.
    MISSING_DATETIME where the parts are no date (30 February, 25:00).

    >>> parts = {"year": 1970, "month": 1, "day": 2, "hour": 1}
    >>> microseconds({name: np.array([value]) for name, value in parts.items()}).tolist()
    [90000000000]
    """
    zero = np.zeros(len(parts["year"]), dtype=np.int64)
    year, day = parts["year"], parts["day"]
    month = parts["name"] if "name" in parts else parts["month"]
    hour, minute, second = (parts.get(name, zero) for name in ("hour", "minute", "second"))
    half = parts.get("half", zero)
    fits = (year >= 1) & (month >= 1) & (month <= 12) & (minute < 60) & (second < 60) & (hour < 24)
    fits &= (half == 0) | ((hour >= 1) & (hour <= 12))
    hour = np.where(half > 0, hour % 12 + 12 * (half == 2), hour)
    months = ((year - 1970) * 12 + np.clip(month, 1, 12) - 1).astype("datetime64[M]")
    starts = months.astype("datetime64[D]").astype(np.int64)
    ends = (months + 1).astype("datetime64[D]").astype(np.int64)
    fits &= (day >= 1) & (day <= ends - starts)
    seconds = (
        (starts + day - 1) * 86_400
        + hour * 3_600
        + (minute - parts.get("zone", zero)) * 60
        + second
    )
    return np.where(fits, seconds * 1_000_000 + parts.get("fraction", zero), MISSING_DATETIME)
