"""Text as counts of its words and pairs of words, hashed into a fixed number of features.

Each n-gram of words is hashed to one feature and a sign; the counts of a row are then divided by
their L2 norm. Nothing is learnt, so no word is unknown. Words are runs of letters and digits in
lower case; in scripts without spaces between words (Chinese, Japanese, Thai, ...) each character is
a word, and so is each emoji.
Source: Weinberger, Dasgupta, Langford, Smola and Attenberg, 2009, arXiv:0902.2206.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from danlu.data.fingerprints import mix
from danlu.data.matrix import number_column
from danlu.recipe import Options
from danlu.terms import Column
from danlu.tokenizing.unicode_classes import ALONE, GAP, LETTER, code_points, lower_and_class

TAKES = ("text",)
_BLOCK = 1 << 21  # bytes of text, or entries of the result, per block


class Config(Options):
    """What is counted, and into how many features."""

    by: Literal["words", "characters"] = Field(
        default="words",
        description="What is counted: words, or characters (for misspelt or unspaced text).",
    )
    shortest: int = Field(
        default=1,
        ge=1,
        le=16,
        description="Words (or characters) of the shortest n-grams.",
    )
    longest: int = Field(
        default=2,
        ge=1,
        le=16,
        description="Words (or characters) of the longest n-grams.",
    )
    features: int = Field(
        default=1024, ge=2, le=1 << 20, description="Number of features that n-grams are hashed to."
    )

    @model_validator(mode="after")
    def _shortest_first(self) -> Config:
        if self.shortest > self.longest:
            raise ValueError("shortest must not be above longest")
        return self


def fit(config: Config, column: Column) -> dict[str, Any]:
    """Nothing is learnt; the state only holds a notice."""
    unit = "words" if config.by == "words" else "characters"
    return {"notice": f"its {unit} are hashed into {config.features:,} features."}


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A number column, float32 (N, features), rows of L2 norm 1; 0 where the text is missing or has
    no word."""
    assert column.offsets is not None
    offsets = np.asarray(column.offsets, dtype=np.int64)
    result = np.empty((len(column), config.features), dtype=np.float32)
    most = max(1, _BLOCK // config.features)
    start = 0
    while start < len(column):
        stop = int(np.searchsorted(offsets, offsets[start] + _BLOCK, side="right")) - 1
        stop = min(max(stop, start + 1), start + most, len(column))
        text = np.asarray(column.values[offsets[start] : offsets[stop]])
        result[start:stop] = _count(config, text, np.diff(offsets[start : stop + 1]))
        start = stop
    if column.missing is not None:
        result[column.missing] = 0
    return number_column(
        column, result, [f"{column.name} #{number}" for number in range(config.features)]
    )


def _count(config: Config, text: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Signed counts of a block of texts, float64 (rows, features), rows of L2 norm 1.

    `text` holds the UTF-8 bytes of all rows, `lengths` the number of bytes per row.
    """
    row_of_byte = np.repeat(np.arange(len(lengths)), lengths)
    characters, places = _characters(text)
    token, row = _tokens(config, characters, row_of_byte[places])
    counts = np.zeros(len(lengths) * config.features)
    run = token
    for length in range(1, config.longest + 1):
        if length > 1:
            run = mix(run[:-1] ^ (token[length - 1 :] * np.uint64(2 * length + 1)))
        if not len(run):
            break
        if length >= config.shortest:
            whole = row[: len(run)] == row[length - 1 :]
            hashed = run[whole]
            bin_index = row[: len(run)][whole] * config.features + (
                (hashed >> np.uint64(1)) % np.uint64(config.features)
            ).astype(np.int64)
            counts += np.bincount(
                bin_index, weights=(hashed & np.uint64(1)) * 2.0 - 1.0, minlength=len(counts)
            )
    table = counts.reshape(len(lengths), config.features)
    # integers, so the sum is exact in any order
    squares = np.square(table).sum(axis=1, keepdims=True)
    return table / np.sqrt(np.maximum(squares, 1))


def _tokens(
    config: Config, characters: np.ndarray, row: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(the hash of each token, uint64 (T,); the row of each token, int64 (T,))."""
    lower, kind = lower_and_class(characters)
    same_row = np.zeros(len(row), dtype=bool)
    same_row[1:] = row[1:] == row[:-1]
    before = np.zeros_like(kind)
    before[1:] = np.where(same_row[1:], kind[:-1], GAP)
    if config.by == "characters":  # every character is a token; adjacent gaps are one space
        lower = np.where(kind == GAP, 32, lower)
        kept = (kind != GAP) | (same_row & (before != GAP))
        return mix(lower[kept].astype(np.uint64)), row[kept]
    kept = (kind == LETTER) | (kind == ALONE)
    starts = kept & ((kind == ALONE) | (before != LETTER))
    first = np.flatnonzero(starts[kept])
    row = row[kept][first]
    if not len(first):
        return np.zeros(0, dtype=np.uint64), row
    within = np.arange(int(kept.sum())) - np.repeat(first, np.diff(np.append(first, kept.sum())))
    spread = mix(lower[kept].astype(np.uint64) + (within.astype(np.uint64) << np.uint64(21)))
    return mix(np.add.reduceat(spread, first)), row


def _characters(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(code point of each character; the byte it starts at) of UTF-8 bytes."""
    return code_points(text), np.flatnonzero((text & 0xC0) != 0x80)
