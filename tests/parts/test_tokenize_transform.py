"""The transform tokenize: rows of text become rows of tokens, cut and framed as asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from danlu import registry, tokenizing
from danlu.data import column_pipeline
from danlu.errors import ArtifactError, DataError
from danlu.parts.transforms import tokenize
from danlu.recipe import Part
from danlu.terms import BEGINNING, END, FIRST_TOKEN, UNKNOWN, Column
from danlu.tokenizing.characters import Characters
from danlu.tokenizing.tokenizer import as_column

TEXTS = ["the cat sat on the mat", "", "好吃，很好！", "the the the", "a", "gone"]


def column(*texts: str) -> Column:
    """A text column; the text 'gone' is missing, its bytes still there."""
    made = as_column(texts)
    lost = np.array([text == "gone" for text in texts])
    return Column("x", "text", made.values, offsets=made.offsets, missing=lost)


def run(texts: list[str], trained: list[str] | None = None, **options: Any) -> list[list[int]]:
    config = tokenize.Config(**options)
    state = tokenize.fit(config, column(*(trained or texts)))
    return rows(tokenize.apply(config, state, column(*texts)))


def rows(made: Column) -> list[list[int]]:
    assert made.offsets is not None and made.kind == "sequence"
    return [
        made.values[made.offsets[row] : made.offsets[row + 1]].tolist() for row in range(len(made))
    ]


def test_a_missing_row_has_no_token_and_an_empty_one_only_its_frame() -> None:
    assert [len(each) for each in run(TEXTS, kind="words", min_count=1)] == [6, 0, 6, 3, 1, 0]
    framed = run(TEXTS, kind="words", min_count=1, beginning=True, end=True)
    assert framed[1] == [BEGINNING, END] and framed[5] == []
    assert [len(each) for each in framed] == [8, 2, 8, 5, 3, 0]
    assert all(each[0] == BEGINNING and each[-1] == END for each in framed[:5])


@pytest.mark.parametrize("kind", ["words", "characters", "bytes", "bpe"])
@pytest.mark.parametrize(
    ("beginning", "end"), [(False, False), (True, False), (False, True), (True, True)]
)
@pytest.mark.parametrize("most", [None, 3, 5])
@pytest.mark.parametrize("block", [2, 1 << 20])
def test_rows_are_cut_from_their_end_and_framed(
    kind: str,
    beginning: bool,
    end: bool,
    most: int | None,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = run(TEXTS, kind=kind, max_length=None, min_count=None if kind == "bytes" else 1)
    monkeypatch.setattr(tokenizing.Tokenizer, "block", block)
    monkeypatch.setattr("danlu.tokenizing.bpe.BytePairs.block", block)
    options = {"kind": kind, "max_length": most, "beginning": beginning, "end": end}
    made = run(TEXTS, **options, min_count=None if kind == "bytes" else 1)
    room = None if most is None else most - beginning - end
    expected = [[BEGINNING] * beginning + codes[:room] + [END] * end for codes in whole[:5]]
    assert made == [*expected, []]


def test_the_column_tells_its_vocabulary_its_longest_row_and_what_is_lost() -> None:
    config = tokenize.Config(kind="words", max_length=4)
    state = tokenize.fit(config, column(*TEXTS))
    made = tokenize.apply(config, state, column(*TEXTS))
    vocabulary = state["tokenizer"]["vocabulary"]
    assert vocabulary == ["the", "好"], "words seen once are unknown"
    assert made.cardinalities == (FIRST_TOKEN + 2,) and made.values.dtype == np.uint16
    assert state["longest"] == 4
    assert state["notice"] == (
        "7 tokens (words); 56.2 % of the training text is none of them; of 33.3 % of the rows only the first 4 are read."
    )
    assert rows(made)[0] == [FIRST_TOKEN, UNKNOWN, UNKNOWN, UNKNOWN]


def test_of_much_text_the_longest_rows_tell_how_long_a_row_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [f"{'word ' * (number % 17)}" for number in range(100)]
    config = tokenize.Config(max_length=None)
    whole = tokenize.fit(config, column(*texts))
    monkeypatch.setattr(tokenize, "_MEASURED", 300)
    assert tokenize.fit(config, column(*texts))["longest"] == whole["longest"] == 16
    monkeypatch.setattr(tokenize, "_MEASURED", 3)
    assert tokenize.fit(config, column(*texts))["longest"] == 16 * 5, "a token a byte at most"


def test_words_are_read_in_lower_case_unless_told_otherwise() -> None:
    assert run(["The the"])[0][0] == run(["The the"])[0][1]
    assert run(["The the"], lower=False, min_count=1)[0] == [FIRST_TOKEN, FIRST_TOKEN + 1]
    assert len(set(run(["Aa"], kind="characters")[0])) == 2
    assert len(set(run(["Aa"], kind="characters", lower=True)[0])) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "file"},
        {"tokenizer": "a.json"},
        {"kind": "bytes", "vocabulary": 300},
        {"kind": "file", "tokenizer": "a.json", "min_count": 2},
        {"kind": "file", "tokenizer": "a.json", "lower": True},
        {"kind": "bpe", "vocabulary": 260},
        {"vocabulary": 5},
        {"max_length": 0},
        {"max_length": 2, "beginning": True, "end": True},
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        tokenize.Config(**options)


def test_a_tokenizer_given_as_a_file_travels_in_the_state(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    made = tokenizing.fit("bpe", column(*TEXTS * 20), 300)
    path.write_text(made.tokenizer_json())  # type: ignore[attr-defined]
    config = tokenize.Config(kind="file", tokenizer=str(path))
    state = tokenize.fit(config, column(*TEXTS))
    path.unlink()
    result = tokenize.apply(config, dict(state), column(*TEXTS))
    assert (
        result.cardinalities == (made.size,)
        and rows(result)[0] == made.encode([TEXTS[0]])[0].tolist()
    )
    with pytest.raises(DataError, match="no such file"):
        tokenize.fit(config, column(*TEXTS))


@pytest.mark.parametrize("kind", ["words", "characters", "bytes", "bpe"])
def test_a_chain_of_tokens_is_stored_and_restored(kind: str) -> None:
    texts = column(*TEXTS * 3)
    chain = column_pipeline.fit_pipeline(
        texts, [Part("tokenize", tokenize.Config(kind=kind))], ("tokens",)
    )  # type: ignore[arg-type]
    assert chain.input_kind == "tokens" and chain.cardinalities and chain.longest > 1
    said = chain.state("", arrays := {})
    schema = column_pipeline.column_schema(texts)
    again = column_pipeline.restore_pipeline(said, schema, "", arrays)
    assert (
        rows(again.run(texts)) == rows(chain.run(texts)) and again.fingerprint == chain.fingerprint
    )
    smaller = {**said, "cardinalities": [chain.cardinalities[0] - 1]}
    with pytest.raises(ArtifactError, match="other tokens"):
        column_pipeline.restore_pipeline(smaller, schema, "", arrays)


def test_two_columns_of_text_have_a_vocabulary_each() -> None:
    one, other = (run([text], kind="characters") for text in ("abc", "wxyz"))
    assert one == [[5, 6, 7]] and other == [[5, 6, 7, 8]]
    assert Characters("abc").encode(["x"])[0].tolist() == [UNKNOWN]


def test_the_tokenizer_of_a_state_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tokenize.Config(kind="bpe")
    states = [tokenize.fit(config, column(*TEXTS)) for _ in range(20)]
    made: list[object] = []
    restore = tokenizing.restore
    monkeypatch.setattr(
        tokenizing, "restore", lambda state: (made.append(state), restore(state))[1]
    )
    for _ in range(3):
        tokenize.apply(config, states[0], column("a"))
    assert len(made) == 1
    for state in states:
        tokenize.apply(config, state, column("a"))
    assert len(tokenize._restored) <= 8
    assert registry.take("transforms", "tokenize") is tokenize
