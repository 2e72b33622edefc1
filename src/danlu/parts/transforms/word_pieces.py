"""Each word as the tokens (pieces) of a tokenizer, for networks that read pieces and label words.

The tokenizer is a tokenizer.json, or byte pairs learnt from the training words. Each word is
tokenized as if a space preceded it. Of a word with more than `pieces` pieces only the first are
read. model: pretrained chooses this transform itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from danlu import tokenizing
from danlu.reading.word_lists import split_words
from danlu.recipe import Options
from danlu.terms import PADDING, UNKNOWN, Column
from danlu.tokenizing import Tokenizer
from danlu.tokenizing.tokenizer import as_column

TAKES = ("sequence", "text")
_KEPT = 8
# by id(state); the state is stored too, so that its id cannot be reused
_restored: OrderedDict[int, tuple[dict[str, Any], Tokenizer]] = OrderedDict()


class Config(Options):
    """The tokenizer, and how many pieces of a word are read."""

    tokenizer: str | None = Field(
        None, description="A tokenizer.json; null: byte pairs learnt from the training words."
    )
    pieces: int = Field(6, ge=1, le=64, description="Most pieces per word.")
    split: Literal["words", "spaces"] = Field(
        "words", description="How text is split into words: at word boundaries, or only at spaces."
    )


def fit(config: Config, column: Column) -> dict[str, Any]:
    """The tokenizer, and the length of the longest row in words."""
    column = _as_words(config, column)
    assert column.offsets is not None
    codes = np.asarray(column.values)
    counts = np.bincount(codes[codes >= 0], minlength=len(column.categories))
    seen = [column.categories[code] for code in np.flatnonzero(counts)]
    if config.tokenizer is not None:
        tokenizer = tokenizing.fit("file", column, path=config.tokenizer)
    else:
        tokenizer = tokenizing.fit("bpe", _texts(seen), min_count=1)
    # in a byte-level tokenizer a space is part of the word that follows it
    spaced = tokenizer.byte_lengths is not None
    state: dict[str, Any] = {
        "pieces_of": tokenizer.state(),
        "spaced": spaced,
        "longest": int(np.diff(column.offsets).max(initial=1)),
    }
    lengths = _lengths(tokenizer, seen, spaced)
    total = max(int(counts.sum()), 1)
    cut = counts[counts > 0][lengths > config.pieces].sum() / total
    mean = float((lengths * counts[counts > 0]).sum() / total)
    notice = (
        f"; of {100 * cut:.1f} % of the words only the first {config.pieces} pieces are read"
        if cut
        else ""
    )
    state["notice"] = f"{tokenizer.size:,} pieces, {mean:.1f} a word{notice}."
    return state


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A sequence of tokens int32, (words,) or (words, pieces): the pieces of each word, padded at
    the end. A missing word is unknown."""
    column = _as_words(config, column)
    tokenizer = _tokenizer(state)
    table = np.full((len(column.categories) + 1, config.pieces), PADDING, dtype=np.int32)
    table[:, 0] = UNKNOWN  # also of a word without any piece
    codes, offsets = tokenizer.encode(_texts(column.categories, state["spaced"]))
    sizes = np.diff(offsets)
    row = np.repeat(np.arange(len(sizes)), sizes)
    within = np.arange(len(codes)) - np.repeat(offsets[:-1], sizes)
    kept = within < config.pieces
    table[row[kept], within[kept]] = codes[kept]
    values = table[np.asarray(column.values)]  # -1, a missing word, takes the last row
    alone = config.pieces == 1
    return replace(
        column,
        values=values[:, 0] if alone else values,
        categories=(),
        cardinalities=(tokenizer.size,) * config.pieces,
        names=() if alone else ("piece",) * config.pieces,
    )


def _as_words(config: Config, column: Column) -> Column:
    return split_words(column, config.split) if column.kind == "text" else column


def _texts(words: Sequence[str], spaced: bool = True) -> Column:
    """The words as texts, each with a leading space if `spaced`."""
    return as_column([f" {word}" if spaced else word for word in words])


def _lengths(tokenizer: Tokenizer, words: Sequence[str], spaced: bool) -> np.ndarray:
    return np.diff(tokenizer.encode(_texts(words, spaced))[1])


def _tokenizer(state: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a state; cached for the last 8 states."""
    restored = _restored.get(id(state))
    if restored is None:
        restored = _restored[id(state)] = (state, tokenizing.restore(state["pieces_of"]))
        while len(_restored) > _KEPT:
            _restored.popitem(last=False)
    return restored[1]
