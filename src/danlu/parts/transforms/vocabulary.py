"""Words as tokens: the code of each word in a vocabulary, and codes of its spelling.

The vocabulary holds the words of the training rows, most frequent first; every other word becomes
the unknown token. Beside the word a position may hold codes of its spelling, which describe words
that are not in the vocabulary:

  characters   its letters, for a small convolution (`longest_word` of them; of a longer word the
               first and the last half of that)
  suffix       its last `suffix` letters
  shape        how it is written: small, Capital, CAPITALS, miXed, with digits, number, punctuation

codes: auto uses all three, but none for a vocabulary of at most 100 words, which are labels rather
than language. A text is split into words first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from danlu.reading.word_lists import split_words
from danlu.recipe import Options
from danlu.terms import FIRST_TOKEN, PADDING, UNKNOWN, Column

TAKES = ("sequence", "text")
Code = Literal["characters", "suffix", "shape"]
ALL_CODES: tuple[Code, ...] = ("characters", "suffix", "shape")
FEW = 100  # a vocabulary of at most so many words counts as a set of labels
SHAPES = 9  # padding, unknown, and the seven of _shape
_FIRST = 2  # first code of letters, endings and shapes: 0 is padding, 1 unknown


class Config(Options):
    """Which words enter the vocabulary, and which codes of the spelling are added."""

    lower: bool = Field(
        True, description="Convert words to lower case (characters and shape still see capitals)."
    )
    digits: bool = Field(
        True, description="Replace every digit of a word by 0, so that all years are one word."
    )
    min_count: int = Field(
        2,
        ge=1,
        description="How often a word must occur in the training rows to enter the vocabulary.",
    )
    most: int = Field(
        100_000,
        ge=1,
        le=10_000_000,
        description="Most words of the vocabulary; the most frequent are kept.",
    )
    codes: list[Code] | Literal["auto"] = Field(
        "auto", description="Codes of the spelling: characters, suffix, shape."
    )
    longest_word: int = Field(16, ge=2, le=256, description="Most letters per word in characters.")
    suffix: int = Field(3, ge=1, le=16, description="Letters per word in suffix.")
    split: Literal["words", "spaces"] = Field(
        "words", description="How text is split into words: at word boundaries, or only at spaces."
    )


def fit(config: Config, column: Column) -> dict[str, Any]:
    """The vocabularies of words, letters and suffixes, most frequent first, and the length of the
    longest row."""
    column = _as_words(config, column)
    assert column.offsets is not None
    codes = np.asarray(column.values)
    counts = np.bincount(codes[codes >= 0], minlength=len(column.categories)).tolist()
    seen = [(word, count) for word, count in zip(column.categories, counts) if count]
    # the words of a small set all enter the vocabulary, unchanged
    labels = config.codes == "auto" and len(seen) <= FEW
    chosen = (
        []
        if labels
        else [code for code in ALL_CODES if config.codes == "auto" or code in config.codes]
    )
    state: dict[str, Any] = {
        "labels": labels,
        "codes": chosen,
        "longest": int(np.diff(column.offsets).max(initial=1)),
    }
    counted = [(_reading(config, state, word), count) for word, count in seen]
    state["words"] = _commonest(counted, 1 if labels else config.min_count)[: config.most]
    if "characters" in chosen:
        state["letters"] = "".join(
            _commonest([(letter, count) for word, count in seen for letter in word], 1)
        )
    if "suffix" in chosen:
        state["suffixes"] = _commonest(
            [(_ending(config, state, word), count) for word, count in seen],
            max(config.min_count, 2),
        )
    state["notice"] = _notice(state, sum(counts), seen, config)
    return state


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A sequence of tokens int32, (positions,) or (positions, D): the word, then the codes of its
    spelling. A missing word is unknown."""
    column = _as_words(config, column)
    table = _table(config, state, column.categories)
    values = table[np.asarray(column.values)]  # -1, a missing word, takes the last row: unknown
    names = _names(state, config.longest_word)
    alone = len(names) == 1
    return replace(
        column,
        values=values[:, 0] if alone else values,
        categories=(),
        cardinalities=_cardinalities(state, config.longest_word),
        names=() if alone else names,
    )


def _as_words(config: Config, column: Column) -> Column:
    return split_words(column, config.split) if column.kind == "text" else column


def _reading(config: Config, state: dict[str, Any], word: str) -> str:
    """A word in the form of the vocabulary: lower case, digits as 0 (both optional)."""
    if state["labels"]:
        return word
    word = word.lower() if config.lower else word
    return (
        "".join("0" if letter.isdigit() else letter for letter in word) if config.digits else word
    )


def _ending(config: Config, state: dict[str, Any], word: str) -> str:
    return _reading(config, state, word)[-config.suffix :]


def _commonest(counted: Sequence[tuple[str, int]], least: int) -> list[str]:
    """The distinct strings that occur at least `least` times, most frequent first, ties by
    spelling."""
    total: dict[str, int] = {}
    for word, count in counted:
        total[word] = total.get(word, 0) + count
    kept = [word for word, count in total.items() if count >= least and word]
    return sorted(kept, key=lambda word: (-total[word], word))


def _names(state: dict[str, Any], longest_word: int) -> tuple[str, ...]:
    """The names of the codes at a position; all letters of a word have the same name."""
    parts = {
        "characters": ("character",) * longest_word,
        "suffix": ("suffix",),
        "shape": ("shape",),
    }
    return ("word", *(name for code in state["codes"] for name in parts[code]))


def _cardinalities(state: dict[str, Any], longest_word: int) -> tuple[int, ...]:
    """The number of codes of each, in the order of _names."""
    counts = {
        "characters": (_FIRST + len(state.get("letters", "")),) * longest_word,
        "suffix": (_FIRST + len(state.get("suffixes", ())),),
        "shape": (SHAPES,),
    }
    return (
        FIRST_TOKEN + len(state["words"]),
        *(count for code in state["codes"] for count in counts[code]),
    )


def _table(config: Config, state: dict[str, Any], words: Sequence[str]) -> np.ndarray:
    """The codes of each distinct word, int32 (words + 1, D); the last row is for a missing word."""
    parts = [
        _numbers(state["words"], FIRST_TOKEN, [_reading(config, state, word) for word in words])[
            :, None
        ]
    ]
    for code in state["codes"]:
        if code == "characters":
            parts.append(_letters(state["letters"], words, config.longest_word))
        elif code == "suffix":
            parts.append(
                _numbers(
                    state["suffixes"], _FIRST, [_ending(config, state, word) for word in words]
                )[:, None]
            )
        else:
            parts.append(np.array([*map(_shape, words), UNKNOWN], dtype=np.int32)[:, None])
    return np.concatenate(parts, axis=1)


def _numbers(vocabulary: Sequence[str], first: int, words: Sequence[str]) -> np.ndarray:
    """The code of each word, int32 (words + 1,), counted from `first`; UNKNOWN for words outside
    the vocabulary and for the last entry."""
    code_of = {word: first + number for number, word in enumerate(vocabulary)}
    return np.array([*(code_of.get(word, UNKNOWN) for word in words), UNKNOWN], dtype=np.int32)


def _letters(alphabet: str, words: Sequence[str], longest: int) -> np.ndarray:
    """The codes of each word's letters, int32 (words + 1, longest), padded at the end; the last row
    is one unknown letter."""
    code_of = {letter: _FIRST + number for number, letter in enumerate(alphabet)}
    table = np.full((len(words) + 1, longest), PADDING, dtype=np.int32)
    table[-1, 0] = UNKNOWN
    head = (longest + 1) // 2
    for row, word in enumerate(words):
        word = word if len(word) <= longest else word[:head] + word[head - longest :]
        table[row, : len(word)] = [code_of.get(letter, UNKNOWN) for letter in word]
    return table


def _shape(word: str) -> int:
    """How a word is written, as a code from 2 to 8."""
    if any(letter.isdigit() for letter in word):
        return 2 if all(letter.isdigit() or letter in ".,:/-%" for letter in word) else 3
    letters = [letter for letter in word if letter.isalpha()]
    if not letters:
        return 4
    if not any(letter.isupper() for letter in letters):
        return 5
    if all(letter.isupper() for letter in letters) and len(letters) > 1:
        return 6
    return 7 if letters[0].isupper() and not any(letter.isupper() for letter in letters[1:]) else 8


def _notice(
    state: dict[str, Any], total: int, seen: Sequence[tuple[str, int]], config: Config
) -> str:
    vocabulary = set(state["words"])
    lost = sum(count for word, count in seen if _reading(config, state, word) not in vocabulary)
    share = f"; {100 * lost / total:.1f} % of the training words are unknown" if lost else ""
    beside = f", with {' and '.join(state['codes'])} of each" if state["codes"] else ""
    return f"a vocabulary of {len(vocabulary):,} words{beside}{share}."
