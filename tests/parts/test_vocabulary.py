"""Words of a sentence as tokens: what is known, and what the spelling of the others tells."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from danlu.parts.transforms import vocabulary
from danlu.parts.transforms.vocabulary import Config
from danlu.reading.word_lists import sequence_column, split_words
from danlu.terms import FIRST_TOKEN, PADDING, UNKNOWN, Column


def text(rows: list[str | None]) -> Column:
    data = [(row or "").encode() for row in rows]
    missing = np.array([row is None for row in rows])
    offsets = np.cumsum([0, *map(len, data)]).astype(np.int64)
    return Column(
        "t", "text", np.frombuffer(b"".join(data), dtype=np.uint8), offsets=offsets, missing=missing
    )


def sentences(*rows: str) -> Column:
    return sequence_column("words", [row.split() for row in rows])


def fitted(column: Column, **options: Any) -> tuple[Config, dict[str, Any]]:
    config = Config.model_validate(options)
    return config, vocabulary.fit(config, column)


TRAIN = sentences("the dog saw the cat", "The cat slept", "the bird in 1998 saw 2001 cats")


def test_the_commonest_words_come_first_and_rare_ones_are_unknown() -> None:
    config, state = fitted(TRAIN, codes=[], min_count=2)
    assert state["words"] == [
        "the",
        "0000",
        "cat",
        "saw",
    ]  # years are one word, equals stand by their spelling
    made = vocabulary.apply(config, state, sentences("the cat slept", "new The 1650"))
    assert made.values.tolist() == [
        FIRST_TOKEN,
        FIRST_TOKEN + 2,
        UNKNOWN,
        UNKNOWN,
        FIRST_TOKEN,
        FIRST_TOKEN + 1,
    ]
    assert made.cardinalities == (FIRST_TOKEN + 4,)
    assert made.offsets is not None
    assert made.offsets.tolist() == [0, 3, 6]
    assert state["longest"] == 7
    assert (
        len(
            vocabulary.fit(Config.model_validate({"codes": [], "min_count": 1, "most": 3}), TRAIN)[
                "words"
            ]
        )
        == 3
    )


def test_case_and_digits_are_kept_where_asked() -> None:
    _, state = fitted(TRAIN, codes=[], min_count=1, lower=False, digits=False)
    assert {"the", "The", "1998", "2001"} <= set(state["words"])


def test_codes_stand_beside_the_word() -> None:
    config, state = fitted(
        TRAIN, codes=["shape", "characters", "suffix"], longest_word=6, suffix=2, min_count=1
    )
    made = vocabulary.apply(config, state, sentences("The unbelievable cat"))
    assert made.names == ("word", *["character"] * 6, "suffix", "shape")
    assert len(made.cardinalities) == 9
    assert made.values.shape == (3, 9)
    assert made.values.dtype == np.int32
    assert (made.values < made.cardinalities).all()
    letter = {each: 2 + number for number, each in enumerate(state["letters"])}
    assert made.values[0, 1:7].tolist() == [
        letter["T"],
        letter["h"],
        letter["e"],
        PADDING,
        PADDING,
        PADDING,
    ]
    # of a long word the first and the last half; u, v and y were never seen
    assert made.values[1, 1:7].tolist() == [
        UNKNOWN,
        letter["n"],
        letter["b"],
        letter["b"],
        letter["l"],
        letter["e"],
    ]
    assert made.values[0, 7] == 2 + state["suffixes"].index("he")
    assert made.values[1, 7] == UNKNOWN


def test_shapes_tell_how_a_word_is_written() -> None:
    config, state = fitted(TRAIN, codes=["shape"])
    words = ["dog", "Dog", "DOG", "A", "iPhone", "3.5%", "B2B", "...", "中文"]
    made = vocabulary.apply(config, state, sequence_column("w", [words]))
    small, capital, capitals, mixed, number, digits, marks = (
        made.values[place, 1] for place in (0, 1, 2, 4, 5, 6, 7)
    )
    assert (
        len({int(each) for each in (small, capital, capitals, mixed, number, digits, marks)}) == 7
    )
    assert made.values[3, 1] == capital
    assert made.values[8, 1] == small  # a script without capitals
    assert min(made.values[:, 1]) > UNKNOWN


def test_a_set_of_labels_needs_no_spelling() -> None:
    config, state = fitted(sequence_column("pos", [["NN", "VB", "NN"], ["DT", "UH"]]))
    assert state["codes"] == []
    assert state["words"] == ["NN", "DT", "UH", "VB"]  # all are known, however rare
    made = vocabulary.apply(config, state, sequence_column("pos", [["UH", "XX"]]))
    assert made.values.ndim == 1
    many = sequence_column("words", [[f"w{number % 200:b}" for number in range(800)]])
    config, state = fitted(many, digits=False)
    assert state["codes"] == ["characters", "suffix", "shape"]


def test_a_missing_word_is_unknown_and_a_missing_row_is_empty() -> None:
    config, state = fitted(TRAIN, codes=["characters", "shape"], min_count=1)
    column = sequence_column(
        "words", [["the", None], [], ["cat"]], missing=np.array([False, True, False])
    )
    made = vocabulary.apply(config, state, column)
    assert made.values[1, 0] == UNKNOWN
    assert made.values[1, 1] == UNKNOWN
    assert made.offsets is not None
    assert np.diff(made.offsets).tolist() == [2, 0, 1]
    assert made.is_missing().tolist() == [False, True, False]


def test_what_was_learnt_is_plain_data_and_a_row_alone_gets_what_it_got_among_others() -> None:
    config, state = fitted(TRAIN, min_count=1, codes=["characters", "suffix", "shape"])
    state = json.loads(json.dumps(state))
    whole = vocabulary.apply(config, state, TRAIN)
    assert whole.offsets is not None
    for row in range(3):
        alone = vocabulary.apply(config, state, TRAIN.take(np.array([row])))
        assert np.array_equal(
            alone.values, whole.values[whole.offsets[row] : whole.offsets[row + 1]]
        )
    other = sequence_column("words", [["cat", "saw", "the"]])  # the same words under other codes
    again = vocabulary.apply(config, state, other)
    assert again.values[0].tolist() == whole.values[4].tolist()


@pytest.mark.parametrize(
    ("by", "found"),
    [
        ("words", ["Don't", "stop", ",", "C3PO", "-", "he", "said", ":", "北", "京", "!"]),
        ("spaces", ["Don't", "stop,", "C3PO", "-", "he", "said:", "北京!"]),
    ],
)
def test_a_text_is_split_into_words(by: Any, found: list[str]) -> None:
    column = text(["", "Don't stop, C3PO - he said: 北京!", None, "x"])
    made = split_words(column, by)
    assert [made.python_value(row) for row in range(4)] == [[], found, None, ["x"]]
    config, state = fitted(column, split=by, min_count=1)
    assert (
        vocabulary.apply(config, state, column).values.tolist()
        == vocabulary.apply(config, state, made).values.tolist()
    )
    part = column.take(np.array([1]))
    assert split_words(part, by).python_value(0) == found
