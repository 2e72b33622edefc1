"""Texts as words, and lists of words as a column.

by spaces   what stands between white space
by words    runs of letters and digits (an apostrophe may stand inside: don't), and every other visible character by itself. In scripts
            that put no spaces between words (Chinese, Japanese, Thai, ...) each character is a word
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from danlu.reading.arrow import compute, valid_mask
from danlu.terms import Column

if TYPE_CHECKING:
    import pyarrow as pa

WordRule = Literal["words", "spaces"]

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"


@functools.cache
def word_pattern(by: WordRule) -> re.Pattern[str]:
    """The expression that finds each word of a text."""
    if by == "spaces":
        return re.compile(r"\S+")
    letter = rf"[^\W{_UNSPACED}]"
    return re.compile(rf"{letter}+(?:['\u2019]{letter}+)*|\S")


def split_words(column: Column, by: WordRule) -> Column:
    """The words of each row of a text column, as a raw sequence column of the same name; a missing
    text has none."""
    assert column.offsets is not None
    offsets = np.asarray(column.offsets)
    text = np.asarray(column.values[offsets[0] : offsets[-1]])
    starts = np.zeros(len(text) + 1, dtype=np.int64)
    np.cumsum((text & 0xC0) != 0x80, out=starts[1:])  # characters before each byte
    whole = text.tobytes().decode("utf-8", "replace")
    bounds = starts[offsets - offsets[0]].tolist()
    find = word_pattern(by).findall
    words_of_rows = [find(whole, start, stop) for start, stop in itertools.pairwise(bounds)]
    return sequence_column(column.name, words_of_rows, missing=column.missing)


def sequence_column(
    name: str,
    rows: Sequence[Sequence[str | None]],
    missing: np.ndarray | None = None,
    reason: str = "",
) -> Column:
    """A raw sequence column of lists of words; None in a list is a missing place. Words are
    numbered as they first appear."""
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    words = itertools.chain.from_iterable(rows)
    codes, categories = encode_words(words)
    return Column(
        name,
        "sequence",
        codes,
        categories=categories,
        offsets=offsets,
        missing=missing,
        reason=reason,
    )


def sequence_from_arrow(name: str, lists: pa.Array) -> Column:
    """A raw sequence column of an array of lists of strings; null is a missing row, or within a
    list a missing place."""
    pc = compute()
    lost = ~valid_mask(lists)
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    coded = pc.list_flatten(lists).dictionary_encode()
    codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    missing = lost if lost.any() else None
    reason = "sequence: every row holds a list of words"
    return Column(
        name,
        "sequence",
        codes,
        categories=tuple(coded.dictionary.to_pylist()),
        offsets=offsets,
        missing=missing,
        reason=reason,
    )


def encode_words(words: Iterable[str | None]) -> tuple[np.ndarray, tuple[str, ...]]:
    """(codes int32, the distinct words in the order they first appear); None becomes -1."""
    code_of: dict[str | None, int] = {}
    codes = np.fromiter((code_of.setdefault(word, len(code_of)) for word in words), dtype=np.int32)
    if None not in code_of:
        return codes, tuple(code_of)  # type: ignore[arg-type]
    gap = code_of[None]
    codes = np.where(codes == gap, -1, codes - (codes > gap)).astype(np.int32)
    return codes, tuple(word for word in code_of if word is not None)
