"""Numbers as people write them: 1234.5, 1,234.5, 1.234,5, 1 234,5, 1'234.5, 1e-3.

A column is read under one convention: the decimal mark is a point or a comma. Values that fit only
one of the two decide. Where all values fit both (1,234), the comma is taken to mark thousands and
the point to mark decimals, and `ParsedNumbers.assumed` says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from danlu.reading.arrow import compute, first_true, to_mask

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST_EXACT = 2**53  # float64 holds every whole number up to here

_EXPONENT = r"(?:[eE][+-]?\d{1,4})?"
_SPACE = r"[ '’\x{00A0}\x{2009}\x{202F}]"


def _forms(decimal: str, thousands: str) -> str:
    return (
        rf"^[+-]?(?:\d+(?:{decimal}\d*)?{_EXPONENT}"
        rf"|{decimal}\d+{_EXPONENT}"
        # no group begins with 0: 0,123 has no mark between thousands
        rf"|[1-9]\d{{0,2}}(?:{thousands}\d{{3}})+(?:{decimal}\d*)?"
        rf"|[1-9]\d{{0,2}}(?:{_SPACE}\d{{3}})+(?:{decimal}\d*)?)$"
    )


_SIMPLE = rf"^[+-]?(?:\d+(?:\.\d*)?|\.\d+){_EXPONENT}$"
FORM_POINT = _forms(r"\.", ",")
FORM_COMMA = _forms(",", r"\.")


@dataclass(frozen=True)
class ParsedNumbers:
    """What a column of strings holds as numbers.

    values      float64 (N,), NaN where not readable
    written     bool (N,), whether the string is a number of the convention
    readable    bool (N,), whether float64 can also hold it (it cannot hold 1e999)
    decimal     "." or ","
    thousands   the mark between groups of three digits, "" where there is none
    assumed     a sentence where the values do not decide the convention, else ""
    ambiguous   row of the first value with a comma that fits both conventions where no value of the
                column decides, or -1
    zeros       row of the first whole number with a leading zero (01234), or -1
    inexact     row of the first whole number that float64 cannot hold exactly, or -1
    """

    values: np.ndarray
    written: np.ndarray
    readable: np.ndarray
    decimal: str
    thousands: str
    assumed: str
    ambiguous: int
    zeros: int
    inexact: int


def matches(strings: pa.Array, pattern: str) -> np.ndarray:
    """Which strings match a regular expression of RE2, bool (N,); null does not match.

    >>> import pyarrow as pa
    >>> matches(pa.array(["12", "x", None]), "^[0-9]+$").tolist()
    [True, False, False]
    """
    return to_mask(compute().match_substring_regex(strings, pattern=pattern))


def contains(strings: pa.Array, letter: str) -> np.ndarray:
    """Which strings contain `letter`, bool (N,); null does not.

    >>> import pyarrow as pa
    >>> contains(pa.array(["1,5", "2", None]), ",").tolist()
    [True, False, False]
    """
    return to_mask(compute().match_substring(strings, pattern=letter))


def plain_minus(strings: pa.Array) -> pa.Array:
    """The strings with every typographic minus (U+2212) replaced by a hyphen.

    >>> import pyarrow as pa
    >>> plain_minus(pa.array(["−5"]))[0].as_py()
    '-5'
    """
    pc = compute()

    return pc.replace_substring(strings, pattern="−", replacement="-")


def decimal_mark(strings: pa.Array) -> str | None:
    """The decimal mark ("." or ",") where the values of a column decide it: at least half of them
    are numbers, and some fit one convention only. Else None.

    >>> import pyarrow as pa
    >>> decimal_mark(pa.array(["1,5", "2"])), decimal_mark(pa.array(["1,234"]))
    (',', None)
    """
    pc = compute()

    trimmed = plain_minus(pc.utf8_trim_whitespace(strings))
    point, comma = matches(trimmed, FORM_POINT), matches(trimmed, FORM_COMMA)
    filled = int(np.count_nonzero(to_mask(pc.not_equal(trimmed, ""))))
    only_point, only_comma = int((point & ~comma).sum()), int((comma & ~point).sum())
    if (
        max(point.sum(), comma.sum()) < 0.5 * filled
        or only_point == only_comma
        or min(only_point, only_comma) > 0
    ):
        return None
    return "." if only_point else ","


def parse_numbers(trimmed: pa.Array, decimal: str | None = None) -> ParsedNumbers:
    """The numbers in a string array without surrounding spaces; null is not readable. `decimal`
    settles the decimal mark; None: the values decide.

    >>> import pyarrow as pa
    >>> numbers = parse_numbers(pa.array(["1.234,5", "7", "x"]))
    >>> numbers.decimal, numbers.values.tolist()
    (',', [1234.5, 7.0, nan])
    """
    simple = _simple(trimmed) if decimal != "," else None
    if simple is not None:
        return simple
    trimmed = plain_minus(trimmed)
    point, comma = matches(trimmed, FORM_POINT), matches(trimmed, FORM_COMMA)
    commas, points = contains(trimmed, ","), contains(trimmed, ".")
    either = point & comma & (commas | points)
    only_point, only_comma = int((point & ~comma).sum()), int((comma & ~point).sum())
    decided = decimal is not None or only_point > 0 or only_comma > 0
    mark = decimal or ("," if only_comma > only_point else ".")
    written = comma if mark == "," else point
    values = _convert(trimmed, written, mark)
    readable = ~np.isnan(values)
    assumed, ambiguous = "", -1
    if not decided and either.any():
        row = ambiguous = first_true(either & commas)
        meaning = "the comma is taken to mark thousands"
        if row < 0:
            row, meaning = first_true(either), "the point is taken to mark decimals"
        assumed = f'"{trimmed[row].as_py()}" is read as {values[row]:.17g}: {meaning}'
    whole = written & ~(points if mark == "." else commas)
    return ParsedNumbers(
        values=values,
        written=written,
        readable=readable,
        decimal=mark,
        thousands=_thousands(trimmed, readable, mark, commas, points),
        assumed=assumed,
        ambiguous=ambiguous,
        zeros=first_true(whole & matches(trimmed, r"^[+-]?0\d+$")),
        inexact=_inexact(trimmed, values, whole),
    )


def _simple(trimmed: pa.Array) -> ParsedNumbers | None:
    """The fast path for a column of plain numbers (12, -1.5, 1e-3) in which some value decides that
    the point marks decimals; None for any other column."""
    written = matches(trimmed, _SIMPLE)
    if int(written.sum()) < len(trimmed) - trimmed.null_count:
        return None
    points = contains(trimmed, ".")
    if points.any():
        dotted = first_true(points)
        sample = trimmed.slice(dotted, 10_000)
        if not (contains(sample, ".") & ~matches(sample, FORM_COMMA)).any():
            return None  # 1.234 throughout
    values = _cast(trimmed)
    whole = written & ~points
    return ParsedNumbers(
        values=values,
        written=written,
        readable=~np.isnan(values),
        decimal=".",
        thousands="",
        assumed="",
        ambiguous=-1,
        zeros=first_true(matches(trimmed, r"^[+-]?0\d+$")),
        inexact=_inexact(trimmed, values, whole),
    )


def _convert(trimmed: pa.Array, written: np.ndarray, mark: str) -> np.ndarray:
    import pyarrow as pa

    pc = compute()

    kept = pc.if_else(pa.array(written), trimmed, None)
    grouping = (
        r"[,'’ \x{00A0}\x{2009}\x{202F}]" if mark == "." else r"[.'’ \x{00A0}\x{2009}\x{202F}]"
    )
    kept = pc.replace_substring_regex(kept, pattern=grouping, replacement="")
    return _cast(kept if mark == "." else pc.replace_substring(kept, pattern=",", replacement="."))


def _cast(kept: pa.Array) -> np.ndarray:
    """float64 of strings such as +1.5e3; NaN for null and for numbers float64 cannot hold."""
    import pyarrow as pa

    pc = compute()
    values = np.array(
        pc.cast(pc.utf8_ltrim(kept, characters="+"), pa.float64()).to_numpy(zero_copy_only=False),
        dtype=np.float64,
    )
    vanished = values == 0
    if vanished.any():  # 1e-999 would become 0
        vanished &= matches(kept, r"^[^eE]*[1-9]")
    lost = np.isinf(values) | vanished
    values[lost] = np.nan
    return values


def _thousands(
    trimmed: pa.Array, readable: np.ndarray, mark: str, commas: np.ndarray, points: np.ndarray
) -> str:
    other = commas if mark == "." else points
    if (other & readable).any():
        return "," if mark == "." else "."
    spaced = matches(trimmed, rf"\d{_SPACE}\d") & readable
    return "" if not spaced.any() else "'" if matches(trimmed, "['’]").any() else " "


def _inexact(trimmed: pa.Array, values: np.ndarray, whole: np.ndarray) -> int:
    with np.errstate(invalid="ignore"):
        large = whole & ~(np.abs(values) < LARGEST_EXACT)  # NaN: beyond float64 altogether
    if not large.any():
        return -1
    for row in np.flatnonzero(large & matches(trimmed, r"^[^eE]*$")):
        digits = "".join(letter for letter in trimmed[int(row)].as_py() if letter.isdigit())
        if np.isnan(values[row]) or int(digits) != int(abs(values[row])):
            return int(row)
    return -1
