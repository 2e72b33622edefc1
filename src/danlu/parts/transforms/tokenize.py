"""Text as tokens: characters, bytes, words, byte pairs, or those of a tokenizer file.

The vocabulary is learnt from the training rows. words suits classification (a Chinese character is
a word), characters and bpe suit generation. danlu.tokenizing says what each kind is.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from danlu import tokenizing
from danlu.reading.growing_array import GrowingArray
from danlu.recipe import Options
from danlu.terms import BEGINNING, END, FIRST_TOKEN, UNKNOWN, Column
from danlu.tokenizing import Tokenizer

TAKES = ("text",)
SEPARATOR = "\x1e"  # U+001E, the record separator
# bytes of text that are tokenized to find the longest row; of more text only its longest rows
_MEASURED = 32 << 20
_KEPT = 8
# by id(state); the state is stored too, so that its id cannot be reused
_restored: OrderedDict[int, tuple[dict[str, Any], Tokenizer]] = OrderedDict()


class Config(Options):
    """What a token is, the size of the vocabulary, and how many tokens of a row are read."""

    kind: Literal["words", "characters", "bytes", "bpe", "file"] = Field(
        default="words", description="What a token is."
    )
    vocabulary: int | None = Field(
        default=None,
        ge=FIRST_TOKEN + 1,
        le=1 << 20,
        description="Most tokens, including the five special ones; null: 32,768 words, 8,192 "
        "byte pairs, all characters.",
    )
    lower: bool | None = Field(
        default=None,
        description="Convert text to lower case; null: for words yes, for other kinds no.",
    )
    min_count: int | None = Field(
        default=None,
        ge=1,
        description="How often a word, character or pair must occur to enter the vocabulary; "
        "null: words and pairs twice.",
    )
    max_length: int | None = Field(
        default=256,
        ge=1,
        le=1 << 30,
        description="Most tokens per row; the rest of a row is cut off. null: no limit.",
    )
    beginning: bool = Field(
        default=False, description="Put a beginning-of-text token before each row."
    )
    end: bool = Field(default=False, description="Put an end-of-text token after each row.")
    tokenizer: str | None = Field(
        default=None,
        description="For kind file: a tokenizer.json, or an artifact (or run) whose tokenizer "
        "is used.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if (self.kind == "file") != (self.tokenizer is not None):
            raise ValueError("tokenizer names a file for kind file, and only for it")
        if self.kind in ("bytes", "file") and (
            self.vocabulary is not None or self.min_count is not None
        ):
            raise ValueError(
                f"the vocabulary of kind {self.kind} is fixed, so vocabulary and min_count have "
                "no effect"
            )
        if self.kind == "file" and self.lower is not None:
            raise ValueError(
                "a tokenizer file itself decides about lower case, so lower has no effect"
            )
        if (
            self.kind == "bpe"
            and self.vocabulary is not None
            and self.vocabulary < 256 + FIRST_TOKEN
        ):
            raise ValueError(
                f"vocabulary must be at least {256 + FIRST_TOKEN} for bpe, which has a token for "
                "each byte"
            )
        if self.max_length is not None and self.max_length <= self.beginning + self.end:
            raise ValueError("max_length leaves no room for text between beginning and end")
        return self


def fit(config: Config, column: Column) -> dict[str, Any]:
    """The tokenizer, and the length of the longest row after it is cut to max_length."""
    lower = config.kind == "words" if config.lower is None else config.lower
    tokenizer = tokenizing.fit(
        config.kind, column, config.vocabulary, lower, config.min_count, config.tokenizer
    )
    state: dict[str, Any] = {"tokenizer": tokenizer.state()}
    lengths, unknown = _measure(tokenizer, column)
    whole = int(lengths.max(initial=0)) + config.beginning + config.end
    state["longest"] = max(1, whole if config.max_length is None else min(whole, config.max_length))
    state["notice"] = _notice(config, tokenizer, lengths, unknown)
    return state


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """A sequence of tokens, uint16 or (for more than 65,536 tokens) uint32; a missing row has
    length 0."""
    tokenizer = restored(state)
    lost = column.is_missing()
    if config.max_length is None and not (config.beginning or config.end):
        values, offsets = tokenizer.encode(column)
    else:
        values, offsets = _framed(config, tokenizer, column, ~lost)
    missing = lost if lost.any() else None
    return replace(
        column,
        kind="sequence",
        values=values,
        offsets=offsets,
        missing=missing,
        categories=(),
        cardinalities=(tokenizer.size,),
    )


def restored(state: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a state of this transform; cached for the last 8 states."""
    entry = _restored.get(id(state))
    if entry is None:
        entry = _restored[id(state)] = (state, tokenizing.restore(state["tokenizer"]))
        while len(_restored) > _KEPT:
            _restored.popitem(last=False)
    return entry[1]


def _framed(
    config: Config, tokenizer: Tokenizer, column: Column, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, offsets) of rows cut to max_length; rows that are `there` (not missing) get the
    tokens for beginning and end."""
    room = None if config.max_length is None else config.max_length - config.beginning - config.end
    taken = np.zeros(len(column), dtype=np.int64)  # tokens per row, without beginning and end
    begun = ~there
    spool = GrowingArray(tokenizer.dtype)
    for block in tokenizer.stream(column):
        rows = block.rows
        kept = block.counts if room is None else np.minimum(block.counts, room - taken[rows])
        before = ~begun[rows] & config.beginning
        after = there[rows] & config.end
        after[-1:] &= block.done
        spool.append(_between(block.codes, block.counts, kept, before, after))
        taken[rows] += kept
        begun[rows] = True
    lengths = taken + there * (int(config.beginning) + int(config.end))
    return spool.finish(), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _between(
    codes: np.ndarray, counts: np.ndarray, kept: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """The first `kept` of the `counts` codes of each row; BEGINNING precedes them in rows where
    `before` is True, END follows them where `after` is."""
    sizes = kept + before + after
    ends = np.cumsum(sizes)
    result = np.empty(int(ends[-1]) if len(ends) else 0, dtype=codes.dtype)
    within = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    inside = within < np.repeat(kept, counts)
    shift = ends - sizes + before
    result[(np.repeat(shift, counts) + within)[inside]] = codes[inside]
    result[(ends - sizes)[before]] = BEGINNING
    result[ends[after] - 1] = END
    return result


# --- statistics of the training rows


def _measure(tokenizer: Tokenizer, column: Column) -> tuple[np.ndarray, float]:
    """(tokens per row, share of unknown tokens), of all rows, or of the longest if there is much
    text."""
    assert column.offsets is not None
    sizes = np.diff(column.offsets)
    if sizes.sum() > _MEASURED:
        order = np.argsort(-sizes, kind="stable")
        most = int(np.searchsorted(np.cumsum(sizes[order]), _MEASURED))
        if not most:  # one very long text: it has at most one token per byte
            return sizes, 0.0
        column = column.take(order[:most])
    lengths = np.zeros(len(column), dtype=np.int64)
    unknown = 0
    for block in tokenizer.stream(column):
        lengths[block.rows] += block.counts
        unknown += int((block.codes == UNKNOWN).sum())
    if unknown:  # the separator between the turns of a conversation does not count as text
        unknown -= int((column.values == ord(SEPARATOR)).sum()) * int(
            (tokenizer.encode([SEPARATOR])[0] == UNKNOWN).sum()
        )
    return lengths, unknown / max(int(lengths.sum()), 1)


def _notice(config: Config, tokenizer: Tokenizer, lengths: np.ndarray, unknown: float) -> str:
    names = {
        "words": "words",
        "characters": "characters",
        "bytes": "bytes",
        "bpe": "byte pairs",
        "file": "pieces",
    }
    notice = f"{tokenizer.size:,} tokens ({names[config.kind]})"
    if unknown:
        notice += f"; {100 * unknown:.1f} % of the training text is none of them"
    if config.max_length is not None:
        cut = (
            float((lengths + config.beginning + config.end > config.max_length).mean())
            if len(lengths)
            else 0.0
        )
        notice += (
            f"; of {100 * cut:.1f} % of the rows only the first {config.max_length:,} are read"
            if cut
            else ""
        )
    return f"{notice}."
