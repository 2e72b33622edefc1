"""Values read with numpy alone are what pyarrow reads of them: the same column, or an error on both sides."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from danlu.errors import DataError
from danlu.reading import without_pyarrow
from danlu.reading.inference import MISSING_MARKS, infer_column
from danlu.recipe import ColumnOptions

NUMERALS = [
    "1",
    "-2.5",
    "1,234",
    "1,234.5",
    "1.234,5",
    "1 234",
    "1'234",
    "0,5",
    "+3",
    "1e3",
    "1e999",
    "1e-999",
    ".5",
    "5.",
    "−7",
    "007",
    "12,34",
    "٣",
]
WORDS = [
    "",
    " ",
    "?",
    "NA",
    "thirty",
    "Rome",
    " Rome ",
    "北京",
    "true",
    "No",
    "on",
    "0",
    "3.0",
    "a\nb",
    "x" * 70,
]
DATES = [
    "2016-07-01", "2016/7/1 12:30", "2016-07-01T12:00:00.5+02:00", "2016年7月1日", "24 October 2011", "Oct 24, 2011", "03/04/2011", "24/10/2011",
    "10/24/2011", "30 February 2011", "20160701", "1899-12-31 23:59:59.123456789", "2011-01-01 11:30 PM", "2011-01-01T25:00", "not a date",
]  # fmt: skip
STRINGS = st.sampled_from([*NUMERALS, *WORDS])
CELLS = {  # of a kind or two: what pyarrow makes of true beside 1.0 goes by which comes first, and is no rule to follow
    "number": st.one_of(st.none(), st.integers(-(10**20), 10**20), st.floats(), STRINGS),
    "category": st.one_of(st.none(), st.integers(-1000, 1000), STRINGS, st.text(max_size=5)),
    "boolean": st.one_of(st.none(), st.booleans(), st.sampled_from(WORDS)),
    "text": st.one_of(st.none(), st.text(max_size=20), st.integers(-5, 5), st.sampled_from(WORDS)),
}


def by_arrow(kind: Any, values: list[Any]) -> Any:
    return infer_column(
        "x", values, ColumnOptions(kind=kind), lambda row: f"row {row + 1}", typed=True, strict=True
    )


def agree(kind: Any, values: list[Any]) -> None:
    """Both read the same, or both refuse."""
    try:
        wanted = by_arrow(kind, values)
    except DataError:
        with pytest.raises(DataError):
            without_pyarrow.read_column("x", kind, values, lambda row: f"row {row + 1}")
        return
    found = without_pyarrow.read_column("x", kind, values, lambda row: f"row {row + 1}")
    assert (found.name, found.kind, len(found)) == ("x", kind, len(values))
    assert [found.python_value(row) for row in range(len(values))] == [
        wanted.python_value(row) for row in range(len(values))
    ]
    assert found.values.dtype == wanted.values.dtype
    np.testing.assert_array_equal(found.is_missing(), wanted.is_missing())


@given(st.lists(CELLS["number"], min_size=1, max_size=4))
@example(["1,234", "5"])
@example(["1,234", "0.5"])
@example(["1.234,5", "0,5"])
@settings(max_examples=150, deadline=None)
def test_numbers(values: list[Any]) -> None:
    agree("number", values)


@given(st.lists(CELLS["category"], min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_categories(values: list[Any]) -> None:
    agree("category", values)


@given(st.lists(CELLS["boolean"], min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_booleans(values: list[Any]) -> None:
    agree("boolean", values)


@given(st.lists(CELLS["text"], min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_texts(values: list[Any]) -> None:
    agree("text", values)


@given(
    st.one_of(
        st.lists(st.one_of(st.none(), st.datetimes()), min_size=1, max_size=3),
        st.lists(st.one_of(st.none(), st.sampled_from([*DATES, "NA", ""])), min_size=1, max_size=3),
    )
)
@example(["03/04/2011"])
@example(["03/04/2011", "24/10/2011"])
@settings(max_examples=120, deadline=None)
def test_date_times(values: list[Any]) -> None:
    agree("datetime", values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("number", np.array([1, 2, 3])),
        ("number", np.array([[1.0, np.nan], [2.0, 3.0]])),
        ("number", [[1.0, 2.0], [3, 4]]),
        ("boolean", np.array([True, False])),
        ("category", np.array([3.0, 4.5, np.nan])),
        ("category", [0.25, 1e20, -7.0]),
        ("number", [True, None, False]),
        ("category", [True, False]),
        ("boolean", [1, 0, None]),
        ("datetime", np.array(["2020-01-01T01:02:03", "NaT"], dtype="datetime64[s]")),
        ("datetime", [datetime.date(2020, 2, 29), None]),
        ("sequence", [["a", "b"], ["c"], None]),
        ("sequence", ["don't stop now", "北京 fine"]),
        ("frames", [[[1.0, 2.0], [3.0, 4.0]], [[5, 6]]]),
    ],
)
def test_arrays_lists_and_dates(kind: Any, values: Any) -> None:
    agree(kind, values)


def test_the_marks_of_a_missing_value_are_the_same() -> None:
    assert frozenset(MISSING_MARKS) == without_pyarrow.MISSING_MARKS
