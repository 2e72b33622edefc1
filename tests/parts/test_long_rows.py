"""JSON Lines of any length are read as short ones are, and become tokens, in little memory."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu import registry
from danlu.errors import DataError
from danlu.parts.sources import jsonl
from danlu.reading import files, growing_array
from danlu.recipe import ColumnOptions, Part
from danlu.terms import Table

WORDS = ["furnace", "丹炉", "é", "a longer word", "x" * 40]


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    draw = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for number in range(count):
        text = " ".join(draw.choice(WORDS, size=int(draw.integers(0, 30))).tolist())
        row: dict[str, Any] = {
            "text": text,
            "kind": ["news", "book"][number % 2],
            "score": number / 4,
        }
        row |= {"blank": "  ", "words": ["a", "b"][: number % 3]} | (
            {"late": "seen"} if number > 7 else {}
        )
        found.append(
            row
            | ({"text": None} if number == 5 else {})
            | ({"mixed": number if number % 2 else "two"})
        )
    return found


def written(path: Path, said: list[dict[str, Any]], between: str = "\n") -> Path:
    path.write_text(
        between.join(json.dumps(row, ensure_ascii=False) for row in said), encoding="utf-8"
    )
    return path


def build(
    path: Path | list[str], columns: dict[str, dict[str, Any]] | None = None, **options: Any
) -> Table:
    config = jsonl.Config.model_validate(
        {"path": path if isinstance(path, list) else str(path), **options}
    )
    asked = {name: ColumnOptions.model_validate(each) for name, each in (columns or {}).items()}
    return registry.build_source(Part("jsonl", config), asked)


def long(monkeypatch: pytest.MonkeyPatch, block: int = 64, limit: int = 50) -> None:
    """From here on every file is a long one."""
    monkeypatch.setattr(jsonl, "LONG", 0)
    monkeypatch.setattr(files, "_BLOCK", block)
    monkeypatch.setattr(growing_array, "LIMIT", limit)


def assert_same(one: Table, other: Table) -> None:
    assert list(one.columns) == list(other.columns)
    for a, b in zip(one.columns.values(), other.columns.values(), strict=True):
        assert (a.kind, a.categories, a.names) == (b.kind, b.categories, b.names), a.name
        np.testing.assert_array_equal(a.values, b.values)
        np.testing.assert_array_equal(a.is_missing(), b.is_missing())
        if a.offsets is not None:
            np.testing.assert_array_equal(a.offsets, b.offsets)
    assert [one.where(row) for row in range(len(one))] == [
        other.where(row) for row in range(len(other))
    ]
    assert (one.notices, one.origin) == (other.notices, other.origin)
    np.testing.assert_array_equal(one.split, other.split)


@pytest.mark.parametrize("block", [1, 64, 5000])
def test_a_long_file_gives_the_columns_of_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    path = written(tmp_path / "a.jsonl", rows(90), between="\r\n" if block == 64 else "\n\n")
    columns = {"text": {"kind": "text"}, "kind": {"use": False}}
    short = build(path), build(path, columns)
    long(monkeypatch, block)
    assert_same(short[0], build(path))
    assert_same(short[1], build(path, columns))
    assert short[1].columns["text"].missing is not None and bool(
        short[1].columns["text"].missing[5]
    )


def test_several_files_are_one_table_also_where_columns_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "a.jsonl", rows(40))
    (tmp_path / "b.jsonl.gz").write_bytes(
        gzip.compress("\n".join(json.dumps(row) for row in rows(25, 1)).encode())
    )
    written(tmp_path / "c.jsonl", [{"text": "alone"}, {"score": 2}, {}])
    written(tmp_path / "test.json", rows(9, 2))
    options = {"test": str(tmp_path / "test.json")}
    paths = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl")]
    short = build(paths, {"text": {"kind": "text"}}, **options)
    long(monkeypatch)
    assert_same(short, build(paths, {"text": {"kind": "text"}}, **options))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": "x"}\n{"a": "y"\n', r"row 2: this is not JSON"),
        ('{"a": "x"}\n\n["y"]\n', r"row 3: an array stands where"),
        ('{"a": "x"}\n{"a": {"b": 1}}\n', r"row 2, column a: an object within the object"),
        (
            '{"a": "x"}\n{"a": "\\ud800"}\n',
            r"row 2, column a: the text holds half of a surrogate pair",
        ),
        ('{"a": "x", "a": "y"}\n', r"row 1: the key 'a' stands twice"),
        ("{}\n{}\n", "no key"),
        ("\n\n", "empty"),
    ],
)
def test_what_is_wrong_in_a_long_file_is_named_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    long(monkeypatch, 6)
    with pytest.raises(DataError, match=message):
        build(path)


def test_a_nested_column_that_is_not_used_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(
        tmp_path / "a.jsonl",
        [{"text": f"row {n}", "about": {"n": n} if n % 2 else None} for n in range(50)],
    )
    long(monkeypatch)
    assert list(build(path, {"about": {"use": False}}).columns) == ["text"]


MEASURED = """
import json, sys, threading, time
from pathlib import Path
home = Path(sys.argv[1])
import torch
from danlu import recipe; from danlu.data import documents as corpus; from danlu.data import dataset; from danlu.data import fingerprints; from danlu.data import preprocessing; from danlu import registry as shelf; from danlu.parts.tasks import _token_stream as streams
from danlu.reading import growing_array
from danlu.parts.sources import jsonl, text
from danlu.parts.transforms import tokenize
for module, name in (  # what is held at once: a sixtieth of the corpus here, of one larger than memory less
    (growing_array, "LIMIT"), (jsonl, "LONG"), (text, "LONG"), (fingerprints, "_HELD"), (preprocessing, "_LOOKED_AT"),
    (tokenize, "_MEASURED"), (streams, "_TOGETHER"), (corpus, "_TOGETHER"),
):
    assert getattr(module, name) >= 1 << 20
    setattr(module, name, 1 << 20)
source = sys.argv[2]
read = recipe.read({
    "name": "long", "task": {"name": "language_modeling", "context": 256}, "model": "gpt",
    "data": {"source": source, "transforms": {"text": [{"name": "tokenize", "kind": "bytes"}]}},
}, shelf)
def held():
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(found["RssAnon"].split()[0]) * 1024
small = recipe.read({
    "name": "long", "task": {"name": "language_modeling", "context": 256}, "model": "gpt",
    "data": {"source": sys.argv[3], "transforms": {"text": [{"name": "tokenize", "kind": "bytes"}]}},
}, shelf)
dataset.prepare(small)  # everything that is imported is there
before, peak, done = held(), 0, False
def watch():
    global peak
    while not done:
        peak = max(peak, held())
        time.sleep(0.002)
watcher = threading.Thread(target=watch)
watcher.start()
data = dataset.prepare(read)
done = True
watcher.join()
print(json.dumps({"grown": peak - before, "tokens": data.task.counts["train"], "windows": len(data.splits["train"])}))
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").is_file(),
    reason="/proc/self/status tells how much memory a process holds",
)
@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_a_corpus_larger_than_memory_becomes_tokens_in_little_of_it(
    tmp_path: Path, kind: str
) -> None:
    line = "the furnace burns and 丹炉 is what they call it, " * 20
    for name, count in (("small", 50), ("large", 120_000)):
        said = (f"{number} {line}" for number in range(count))
        content = "\n".join(
            json.dumps({"text": each, "n": 1}, ensure_ascii=False) if kind == "jsonl" else each
            for each in said
        )
        (tmp_path / f"{name}.{kind}").write_text(content, encoding="utf-8")
    size = (tmp_path / f"large.{kind}").stat().st_size
    assert size > 100 << 20
    paths = [str(tmp_path / f"{name}.{kind}") for name in ("large", "small")]
    environment = {
        "DANLU_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path),
        "PATH": "",
        "OMP_NUM_THREADS": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path), *paths],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["tokens"] > 0.85 * size
    # text in memory and its tokens would be 3 times the size; blocks of 4 MiB and what they become
    # are 75 MB, whatever the size
    assert said["grown"] < 0.8 * size, f"{said['grown']:,} bytes for a corpus of {size:,}"
