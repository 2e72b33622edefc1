"""Parallel texts: which files a path names, which lines belong together, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from danlu import registry
from danlu.data import cache
from danlu.errors import DataError
from danlu.parts.sources import parallel_text
from danlu.recipe import Part
from danlu.terms import Table


def part(path: Path | str, **options: str) -> Part:
    return Part("parallel_text", parallel_text.Config(path=str(path), **options))


def texts(table: Table, name: str) -> list[str | None]:
    return [table.columns[name].text(row) for row in range(len(table))]


def write(folder: Path, name: str, lines: list[str]) -> None:
    data = "".join(f"{line}\n" for line in lines).encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


def test_line_n_of_each_file_is_row_n(tmp_path: Path) -> None:
    write(tmp_path, "train.de", ["Hallo Welt", "  Grüß Gott \t", "drei"])
    write(tmp_path, "train.zh", ["你好世界", "您好", "三"])
    table = registry.build_source(part(tmp_path / "train.{de,zh}"), {})
    assert list(table.columns) == ["de", "zh"]
    assert texts(table, "de") == ["Hallo Welt", "Grüß Gott", "drei"]
    assert texts(table, "zh") == ["你好世界", "您好", "三"]
    assert table.where(1) == "train.{de,zh} row 2"


def test_splits_compressed_files_and_folders_as_columns(tmp_path: Path) -> None:
    for side in ("long", "short"):
        (tmp_path / side).mkdir()
        write(tmp_path / side, "train.txt.gz", [f"{side} a", f"{side} b"])
        write(tmp_path / side, "dev.txt", [f"{side} c"])
    path = str(tmp_path / "{long,short}")
    table = registry.build_source(
        part(path + "/train.txt.gz", validation=path + "/dev.txt", test=path + "/dev.txt"), {}
    )
    assert texts(table, "short") == ["short a", "short b", "short c", "short c"]
    assert table.split is not None
    assert table.split.tolist() == [0, 0, 1, 2]
    assert table.where(2) == "dev.txt row 1"


def test_an_empty_line_is_a_missing_value_and_keeps_the_lines_in_step(tmp_path: Path) -> None:
    write(tmp_path, "a.x", ["one", "   ", "", "four"])
    write(tmp_path, "a.y", ["eins", "zwei", "drei", ""])
    table = registry.build_source(part(tmp_path / "a.{x,y}"), {})
    assert texts(table, "x") == ["one", None, None, "four"]
    assert texts(table, "y") == ["eins", "zwei", "drei", None]


def test_any_spaces_are_stripped_as_python_strips_them(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    lines = ["".join(draw.choice(list(" \tab"), int(size))) for size in draw.integers(0, 6, 200)]
    write(tmp_path, "a.x", lines)
    write(tmp_path, "a.y", ["."] * 200)
    table = registry.build_source(part(tmp_path / "a.{x,y}"), {})
    assert [text or "" for text in texts(table, "x")] == [line.strip() for line in lines]


def test_files_of_unequal_length_are_refused_where_the_shorter_one_ends(tmp_path: Path) -> None:
    write(tmp_path, "a.de", ["eins", "zwei", "drei"])
    write(tmp_path, "a.en", ["one", "two"])
    with pytest.raises(DataError, match=r"a\.en row 2.*ends after 2 lines, and a\.de has 3"):
        registry.build_source(part(tmp_path / "a.{de,en}"), {})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a.de", ["eins"])
    with pytest.raises(DataError, match=r"a\.en.*no such file"):
        cache.load_table(part(tmp_path / "a.{de,en}"), {}, use_cache=False)


def test_one_file_without_braces_is_refused_with_the_remedy(tmp_path: Path) -> None:
    write(tmp_path, "a.de", ["eins"])
    with pytest.raises(DataError, match=r"train\.\{de,en\}"):
        registry.build_source(part(tmp_path / "a.de"), {})


@pytest.mark.parametrize(
    "path", ["a.{de,de}", "a.{de}.{en}", "a.{}", "a.{de,}", "a.{de/x,en}", "a.{de", "a.de}"]
)
def test_a_path_whose_braces_name_no_columns_is_refused_before_any_file_is_read(path: str) -> None:
    with pytest.raises(ValidationError, match="one pair of braces"):
        parallel_text.Config(path=path)


def test_other_columns_in_a_split_are_refused() -> None:
    with pytest.raises(ValidationError, match="names the columns de, fr, and path names de, en"):
        parallel_text.Config(path="a.{de,en}", test="b.{de,fr}")


def test_other_columns_over_the_same_files_are_another_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    write(tmp_path, "xaa", ["one"])
    write(tmp_path, "xab", ["two"])
    for path, names in (
        ("x{aa,ab}", ["aa", "ab"]),
        ("xa{a,b}", ["a", "b"]),
        ("x{ab,aa}", ["ab", "aa"]),
    ):
        table, _ = cache.load_table(part(tmp_path / path), {}, use_cache=True)
        assert list(table.columns) == names


def test_a_bare_path_with_braces_means_this_source() -> None:
    assert [registry.source_for(path) for path in ("a.{de,en}", "a.{de,en}.gz", "{de,en}.txt", "a.txt")] == [
        "parallel_text", "parallel_text", "parallel_text", "text",
    ]  # fmt: skip
