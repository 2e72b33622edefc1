"""Tokens of much text are made once, kept memory-mapped, and never taken for those of another text or tokenizer."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from danlu import recipe, registry
from danlu.data import cache, dataset, preprocessing
from danlu.parts.sources import text
from danlu.parts.transforms import tokenize
from danlu.reading import growing_array
from danlu.terms import Column

LINES = [
    f'{"good" if n % 2 else "bad"},"line {n} of {"a fine" if n % 2 else "an awful"} text, 味道 {n % 7}"'
    for n in range(60)
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(preprocessing, "_COSTLY", 0)
    return tmp_path / "cache" / "columns"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows were tokenized by each whole run of the transform (those of one row only try it
    out)."""
    seen: list[int] = []
    apply = tokenize.apply

    def counted(config: Any, state: Any, column: Column) -> Column:
        if len(column) > 3:
            seen.append(len(column))
        return apply(config, state, column)

    monkeypatch.setattr(tokenize, "apply", counted)
    return seen


def prepared(
    path: Path, lines: list[str] = LINES, use_cache: bool = True, **options: Any
) -> dataset.Dataset:
    path.write_text("label,review\n" + "\n".join(lines) + "\n")
    said = {
        "task": "classification",
        "data": {
            "source": {"name": "csv", "path": str(path)},
            "target": "label",
            "columns": {"review": {"kind": "text"}},
            "transforms": {"text": [{"name": "tokenize", **options}]},
            "cache": use_cache,
        },
        "model": "text_cnn",
    }
    return dataset.prepare(recipe.read(said, registry))


def tokens(found: dataset.Dataset) -> tuple[bytes, tuple[int, ...]]:
    field = found.arrays["tokens"]
    return field.values.tobytes(), tuple(field.offsets.tolist())


def test_tokens_are_made_once_for_all_starts(home: Path, tmp_path: Path, made: list[int]) -> None:
    first = prepared(tmp_path / "a.csv")
    assert made == [60] and len(list(home.iterdir())) == 1
    second = prepared(tmp_path / "a.csv")
    assert made == [60], "the second start tokenizes nothing"
    assert tokens(first) == tokens(second)
    assert second.arrays["tokens"].values.dtype == np.uint16
    plain = prepared(tmp_path / "a.csv", use_cache=False)
    assert made == [60, 60] and tokens(plain) == tokens(first)


def test_another_text_or_tokenizer_has_tokens_of_its_own(
    home: Path, tmp_path: Path, made: list[int]
) -> None:
    first = prepared(tmp_path / "a.csv")
    others = [
        prepared(tmp_path / "a.csv", [line.replace("59", "58") for line in LINES]),
        prepared(tmp_path / "a.csv", kind="characters"),
        prepared(tmp_path / "a.csv", max_length=3),
        prepared(tmp_path / "a.csv", vocabulary=9),
    ]
    assert len(made) == 5 and len(list(home.iterdir())) == 5
    assert len({tokens(each) for each in [first, *others]}) == 5
    assert tokens(prepared(tmp_path / "a.csv")) == tokens(first) and len(made) == 5


def test_damaged_tokens_are_made_again(home: Path, tmp_path: Path, made: list[int]) -> None:
    first = tokens(prepared(tmp_path / "a.csv"))
    (folder,) = home.iterdir()
    values = folder / "0.values.bin"
    for damage in (b"\xff" + values.read_bytes()[1:], values.read_bytes()[:-1], b""):
        values.write_bytes(damage)
        assert tokens(prepared(tmp_path / "a.csv")) == first
    assert len(made) == 4
    (folder / "manifest.json").unlink()
    assert tokens(prepared(tmp_path / "a.csv")) == first and len(made) == 5


def test_a_cache_that_cannot_be_written_is_done_without(
    home: Path, tmp_path: Path, made: list[int]
) -> None:
    first = prepared(tmp_path / "a.csv", use_cache=False)
    home.parent.write_text("a file, where the folder should be")
    assert tokens(prepared(tmp_path / "a.csv")) == tokens(first)


def test_a_killed_writer_leaves_nothing_that_is_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = Column(
        "x",
        "sequence",
        np.arange(5, dtype=np.uint16),
        offsets=np.array([0, 2, 5]),
        cardinalities=(9,),
    )

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as inner:
        inner.setattr(cache.atomic_files, "rename_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            cache.cached_column({"key": 1}, lambda: column)
    calls: list[int] = []
    found = cache.cached_column({"key": 1}, lambda: (calls.append(1), column)[1])
    assert calls == [1] and found.values.tolist() == [0, 1, 2, 3, 4] and found.cardinalities == (9,)
    assert [each.name for each in home.iterdir() if not each.name.startswith(".")] == [
        next(home.glob("[!.]*")).name
    ]


@pytest.mark.parametrize("unit", ["line", "document"])
@pytest.mark.parametrize("kind", ["characters", "words", "bytes"])
def test_a_corpus_is_read_and_tokenized_in_memory_that_does_not_grow_with_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, kind: str
) -> None:
    monkeypatch.setattr(text, "LONG", 1 << 18)
    monkeypatch.setattr(growing_array, "LIMIT", 1 << 18)
    monkeypatch.setattr("danlu.tokenizing.Tokenizer.block", 1 << 16)
    monkeypatch.setattr(tokenize, "_MEASURED", 1 << 18)
    path = tmp_path / "a.txt"
    path.write_bytes(
        (("wordy words " * 20 + "\n") + "第一回，靈根育孕源流出" * 20 + "\n").encode() * 20_000
    )
    size = path.stat().st_size
    config = tokenize.Config(kind=kind, max_length=None)  # type: ignore[arg-type]
    tokenize.fit(
        config,
        registry.build_source(recipe.Part("text", text.Config(path=__file__)), {}).columns["text"],
    )  # tables made
    tracemalloc.start()
    table = registry.build_source(recipe.Part("text", text.Config(path=str(path), unit=unit)), {})  # type: ignore[arg-type]
    state = tokenize.fit(config, table.columns["text"])
    found = cache.cached_column(
        {"kind": kind}, lambda: tokenize.apply(config, state, table.columns["text"])
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.values) > 5_000_000
    # blocks of 64 KiB to 1 MiB, their code points and counts; the tokens alone would be 10 MB and
    # more, the text 18 MB
    assert peak < 11 << 20 < size / 1.5, f"{peak:,} bytes for a text of {size:,}"
