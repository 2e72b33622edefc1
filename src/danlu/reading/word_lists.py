"""Texts to words, and lists of words to a sequence column.

Two rules cut a text into words:

spaces   the runs of characters between white space
words    runs of letters and digits, with apostrophes inside (don't); every other visible character
         is a word of its own. In scripts without spaces between words (Chinese, Japanese, Thai,
         ...) each character is a word
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

_UNSPACED = (  # the code points of scripts without spaces between words
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007"
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)


@functools.cache
def word_pattern(by: WordRule) -> re.Pattern[str]:
    """The regular expression that finds each word of a text.

    >>> word_pattern("words").findall("Don't panic! 火炉")
    ["Don't", 'panic', '!', '火', '炉']
    """
    if by == "spaces":
        return re.compile(r"\S+")
    letter = rf"[^\W{_UNSPACED}]"
    return re.compile(rf"{letter}+(?:['\u2019]{letter}+)*|\S")


def split_words(column: Column, by: WordRule) -> Column:
    """The words of each row of a text column, as a raw sequence column of the same name; a missing
    text has no words.

    >>> text = Column("t", "text", np.frombuffer(b"a b", np.uint8), offsets=np.array([0, 3]))
    >>> split_words(text, "spaces").python_value(0)
    ['a', 'b']
    """
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
    """A raw sequence column of lists of words; None in a list is a missing word. Words are numbered
    in the order of their first appearance.

    >>> column = sequence_column("tags", [["B", "O"], [None, "B"]])
    >>> column.values.tolist(), column.categories, column.offsets.tolist()
    ([0, 1, -1, 0], ('B', 'O'), [0, 2, 4])
    """
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
    """A raw sequence column of a pyarrow array of lists of strings; null is a missing row, or
    inside a list a missing word.

    >>> import pyarrow as pa
    >>> sequence_from_arrow("tags", pa.array([["B", None], None])).values.tolist()
    [0, -1]
    """
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
    """(codes int32, the distinct words in the order of their first appearance); None becomes -1.

    >>> codes, words = encode_words(["b", None, "a", "b"])
    >>> codes.tolist(), words
    ([0, -1, 1, 0], ('b', 'a'))
    """
    code_of: dict[str | None, int] = {}
    codes = np.fromiter((code_of.setdefault(word, len(code_of)) for word in words), dtype=np.int32)
    if None not in code_of:
        return codes, tuple(code_of)  # type: ignore[arg-type]
    gap = code_of[None]
    codes = np.where(codes == gap, -1, codes - (codes > gap)).astype(np.int32)
    return codes, tuple(word for word in code_of if word is not None)
