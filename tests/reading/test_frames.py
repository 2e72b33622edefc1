"""Lists of lists of numbers are frames, wherever they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu import registry
from danlu.errors import DataError
from danlu.reading.columns import read_columns
from danlu.recipe import ColumnOptions, Part
from danlu.terms import Column

ROWS: list[Any] = [[[1, 2.5], [3, 4], [5, 6]], [], None, [[7, 8]], [[0, -1], [1e3, 2]]]


def rows(column: Column) -> list[Any]:
    assert (
        column.kind == "frames" and column.offsets is not None and column.values.dtype == np.float32
    )
    found = [
        column.values[column.offsets[row] : column.offsets[row + 1]].tolist()
        for row in range(len(column))
    ]
    return [None if lost else each for each, lost in zip(found, column.is_missing(), strict=True)]


def source(path: Path, columns: dict[str, ColumnOptions] | None = None) -> Column:
    name = {".jsonl": "jsonl", ".parquet": "parquet"}[path.suffix]
    config = registry.config("sources", name).model_validate({"path": str(path)})
    return registry.build_source(Part(name, config), columns or {}).columns["x"]


def test_json_lines_and_parquet_hold_frames(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"x": each, "y": 1}) + "\n" for each in ROWS)
    )
    parquet.write_table(pa.table({"x": ROWS}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        found = source(tmp_path / name)
        assert (
            rows(found) == ROWS
            and found.names == ("x_0", "x_1")
            and found.reason.startswith("frames")
        )
        assert found.values.flags.writeable


def test_a_row_to_predict_holds_frames_in_every_form() -> None:
    schema = {"x": {"kind": "frames", "width": 2}}
    matrix = np.arange(6.0).reshape(3, 2)
    for raw in (
        [{"x": matrix.tolist()}],
        [{"x": matrix}],
        {"x": [matrix]},
        {"x": matrix[None]},
        {"x": np.stack([matrix, matrix])},
    ):
        table = read_columns(schema, raw, "the rows given")
        assert rows(table.columns["x"])[0] == matrix.tolist()
    assert rows(read_columns(schema, [{"x": None}, {"x": [[1, 2]]}], "r").columns["x"]) == [
        None,
        [[1, 2]],
    ]
    assert rows(
        read_columns({"x": {"kind": "frames", "width": 1}}, [{"x": [1, 2, 3]}], "r").columns["x"]
    ) == [[[1], [2], [3]]]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            [[[1, 2]], [[3, 4], [5]]],
            "row 2, column x: a moment has 1 numbers, and the column.s first has 2",
        ),
        ([[[1, 2]], [[3, None]]], "row 2, column x: moment 1 holds a number that is missing"),
        (
            [[[1, 2], [3, 4]], [[1, 2], [3, float("inf")]]],
            "row 2, column x: moment 2 holds a number that is missing or not finite",
        ),
        ([[[1, 2]], [["a", "b"]]], "row 2, column x: this is not a list of lists of numbers"),
        ([[["a", "b"]]], "not numbers"),
    ],
)
def test_what_is_no_frame_is_named_by_its_row(
    tmp_path: Path, cells: list[Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_columns(
            {"x": {"kind": "frames", "width": 2}}, [{"x": each} for each in cells], "the rows given"
        )
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"x": each}) + "\n" for each in cells))
    with pytest.raises(DataError, match=r"a\.jsonl"):
        source(path)


def test_lists_of_numbers_stay_numbers_unless_frames_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": [1, 2]}\n{"x": [3, 4]}\n')
    assert source(path).kind == "number"
    assert rows(source(path, {"x": ColumnOptions(kind="frames")})) == [[[1], [2]], [[3], [4]]]
