"""How the layout of a delimited text is found: delimiter, quote, header, lines around the table."""

from __future__ import annotations

import pytest

from danlu.errors import DataError
from danlu.parts.sources._csv_dialect import DialectOptions, Layout, find_layout
from danlu.parts.sources._csv_records import fields, scan


def layout(text: str, **options: object) -> Layout:
    return find_layout(text.encode(), "a.csv", DialectOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2,5\n", ";"),
        ("a\tb\n1\t2\n", "\t"),
        ("a|b\n1|2\n", "|"),
        ('a,b\n"1;5","2;5"\n', ","),
    ],
)
def test_the_delimiter_is_the_one_that_cuts_all_rows_alike(text: str, delimiter: str) -> None:
    found = layout(text)
    assert (found.delimiter, found.names, len(found.rows)) == (delimiter, ["a", "b"], 1)


def test_a_column_of_words_has_no_delimiter() -> None:
    found = layout("name\nred\nblue\n")
    assert (found.delimiter, found.names, len(found.rows)) == ("", ["name"], 2)


def test_a_title_above_the_table_is_skipped_and_told() -> None:
    found = layout("Sales of 2020\n\na,b,c\n1,2,3\n4,5,6\n")
    assert found.names == ["a", "b", "c"]
    assert len(found.rows) == 2
    assert "1 line above the table left out (Sales of 2020)" in found.notices[0]


def test_a_column_that_the_recipe_names_makes_the_first_row_the_header() -> None:
    assert layout("7,8\n1,2\n").names == ["column_1", "column_2"]
    assert layout("7,8\n1,2\n", column_names=frozenset({"8"})).names == ["7", "8"]


def test_rows_of_another_length_are_refused_by_row() -> None:
    with pytest.raises(DataError, match=r"a\.csv row 3"):
        layout("a,b\n1,2\n3\n5,6\n", delimiter=",")


def test_records_keep_line_ends_inside_quotes() -> None:
    content = b'a,b\r\n"x\ny",2\r\n'
    records = scan(content, ",", '"')
    assert (records.fields.tolist(), records.lines.tolist()) == ([2, 2], [1, 2])
    one_by_one = list(fields(content, ",", '"', "", "a.csv"))
    assert [cells for *_, cells in one_by_one] == [["a", "b"], ["x\ny", "2"]]
    assert [start for start, *_ in one_by_one] == records.starts.tolist()
