"""Column files: sentences, their columns, and what is wrong with a line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from danlu import registry
from danlu.errors import DataError
from danlu.parts.sources import conll
from danlu.reading.columns import read_columns
from danlu.reading.inference import infer_column
from danlu.recipe import ColumnOptions, Part
from danlu.terms import Table

DATA = Path(os.environ.get("DANLU_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
CHUNKS = DATA / "conll2000" / "conll2000"
PLAIN = "He PRP B-NP\nlives VBZ B-VP\n\n\n-DOCSTART- -X- O\n\nIn IN B-PP\nParis NNP B-NP\n. . O"


def read(folder: Path, text: str, name: str = "a.conll", **options: Any) -> Table:
    path = folder / name
    path.write_bytes(text.encode())
    return conll.build(conll.Config.model_validate({"path": str(path), **options}), {})


def rows(table: Table, name: str) -> list[Any]:
    return [table.columns[name].python_value(row) for row in range(len(table))]


def test_a_row_is_a_sentence_and_every_column_a_sequence(tmp_path: Path) -> None:
    table = read(tmp_path, PLAIN)
    assert list(table.columns) == ["word", "column_2", "tag"]
    assert rows(table, "word") == [["He", "lives"], ["In", "Paris", "."]]
    assert rows(table, "tag") == [["B-NP", "B-VP"], ["B-PP", "B-NP", "O"]]
    assert all(column.kind == "sequence" for column in table.columns.values())
    assert table.where(1) == "a.conll row 2"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n\n"])
def test_line_ends_and_what_follows_the_last_change_nothing(
    tmp_path: Path, newline: str, end: str
) -> None:
    table = read(tmp_path, (PLAIN + end).replace("\n", newline))
    assert rows(table, "word") == [["He", "lives"], ["In", "Paris", "."]]


def test_columns_between_tabs_may_hold_spaces(tmp_path: Path) -> None:
    table = read(tmp_path, "New York\tB-LOC\nis\tO\n", columns=["place", "tag"])
    assert rows(table, "place") == [["New York", "is"]]
    with pytest.raises(DataError, match="3 columns between white space, not 2"):
        read(tmp_path, "is O\nNew York B-LOC\n", columns=["place", "tag"])


def test_a_line_with_too_few_columns_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'lives VBZ' has 2 columns between white space, not 3"
    ) as caught:
        read(tmp_path, "He PRP B-NP\nlives VBZ\n")
    assert caught.value.problem.where == "a.conll line 2"
    with pytest.raises(DataError, match="no word"):
        read(tmp_path, "\n\n")
    with pytest.raises(DataError, match="same name"):
        read(tmp_path, PLAIN, columns=["a", "b", "a"])


def test_universal_dependencies_are_read_without_joinings_and_comments(tmp_path: Path) -> None:
    lines = [
        "# text = vámonos al mar",
        "1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_",
        "1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\t_",
        "2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_",
        "2.1\tellipsis\t_\t_\t_\t_\t_\t_\t_\t_",
        "3\t#\tal\tADP\t_\t_\t1\tcase\t_\t_",
    ]
    table = read(tmp_path, "\n".join(lines), "a.conllu")
    assert list(table.columns) == list(conll.CONLLU)
    assert rows(table, "form") == [["vamos", "nos", "#"]]
    assert rows(table, "upos") == [["VERB", "PRON", "ADP"]]


def test_files_of_splits_stand_one_below_the_other(tmp_path: Path) -> None:
    (tmp_path / "t.conll").write_text("a X\n\nb Y\n")
    table = read(tmp_path, "c X\n", "train.conll", test=str(tmp_path / "t.conll"))
    assert rows(table, "word") == [["c"], ["a"], ["b"]]
    assert table.split is not None
    assert table.split.tolist() == [0, 2, 2]
    assert table.where(2) == "t.conll row 2"
    assert [each.name for each in conll.files(conll.Config(path=str(tmp_path)))] == [
        "t.conll",
        "train.conll",
    ]


def test_a_file_to_answer_may_lack_the_last_columns(tmp_path: Path) -> None:
    table = read(tmp_path, "He PRP\n", columns=["word", "pos", "chunk"])
    assert list(table.columns) == ["word", "pos"]
    (tmp_path / "t.conll").write_text("He PRP\n")
    with pytest.raises(DataError, match=r"t.conll: the file has 2 columns, and a.conll has 3"):
        read(tmp_path, PLAIN, test=str(tmp_path / "t.conll"))
    with pytest.raises(DataError, match="4 columns between white space, not 3"):
        read(tmp_path, "a b c d\n", columns=["word", "pos", "chunk"])


def test_endings_mean_this_source_and_columns_keep_their_kind(tmp_path: Path) -> None:
    assert registry.source_for("corpus/ner.bio") == "conll"
    path = tmp_path / "a.conll"
    path.write_text(PLAIN)
    part = Part("conll", conll.Config(path=str(path)))
    with pytest.raises(DataError, match="so it is a sequence, not category"):
        registry.build_source(part, {"tag": ColumnOptions(kind="category")})


def test_lists_of_words_are_sequences_wherever_they_come_from() -> None:
    column = infer_column("w", [["a", "b"], [], None, ["c", None, "a"]])
    assert [column.python_value(row) for row in range(4)] == [
        ["a", "b"],
        [],
        None,
        ["c", None, "a"],
    ]
    assert infer_column("w", [[1, 2], [3]], ColumnOptions(kind="sequence")).python_value(0) == [
        "1",
        "2",
    ]
    asked = {"w": {"kind": "sequence"}}
    assert read_columns(asked, [{"w": "He lives."}], "rows").columns["w"].python_value(0) == [
        "He",
        "lives",
        ".",
    ]
    assert read_columns(asked, [{"w": ["He", "lives."]}], "rows").columns["w"].python_value(0) == [
        "He",
        "lives.",
    ]
    with pytest.raises(DataError, match="a list of words, which is no number"):
        infer_column("w", [["a"]], ColumnOptions(kind="number"))
    with pytest.raises(DataError, match="a sequence is a list of words or a text"):
        infer_column("w", [1, 2], ColumnOptions(kind="sequence"))


@pytest.mark.skipif(not CHUNKS.is_dir(), reason=f"there is no {CHUNKS}: set DANLU_DATA")
def test_conll2000_is_read_whole() -> None:
    config = conll.Config(
        path=str(CHUNKS / "train.txt"),
        test=str(CHUNKS / "test.txt"),
        columns=["word", "pos", "chunk"],
    )
    table = conll.build(config, {})
    assert table.split is not None
    assert [int((table.split == code).sum()) for code in (0, 2)] == [8_936, 2_012]
    assert {name: len(column.values) for name, column in table.columns.items()} == dict.fromkeys(
        ("word", "pos", "chunk"), 259_104
    )
