"""Raw values become the right typed columns, or are refused with row, column, value and remedy."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu.errors import DataError
from danlu.reading.columns import MISSING_MARKS, column_options, infer_column, read_columns
from danlu.recipe import ColumnOptions
from danlu.terms import KINDS, MISSING_DATETIME, Column, Table


def column(
    values: Any, kind: Any = None, on_error: Any = "error", use: bool = True, **more: Any
) -> Column:
    return infer_column(
        "age", values, ColumnOptions(kind=kind, on_error=on_error, use=use), "adult.csv", **more
    )


def answers(values: Any, kind: Any = None, **more: Any) -> list[Any]:
    found = column(values, kind, **more)
    return [found.python_value(row) for row in range(len(found))]


# --- the kind ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "2.5", "-3e2"], "number", [1.0, 2.5, -300.0]),
        (["+1", "−2", ".5", "6."], "number", [1.0, -2.0, 0.5, 6.0]),
        (["true", "False", "TRUE"], "boolean", [True, False, True]),
        (["red", "blue", " red "], "category", ["red", "blue", "red"]),
        (["yes", "no"], "category", ["yes", "no"]),
        (
            ["2016-07-01", "2016-07-02 13:05"],
            "datetime",
            ["2016-07-01T00:00:00.000000", "2016-07-02T13:05:00.000000"],
        ),
        ([1, 2.5, None], "number", [1.0, 2.5, None]),
        ([True, False, None], "boolean", [True, False, None]),
        ([datetime.date(2016, 7, 1)], "datetime", ["2016-07-01T00:00:00.000000"]),
        ([[1, 2], [3, 4]], "number", [[1.0, 2.0], [3.0, 4.0]]),
        ([1, "?", 3], "number", [1.0, None, 3.0]),
        (np.array([3, 1], dtype=np.int16), "number", [3.0, 1.0]),
        (np.array([0.5, np.nan], dtype=np.float16), "number", [0.5, None]),
        (np.array([True, False]), "boolean", [True, False]),
        (np.array(["b", "a"]), "category", ["b", "a"]),
        (
            np.array(["2016-07-01", "NaT"], dtype="datetime64[D]"),
            "datetime",
            ["2016-07-01T00:00:00.000000", None],
        ),
        ([f"row number {n} of a long and varied text" for n in range(99)], "text", None),
        ([f"id{n}" for n in range(99)], "text", None),
        ([], "category", []),
        ([None, "", "?"], "category", [None, None, None]),
    ],
)
def test_values_are_read_as_what_they_are(
    values: Any, kind: str, expected: list[Any] | None
) -> None:
    found = column(values)
    assert found.kind == kind
    assert found.reason.startswith(kind)
    assert answers(values) == (list(values) if expected is None else expected)


def test_every_kind_has_the_dtype_that_is_promised() -> None:
    kinds = {
        "number": (["1"], np.float64), "category": (["a"], np.int32), "boolean": (["true", "false"], np.int8),
        "datetime": (["2016-07-01"], np.int64), "text": (["abc"], np.uint8),
    }  # fmt: skip
    assert set(kinds) | {"image", "sequence", "frames", "audio"} == set(KINDS)
    for kind, (values, dtype) in kinds.items():
        found = column(values, kind)
        assert found.values.dtype == dtype
        assert found.offsets is None or found.offsets.dtype == np.int64


@pytest.mark.parametrize("mark", MISSING_MARKS)
def test_a_missing_mark_is_missing_with_spaces_around_it(mark: str) -> None:
    assert answers(["1", f" {mark} ", "3"]) == [1.0, None, 3.0]
    assert answers(["red", mark, "blue"]) == ["red", None, "blue"]
    assert column(["red", mark, "blue"]).is_missing().tolist() == [False, True, False]


def test_the_reason_counts_the_missing_marks() -> None:
    assert '4 missing ("?" 2, "NA" 1)' in column(["1", "?", "?", "NA", ""]).reason


def test_a_text_column_keeps_marks_and_spaces_and_misses_only_what_is_empty() -> None:
    assert answers([" ? ", "NA", "  ", ""], "text") == [" ? ", "NA", None, None]


def test_other_marks_can_be_named() -> None:
    assert answers(["1", "****", "3"], missing=["****"]) == [1.0, None, 3.0]


def test_whole_numbers_with_few_values_stay_numbers_and_say_so() -> None:
    found = column(["1", "2"] * 20)
    assert found.kind == "number"
    assert "only 2 distinct whole numbers" in found.reason


def test_categories_are_in_an_order_that_rows_do_not_change() -> None:
    assert (
        column(["b", "a", "c"]).categories == column(["c", "b", "a"]).categories == ("a", "b", "c")
    )
    assert column(["10", "9", "-1"], "category").categories == ("-1", "9", "10")


@pytest.mark.parametrize("values", [["01234", "98765"], ["007", "12"], ["00", "11"]])
def test_numbers_with_leading_zeros_are_names(values: list[str]) -> None:
    notices: list[str] = []
    found = column(values, notices=notices)
    assert (found.kind, answers(values)) == ("category", values)
    assert "leading zeros" in found.reason
    assert "data.columns.age.kind to number" in notices[0]
    assert column(values, "number").kind == "number"


def test_a_zero_before_a_point_is_no_leading_zero() -> None:
    assert answers(["0.5", "0", "-0.25"]) == [0.5, 0.0, -0.25]


@pytest.mark.parametrize(
    "values",
    [["9007199254740993", "1"], ["9" * 500, "1"], [2**53 + 1, 1], ["123456789012345678901", "1"]],
)
def test_a_whole_number_too_long_to_be_exact_is_a_name(values: list[Any]) -> None:
    assert column(values).kind == "category"
    assert answers(values)[0] == str(values[0])
    assert "too long to be exact" in column(values).reason


def test_a_large_whole_number_that_is_exact_is_a_number() -> None:
    assert answers([str(2**53), str(2**60)]) == [2.0**53, 2.0**60]


def test_typed_strings_are_not_taken_for_numbers() -> None:
    assert answers(["1", "2"], typed=True) == ["1", "2"]
    assert column(["2016-07-01"], typed=True).kind == "datetime"
    assert answers(["1", "2"], "number", typed=True) == [1.0, 2.0]


# --- decimal marks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected", "said"),
    [
        (["1,234.5", "2"], [1234.5, 2.0], "commas mark thousands"),
        (["1.234,5", "2,25"], [1234.5, 2.25], "decimal comma, points mark thousands"),
        (["1,5", "2,25"], [1.5, 2.25], "decimal comma"),
        (["0,123", "0,456"], [0.123, 0.456], "decimal comma"),
        (["1 234", "5"], [1234.0, 5.0], "spaces mark thousands"),
        (["1\u202f234,5", "5"], [1234.5, 5.0], "spaces mark thousands"),
        (["1'234.5", "5"], [1234.5, 5.0], "apostrophes mark thousands"),
        (["1,234,567", "1"], [1234567.0, 1.0], "commas mark thousands"),
        (["1.234.567", "1"], [1234567.0, 1.0], "points mark thousands"),
        (["1.234", "2345.678"], [1.234, 2345.678], "numbers"),
    ],
)
def test_the_convention_is_found_in_the_column(
    values: list[str], expected: list[float], said: str
) -> None:
    notices: list[str] = []
    found = column(values, notices=notices)
    assert found.values.tolist() == expected
    assert said in found.reason
    assert not notices, "nothing was assumed"


@pytest.mark.parametrize(
    ("values", "read"), [(["1,234", "5"], 1234.0), (["1.234", "2.345"], 1.234)]
)
def test_an_open_convention_is_told_as_an_assumption(values: list[str], read: float) -> None:
    notices: list[str] = []
    found = column(values, notices=notices)
    assert found.values[0] == read
    assert "assumed" in found.reason
    assert f'"{values[0]}"' in notices[0]
    other = column(values, decimal="," if read == 1.234 else ".", notices=[])
    assert "assumed" not in other.reason


def test_the_decimal_mark_of_the_file_settles_an_open_column() -> None:
    assert column(["1,234"], decimal=",").values.tolist() == [1.234]
    assert column(["1.234"], decimal=",").values.tolist() == [1234.0]


def test_strictly_a_number_of_two_meanings_is_refused() -> None:
    with pytest.raises(
        DataError, match=r'adult\.csv row 1, column age: "1,234" can be read in two ways'
    ):
        column(["1,234"], "number", strict=True)


def test_values_of_both_conventions_are_not_all_numbers() -> None:
    with pytest.raises(DataError, match='row 12, column age: "2,5" is not a number'):
        column(["1.5"] * 11 + ["2,5"])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=20)
)
def test_numbers_written_by_python_are_read_back_to_the_last_bit(numbers: list[float]) -> None:
    found = infer_column("x", [repr(number) for number in numbers], ColumnOptions(kind="number"))
    assert found.values.tolist() == numbers


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-(10**12), 10**12), min_size=2, max_size=20),
    st.sampled_from([",", " ", "'"]),
)
def test_whole_numbers_with_grouped_digits_are_read_back(numbers: list[int], mark: str) -> None:
    found = infer_column(
        "x",
        [f"{number:,}".replace(",", mark) for number in numbers],
        ColumnOptions(kind="number"),
        decimal=".",
    )
    assert found.values.tolist() == [float(number) for number in numbers]


# --- errors -----------------------------------------------------------------------------------------------------------------


def test_the_message_is_the_one_of_the_plan() -> None:
    values = ["39"] * 1203 + ["thirty"] + ["39"] * 31_357
    with pytest.raises(DataError) as caught:
        column(values)
    assert str(caught.value).split(";")[0] == (
        'adult.csv row 1,204, column age: "thirty" is not a number (the column holds numbers in 32,560 of 32,561 rows).\n'
        "hint: set data.columns.age.on_error to missing, or mend the row"
    )


def test_a_bad_value_can_count_as_missing_and_is_told() -> None:
    notices: list[str] = []
    found = column(["1"] * 20 + ["thirty"], on_error="missing", notices=notices)
    assert np.isnan(found.values[20])
    assert '"thirty"' in notices[0]
    assert '"thirty"' in found.reason


def test_a_column_nobody_uses_stops_nobody() -> None:
    assert column(["1"] * 20 + ["thirty"], use=False).kind == "category"


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        (["one", "2"], "number", 'row 1, column age: "one" is not a number'),
        (["1"] * 20 + ["inf"], None, 'row 21, column age: "inf" is not a number'),
        (["1"] * 20 + ["1e999"], None, 'row 21, column age: "1e999" is not a number'),
        ([1.0, np.inf], None, "row 2, column age: inf is not a finite number"),
        (["yes", "maybe"], "boolean", 'row 2, column age: "maybe" is not true or false'),
        (["2016-07-01", "soon"], "datetime", 'row 2, column age: "soon" is not a date'),
        (["2016-13-01"], "datetime", '"2016-13-01" is not a date'),
        (["2016-02-30"], "datetime", '"2016-02-30" is not a date'),
        (["2016-07-01 25:00"], "datetime", '"2016-07-01 25:00" is not a date'),
        (["03/04/2011"], "datetime", "day first or month first"),
        ([1, 2], "datetime", "numbers are no date-times"),
        ([{"a": 1}], None, "no single value"),
        ([[1, 2], [3]], None, "row 2, column age: a list of 1 numbers"),
        ([[1, 2], None], None, "row 2, column age: no list"),
        ([b"a"], None, "bytes"),
        (["a"], "image", "there is no such file"),
        ([[1, 2]], "category", "each row holds 2 numbers"),
        (np.zeros((2, 2, 2)), None, "no column"),
        (["\ud800"], None, "surrogate"),
        ([object()], None, "no single value"),
    ],
)
def test_what_cannot_be_read_is_refused_by_row_and_column(
    values: Any, kind: Any, words: str
) -> None:
    with pytest.raises(DataError) as caught:
        column(values, kind)
    assert words in str(caught.value)
    assert "column age" in str(caught.value)
    assert caught.value.problem.hint


# --- dates ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        ("2016-07-01T12:30:15.25Z", "2016-07-01T12:30:15.250000"),
        ("2016-07-01T12:30:00+02:00", "2016-07-01T10:30:00.000000"),
        ("2016-07-01 12:30:00 -0530", "2016-07-01T18:00:00.000000"),
        ("2016/7/1", "2016-07-01T00:00:00.000000"),
        ("2016.07.01", "2016-07-01T00:00:00.000000"),
        ("2016年7月1日", "2016-07-01T00:00:00.000000"),
        ("24 October 2011", "2011-10-24T00:00:00.000000"),
        ("Oct 24, 2011 3:05 pm", "2011-10-24T15:05:00.000000"),
        ("24-Oct-2011", "2011-10-24T00:00:00.000000"),
        ("1st March 2012", "2012-03-01T00:00:00.000000"),
        ("2012-02-29", "2012-02-29T00:00:00.000000"),
        ("1066-10-14", "1066-10-14T00:00:00.000000"),
        ("31/12/2011", "2011-12-31T00:00:00.000000"),
        ("12/31/2011 12:00 AM", "2011-12-31T00:00:00.000000"),
        ("31.12.2011", "2011-12-31T00:00:00.000000"),
    ],
)
def test_a_date_with_one_meaning_is_read(value: str, meaning: str) -> None:
    assert answers([value]) == [meaning]


def test_one_value_above_twelve_decides_for_the_column() -> None:
    assert answers(["03/04/2011", "25/06/2011"])[0] == "2011-04-03T00:00:00.000000"
    assert answers(["03/04/2011", "06/25/2011"])[0] == "2011-03-04T00:00:00.000000"


@pytest.mark.parametrize("values", [["03/04/2011", "05/06/2011"], ["25/04/2011", "04/25/2011"]])
def test_dates_that_nothing_decides_stay_as_written(values: list[str]) -> None:
    notices: list[str] = []
    assert answers(values, notices=notices) == values
    assert "day first or month first" in notices[0]


@pytest.mark.parametrize(
    "values", [["2010-11", "2011-12"], ["12:30", "13:45"], ["01/02/03", "04/05/06"]]
)
def test_what_is_no_whole_date_stays_as_written(values: list[str]) -> None:
    assert answers(values) == values


def test_eight_digits_are_a_date_only_when_the_recipe_says_so() -> None:
    assert answers(["20160701"]) == [20160701.0]
    assert answers(["20160701"], "datetime") == ["2016-07-01T00:00:00.000000"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.datetimes(), min_size=1, max_size=20))
def test_dates_written_by_python_are_read_back_to_the_microsecond(
    moments: list[datetime.datetime],
) -> None:
    found = infer_column(
        "x", [moment.isoformat(sep=" ") for moment in moments], ColumnOptions(kind="datetime")
    )
    epoch = datetime.datetime(1970, 1, 1)
    assert found.values.tolist() == [
        (moment - epoch) // datetime.timedelta(microseconds=1) for moment in moments
    ]
    assert MISSING_DATETIME not in found.values


# --- for prediction ---------------------------------------------------------------------------------------------------------

SCHEMA = {"age": {"kind": "number"}, "job": {"kind": "category"}}
EXPECTED = {"age": [31.0, None], "job": ["clerk", "nurse"]}


class Series:
    """As much of a pandas Series as is used."""

    def __init__(self, values: list[Any]) -> None:
        self.values = np.array(values, dtype=object)

    def to_numpy(self, dtype: Any = None) -> np.ndarray:
        return self.values

    def astype(self, dtype: Any) -> Series:
        return self

    def isna(self) -> np.ndarray:
        return np.array([value is None or value != value for value in self.values])

    def where(self, keep: np.ndarray, other: Any) -> Series:
        return Series([value if kept else other for value, kept in zip(self.values, keep)])


class Frame:
    """As much of a pandas DataFrame as is used."""

    def __init__(self, **columns: list[Any]) -> None:
        self.columns = list(columns)
        self.series = [Series(values) for values in columns.values()]
        self.iloc = self

    def isna(self) -> None: ...

    def __getitem__(self, place: tuple[slice, int]) -> Series:
        return self.series[place[1]]


@pytest.mark.parametrize(
    "raw",
    [
        [{"age": 31, "job": "clerk"}, {"age": None, "job": "nurse", "more": 1}],
        [{"age": "31", "job": " clerk"}, {"age": "?", "job": "nurse"}],
        {"job": ["clerk", "nurse"], "age": [31.0, float("nan")], "more": [1, 2]},
        {"age": np.array([31.0, np.nan]), "job": np.array(["clerk", "nurse"])},
        np.array([[31, "clerk"], [None, "nurse"]], dtype=object),
        Frame(more=[1, 2], age=[31, float("nan")], job=["clerk", "nurse"]),
        Table({"job": column(["clerk", "nurse"]), "age": column(["31", ""])}, "rows"),
    ],
)
def test_rows_of_every_form_give_the_same_table(raw: Any) -> None:
    table = read_columns(SCHEMA, raw, "rows")
    assert list(table.columns) == ["age", "job"]
    assert {
        name: [each.python_value(row) for row in range(len(table))]
        for name, each in table.columns.items()
    } == EXPECTED


def test_a_dict_of_single_values_is_one_row() -> None:
    assert len(read_columns(SCHEMA, {"age": 31, "job": "clerk"}, "rows")) == 1


def test_no_row_is_a_table_without_rows() -> None:
    assert len(read_columns(SCHEMA, [], "rows")) == 0


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ([{"Age": 31, "job": "x"}], ("rows row 1", "no column age", "did you mean Age?")),
        ([{"age": 31, "job": "x"}, {"age": 1}], ("rows row 2", "no column job")),
        ({"age": [1], "work": ["x"]}, ("no column job",)),
        ({"age": [1, 2], "job": ["x"]}, ("age has 2, job has 1",)),
        ({"age": [1, 2], "job": "x"}, ("column job is a single value",)),
        (np.zeros((3, 5)), ("(3, 5)", "age, job")),
        ([[1, 2]], ("rows row 1", "list")),
        (7, ("int",)),
        ([{"age": "old", "job": "x"}], ("rows row 1, column age", '"old" is not a number')),
        ([{"age": "1,234", "job": "x"}], ("rows row 1, column age", "two ways")),
        (Frame(age=[1]), ("no column job",)),
    ],
)
def test_rows_that_do_not_fit_are_refused(raw: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        read_columns(SCHEMA, raw, "rows")
    for each in words:
        assert each in str(caught.value)


@pytest.mark.parametrize(
    ("given", "kind", "expected"),
    [
        (column(["3", "4.5"]), "category", ["3", "4.5"]),
        (column(["3", "4.5"]), "text", ["3", "4.5"]),
        (column(["3", "4"], "category"), "number", [3.0, 4.0]),
        (column(["true", "false", ""]), "category", ["true", "false", None]),
        (column(["1", "0"]), "boolean", [True, False]),
        (column(["1", "0"], "text"), "number", [1.0, 0.0]),
        (column(["2016-07-01", ""]), "category", ["2016-07-01 00:00:00.000000", None]),
    ],
)
def test_a_column_of_another_kind_is_read_as_the_one_asked(
    given: Column, kind: str, expected: list[Any]
) -> None:
    table = read_columns({"age": {"kind": kind}}, Table({"age": given}, "rows"), "rows")
    assert [table.columns["age"].python_value(row) for row in range(len(table))] == expected


def test_a_table_keeps_the_names_of_its_rows() -> None:
    table = Table(
        {"age": column(["3", "x"], "category")}, "adult.csv", row_numbers=np.array([7, 9])
    )
    with pytest.raises(DataError, match=r'adult\.csv row 9, column age: "x" is not a number'):
        read_columns({"age": {"kind": "number"}}, table, "rows")


def test_images_come_as_arrays_paths_and_pictures(tmp_path: Path) -> None:
    from PIL import Image

    schema = {"image": {"kind": "image", "shape": [2, 3, 1]}}
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(grey).save(tmp_path / "a.png")
    path = tmp_path / "a.png"
    forms: list[Any] = [
        [{"image": grey}], [{"image": grey.tolist()}], [{"image": str(path)}], [{"image": path}], {"image": str(path)},
        [{"image": Image.fromarray(grey)}], {"image": grey}, {"image": grey[None]}, grey[None], grey[None, ..., None], grey[None].astype(float),
    ]  # fmt: skip
    for raw in forms:
        pixels = read_columns(schema, raw, "rows").columns["image"].values
        assert pixels.dtype == np.uint8
        assert pixels.tolist() == [grey[..., None].tolist()]
    assert read_columns(schema, [{"image": np.full((20, 30), 7)}], "rows").columns[
        "image"
    ].values.tolist() == [[[[7]] * 3] * 2]


@pytest.mark.parametrize(
    "cell",
    [
        None,
        3,
        "nowhere.png",
        np.full((2, 3), 0.5),
        np.full((2, 3), 256),
        np.zeros((2, 3, 4)),
        [[1], [1, 2]],
    ],
)
def test_what_is_no_image_is_refused_by_row_and_column(cell: Any) -> None:
    with pytest.raises(DataError, match="rows row 1, column image"):
        read_columns({"image": {"kind": "image", "shape": [2, 3, 1]}}, [{"image": cell}], "rows")


def test_the_kinds_of_a_schema_can_be_asked_of_a_source() -> None:
    assert column_options(
        {"age": {"kind": "number"}, "photo": {"kind": "image", "shape": [1, 1, 1]}}
    ) == {"age": ColumnOptions(kind="number")}
