"""The source csv: delimiters, headers, decimal marks, and real files read whole."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from danlu import registry
from danlu.recipe import ColumnOptions, Options, Part
from danlu.terms import Table

DATA = Path(os.environ.get("DANLU_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def config(source: str, **options: Any) -> Options:
    return registry.config("sources", source).model_validate(options)


def build(source: str, columns: dict[str, ColumnOptions] | None = None, **options: Any) -> Table:
    return registry.build_source(Part(source, config(source, **options)), columns or {})


def values(table: Table, name: str) -> list[Any]:
    return [table.columns[name].python_value(row) for row in range(len(table))]


def csv(
    text: str | bytes,
    folder: Path,
    name: str = "data.csv",
    columns: dict[str, ColumnOptions] | None = None,
    **options: Any,
) -> Table:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return build("csv", columns, path=str(path), **options)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_and_told(delimiter: str, tmp_path: Path) -> None:
    rows = [["name", "size", "note"], ["a b", "1.5", "x"], ["c", "2.5", "y z"], ["d", "", "q"]]
    table = csv("\n".join(delimiter.join(row) for row in rows), tmp_path)
    assert values(table, "size") == [1.5, 2.5, None]
    word = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}[delimiter]
    assert f"3 columns separated by {word}" in table.notices[0]


def test_semicolons_win_over_the_commas_inside_numbers(tmp_path: Path) -> None:
    assert values(csv("1,5;2,5\n3,5;4,5\n", tmp_path), "column_2") == [2.5, 4.5]


def test_semicolons_win_where_the_commas_of_numbers_give_every_row_as_many_fields(
    tmp_path: Path,
) -> None:
    table = csv("v;c;y\n6,10;b;12,19\n3,16;b;6,32\n1,33;a;2,66\n", tmp_path)
    assert (values(table, "v"), values(table, "y")) == ([6.1, 3.16, 1.33], [12.19, 6.32, 2.66])


def test_rows_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    table = csv('Report\n\na,b,c,d\n1,"x\ny",3,4\n5,6,7,8\n', tmp_path)
    assert [table.where(row) for row in range(len(table))] == ["data.csv row 4", "data.csv row 5"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b\n1,2\n", ["a", "b"]),
        ("1,2\n3,4\n", ["column_1", "column_2"]),
        ("red,1\nblue,2\nred,3\n", ["column_1", "column_2"]),
        ("colour,kind\nred,x\nblue,y\n", ["colour", "kind"]),
        ("a,2011\nx,5\ny,6\nx,7\ny,8\nx,9\ny,3\n", ["a", "2011"]),
        ("100\n1\n2\n3\n", ["column_1"]),
        ("x,9\ny,5\nz,6\n", ["column_1", "column_2"]),
        (",x\n1,2\n3,4\n", ["column_1", "x"]),
        ("?,1\n3,2\n4,5\n", ["column_1", "column_2"]),
    ],
)
def test_whether_there_is_a_header_is_told_by_the_rows(
    text: str, names: list[str], tmp_path: Path
) -> None:
    assert list(csv(text, tmp_path).columns) == names


def test_a_name_the_recipe_knows_makes_a_row_the_header(tmp_path: Path) -> None:
    known = {"2011": ColumnOptions(kind="number")}
    assert list(csv("2010,2011\n2012,2013\n", tmp_path).columns) == ["column_1", "column_2"]
    assert values(csv("2010,2011\n2012,2013\n", tmp_path, columns=known), "2011") == [2013.0]


def test_names_can_be_given_and_a_first_row_that_repeats_them_is_no_row(tmp_path: Path) -> None:
    assert values(csv("1,2\n3,4\n", tmp_path, header=["p", "q"]), "q") == [2.0, 4.0]
    assert values(csv("p,q\n3,4\n", tmp_path, header=["p", "q"]), "q") == [4.0]
    assert values(csv("p,q\nr,s\n", tmp_path, header=False), "column_1") == ["p", "r"]


def test_lines_above_and_below_can_be_left_out_by_number(tmp_path: Path) -> None:
    assert values(
        csv("x,y\nz,w\na,b\n1,2\n3,4\nend,end\n", tmp_path, skip_rows=2, skip_end=1), "a"
    ) == [1.0, 3.0]


def test_an_open_decimal_mark_follows_the_other_columns(tmp_path: Path) -> None:
    assert values(csv("a;b\n1,234;0,5\n2,345;1,25\n", tmp_path), "a") == [1.234, 2.345]
    assert values(csv("a;b\n1,234;0.5\n2,345;1.25\n", tmp_path), "a") == [1234.0, 2345.0]
    assert values(csv("a;b\n1,234;x\n2,345;y\n", tmp_path, decimal=","), "a") == [1.234, 2.345]


def test_what_many_columns_share_is_told_once(tmp_path: Path) -> None:
    row = ";".join(["1,234"] * 9)
    notices = csv(";".join("abcdefghi") + f"\n{row}\n{row}\n", tmp_path).notices
    assert len([notice for notice in notices if "Nothing in the column decides it" in notice]) == 1
    assert "8 more columns" in " ".join(notices)


def test_columns_in_another_order_are_put_in_place_by_name(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("b,a\n9,8\n")
    table = csv("a,b\n1,2\n", tmp_path, test=str(tmp_path / "test.csv"))
    assert (values(table, "a"), values(table, "b")) == ([1.0, 8.0], [2.0, 9.0])


def test_points_after_the_labels_of_the_test_file_are_told_and_can_be_cut(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("a,y\n1,no.\n2,yes.\n")
    table = csv("a,y\n3,no\n4,yes\n", tmp_path, test=str(tmp_path / "test.csv"))
    assert "set data.source.trim to {y: '.'}" in table.notices[-1]
    table = csv("a,y\n3,no\n4,yes\n", tmp_path, test=str(tmp_path / "test.csv"), trim={"y": "."})
    assert table.columns["y"].categories == ("no", "yes")
    assert "trim" not in " ".join(table.notices)


@pytest.mark.parametrize(
    "options",
    [
        {"delimiter": "ab"}, {"delimiter": '"'}, {"quote": "''"}, {"encoding": "klingon"}, {"encoding": "hex"}, {"header": []},
        {"header": ["a", "a"]}, {"skip_rows": -1}, {"decimal": "x"}, {"comment": "##"}, {"missing": "x"},
    ],
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config("csv", path="x.csv", **options)


def test_a_regular_text_and_the_same_text_read_field_by_field_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from danlu.parts.sources import _csv_records as records

    rng = np.random.default_rng(5)
    cells = ["", "x", 'say "x"', "a,b", "two\nlines", " space ", "é", "1.5", "\u3000全角", "'"]
    rows = [[cells[n] for n in rng.integers(0, len(cells), 4)] for _ in range(300)]
    text = "a,b,c,d\r\n" + "".join(
        ",".join(
            '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n') else cell for cell in row
        )
        + "\r\n"
        for row in rows
    )
    columns = {name: ColumnOptions(kind="text") for name in "abcd"}
    fast = csv(text, tmp_path, columns=columns)
    monkeypatch.setattr(records, "table", lambda *given: None)
    slow = csv(text, tmp_path, columns=columns)
    filled = [row for row in rows if any(row)]
    for number, name in enumerate("abcd"):
        expected = [row[number] if row[number].strip() else None for row in filled]
        assert values(fast, name) == values(slow, name) == expected


# --- csv: real files ------------------------------------------------------------------------------------------------------------

ADULT = [
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship", "race", "sex",
    "capital_gain", "capital_loss", "hours_per_week", "native_country", "income",
]  # fmt: skip


@pytest.mark.skipif(
    not (DATA / "adult").is_dir(), reason=f"there is no {DATA / 'adult'}: set DANLU_DATA"
)
def test_adult_is_read_whole_with_its_official_test_file() -> None:
    options = {
        "path": str(DATA / "adult/adult.data"),
        "test": str(DATA / "adult/adult.test"),
        "header": ADULT,
        "trim": {"income": "."},
    }
    table = build("csv", **options)
    assert table.split is not None
    assert [int((table.split == code).sum()) for code in (0, 1, 2)] == [32_561, 0, 16_281]
    assert table.columns["income"].categories == ("<=50K", ">50K")
    assert int((table.columns["income"].values[:32_561] == 1).sum()) == 7_841
    missing = {
        name: int(column.is_missing().sum())
        for name, column in table.columns.items()
        if column.is_missing().any()
    }
    assert missing == {"workclass": 2_799, "occupation": 2_809, "native_country": 857}
    assert [table.columns[name].python_value(0) for name in ("age", "workclass", "fnlwgt")] == [
        39.0,
        "State-gov",
        77_516.0,
    ]
    assert table.where(32_561) == "adult.test row 2"
    assert {name for name, column in table.columns.items() if column.kind == "number"} == {
        "age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week",
    }  # fmt: skip


@pytest.mark.skipif(
    not (DATA / "california_housing").is_dir(),
    reason=f"there is no {DATA / 'california_housing'}: set DANLU_DATA",
)
def test_california_housing_is_read_to_the_last_bit() -> None:
    path = DATA / "california_housing/housing.csv"
    table = build("csv", path=str(path))
    lines = path.read_text().splitlines()
    names = lines[0].split(",")
    assert list(table.columns) == names
    for number, name in enumerate(names[:-1]):
        expected = [float(line.split(",")[number] or "nan") for line in lines[1:]]
        np.testing.assert_array_equal(table.columns[name].values, expected)
    assert int(table.columns["total_bedrooms"].is_missing().sum()) == 207
    assert table.columns["ocean_proximity"].categories == (
        "<1H OCEAN",
        "INLAND",
        "ISLAND",
        "NEAR BAY",
        "NEAR OCEAN",
    )


@pytest.mark.skipif(
    not (DATA / "sst2").is_dir(), reason=f"there is no {DATA / 'sst2'}: set DANLU_DATA"
)
def test_sentences_of_sst2_are_kept_letter_by_letter() -> None:
    path = DATA / "sst2/dev.tsv"
    table = build("csv", path=str(path))
    lines = path.read_text("utf-8").split("\n")[1:-1]
    assert values(table, "sentence") == [line.split("\t")[0] for line in lines]
    assert values(table, "label") == [float(line.split("\t")[1]) for line in lines]


@pytest.mark.skipif(
    not (DATA / "ett").is_dir(), reason=f"there is no {DATA / 'ett'}: set DANLU_DATA"
)
def test_the_hours_of_ett_are_one_hour_apart() -> None:
    moments = build("csv", path=str(DATA / "ett/ETTh1.csv")).columns["date"].values
    assert set(np.diff(moments).tolist()) == {3_600_000_000}
