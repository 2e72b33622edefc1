"""Text files of any length are read as short ones are, in little memory."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from danlu import registry
from danlu.errors import DataError
from danlu.parts.sources import text
from danlu.reading import files, growing_array
from danlu.recipe import Part
from danlu.terms import Table

CHINESE = "第一回 靈根育孕源流出\n\n心性修持大道生。\n　　詩曰：混沌未分天地亂，茫茫渺渺無人見。\n"
TEXTS = [
    "a\nbb\n\nccc", "a\nbb\n", "\n", "\n\n", "one", "a\r\nb\r\n\r\n", "a\r\nb\r", "a\rb\r\rc", CHINESE, CHINESE * 40 + "完",
    "x" * 100 + "\n" + "é" * 50,
]  # fmt: skip


def build(**options: object) -> Table:
    return registry.build_source(Part("text", text.Config.model_validate(options)), {})


def long(monkeypatch: pytest.MonkeyPatch, block: int = 7, limit: int = 50) -> None:
    """From here on every file is a long one."""
    monkeypatch.setattr(text, "LONG", 0)
    monkeypatch.setattr(files, "_BLOCK", block)
    monkeypatch.setattr(growing_array, "LIMIT", limit)


def assert_same(one: Table, other: Table) -> None:
    for a, b in zip(one.columns.values(), other.columns.values(), strict=True):
        assert a.offsets is not None and b.offsets is not None
        assert (a.values.tobytes(), a.offsets.tolist()) == (b.values.tobytes(), b.offsets.tolist())
    assert (one.notices, one.joined_by, one.row_names, one.files) == (
        other.notices,
        other.joined_by,
        other.row_names,
        other.files,
    )
    for name in ("row_numbers", "file_numbers", "continues", "split"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("unit", ["line", "document"])
@pytest.mark.parametrize("block", [1, 7, 64])
def test_a_long_file_gives_the_rows_of_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, block: int
) -> None:
    for number, content in enumerate(TEXTS):
        (tmp_path / f"{number:02}.txt").write_bytes(content.encode())
    (tmp_path / "zipped.txt.gz").write_bytes(
        gzip.compress(b"a\nb") + gzip.compress(CHINESE.encode()) + b"\0" * 100
    )
    alone = [
        build(path=str(tmp_path / f"{number:02}.txt"), unit=unit) for number in range(len(TEXTS))
    ]
    together = build(path=str(tmp_path), unit=unit)
    long(monkeypatch, block)
    for number, each in enumerate(alone):
        assert_same(each, build(path=str(tmp_path / f"{number:02}.txt"), unit=unit))
    assert_same(together, build(path=str(tmp_path), unit=unit))


def test_rows_of_a_file_go_on_and_files_do_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1\n2\n3\n")
    (tmp_path / "b.txt").write_text("4\n5")
    table = build(path=str(tmp_path))
    assert table.continues is not None and table.continues.tolist() == [
        True,
        True,
        False,
        True,
        False,
    ]
    assert table.joined_by == "\n" and table.where(3) == "b.txt row 1"
    documents = build(path=str(tmp_path), unit="document")
    assert (
        documents.continues is None
        and documents.joined_by == ""
        and documents.columns["text"].text(1) == "4\n5"
    )


@pytest.mark.parametrize("encoding", ["gb18030", "big5hkscs", "utf-16", "utf-8-sig", "utf-32-be"])
@pytest.mark.parametrize("said", [True, False])
def test_a_long_file_is_read_in_its_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, said: bool
) -> None:
    content = "only letters\n" * 30 + CHINESE * 20
    path = tmp_path / "a.txt"
    path.write_bytes(content.encode(encoding))
    options = {"path": str(path), **({"encoding": encoding} if said else {})}
    if encoding == "utf-32-be" and not said:
        pytest.skip("half Chinese text in UTF-32 has too few zeros to be told")
    short = build(**options)
    long(monkeypatch, 1000)
    table = build(**options)
    assert (
        "\n".join(table.columns["text"].text(row) or "" for row in range(len(table))) + "\n"
        == content
    )
    if not said:
        assert_same(short, table)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "empty"),
        (b"ab\ncd\nx\0y", {}, "row 3: byte 8 is NUL"),
        (b"ab\ncd\n\xff\xfe\xff", {"encoding": "utf-8"}, r"line 3 \(byte 7: ff fe\) is not utf-8"),
        (
            "好\n好\n".encode("gb18030") + b"\xff\xff",
            {"encoding": "gb18030"},
            r"line 3 \(byte 7: ff ff\) is not gb18030",
        ),
        (b"ab\n" * 9 + b"\x81", {}, r"line 10 \(byte 28\) is not UTF-8"),
        (b"ab\n" * 9 + "好".encode()[:2], {}, r"line 10"),
    ],
)
def test_what_is_wrong_in_a_long_file_is_named_by_line_and_byte(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    options: dict[str, str],
    message: str,
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    long(monkeypatch, 4)
    with pytest.raises(DataError, match=message):
        build(path=str(path), **options)


def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "LONG", 1 << 20)
    monkeypatch.setattr(growing_array, "LIMIT", 1 << 20)
    path = tmp_path / "a.txt"
    path.write_bytes((("w" * 79 + "\n") * 300_000 + CHINESE * 50_000).encode())
    size = path.stat().st_size
    tracemalloc.start()
    table = build(path=str(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == 300_000 + 4 * 50_000
    # a few blocks of 1 MiB and what they become; the whole text would be several times as much
    assert peak < 10 << 20 < size / 2.5, f"{peak:,} bytes for a file of {size:,}"


def test_a_full_disk_is_told_with_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: object) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(growing_array.tempfile, "TemporaryFile", lambda **options: Full())
    with pytest.raises(DataError, match=r"No space left(?s:.*)TMPDIR"):
        growing_array.GrowingArray(np.uint8, limit=3).append(np.arange(4))


def test_of_much_text_some_rows_tell_whether_there_is_something_to_learn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from danlu.data import preprocessing
    from danlu.recipe import Data
    from danlu.tokenizing.tokenizer import as_column

    data = Data(source=Part("text", text.Config(path="a.txt")))
    varied = as_column([f"row {n % 70} of many words" for n in range(1000)])
    same = as_column(["one and the same"] * 1000)
    names = as_column([f"name{n}" for n in range(1000)])
    asked: list[int] = []
    codes = preprocessing.value_codes
    monkeypatch.setattr(
        preprocessing, "value_codes", lambda column: (asked.append(len(column)), codes(column))[1]
    )
    whole = [preprocessing._refusal(each, data) for each in (varied, same, names)]
    assert (
        whole[0] == "" and "the same value" in whole[1] and "looks like an identifier" in whole[2]
    )
    asked.clear()
    monkeypatch.setattr(preprocessing, "_LOOKED_AT", 2000)
    assert [preprocessing._refusal(each, data) for each in (varied, same, names)] == whole
    assert asked[0] < 200 and max(asked) == 1000, "a refusal is proven on all rows"
