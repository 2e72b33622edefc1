"""Text as tokens: characters, bytes, words, byte pairs, or the pieces of a given tokenizer, each a number a model learns to read.

The vocabulary is learnt from the training rows. words suits classification (a Chinese character is
a word), characters and bpe suit generation. See danlu.tokenizing for what each kind is."""

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
_MEASURED = (
    32 << 20
)  # bytes of text that are tokenized to learn the longest row; of more text, the longest rows of it
_KEPT = 8
_restored: OrderedDict[int, tuple[dict[str, Any], Tokenizer]] = (
    OrderedDict()
)  # the state is kept, so that its id stays its own


class Config(Options):
    """What a token is, how many there are, and how many of a row are read."""

    kind: Literal["words", "characters", "bytes", "bpe", "file"] = Field(
        default="words", description="What a token is."
    )
    vocabulary: int | None = Field(
        default=None,
        ge=FIRST_TOKEN + 1,
        le=1 << 20,
        description="Most tokens known, the five special ones included; null: 32,768 words, 8,192 byte pairs, all characters.",
    )
    lower: bool | None = Field(
        default=None, description="Read the text in lower case; null: words yes, other kinds no."
    )
    min_count: int | None = Field(
        default=None,
        ge=1,
        description="How often a word, character or pair must be seen to be known; null: words and pairs twice.",
    )
    max_length: int | None = Field(
        default=256,
        ge=1,
        le=1 << 30,
        description="Tokens of a row that are read, from its beginning; null: all.",
    )
    beginning: bool = Field(
        default=False, description="Put a token before each row that says it begins."
    )
    end: bool = Field(default=False, description="Put a token after each row that says it ends.")
    tokenizer: str | None = Field(
        default=None,
        description="The tokenizer.json of kind file, or an artifact (or run) whose tokenizer is taken.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if (self.kind == "file") != (self.tokenizer is not None):
            raise ValueError("tokenizer names a file for kind file, and only for it")
        if self.kind in ("bytes", "file") and (
            self.vocabulary is not None or self.min_count is not None
        ):
            raise ValueError(
                f"the vocabulary of kind {self.kind} is given: vocabulary and min_count say nothing"
            )
        if self.kind == "file" and self.lower is not None:
            raise ValueError(
                "a given tokenizer says itself whether it reads in lower case: lower says nothing"
            )
        if (
            self.kind == "bpe"
            and self.vocabulary is not None
            and self.vocabulary < 256 + FIRST_TOKEN
        ):
            raise ValueError(
                f"vocabulary must be at least {256 + FIRST_TOKEN} for bpe, which has a token for each byte"
            )
        if self.max_length is not None and self.max_length <= self.beginning + self.end:
            raise ValueError("max_length leaves no room for text between beginning and end")
        return self


def fit(config: Config, column: Column) -> dict[str, Any]:
    """The tokenizer, and the length of the longest row once it is cut."""
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
    """A sequence of tokens, uint16 or (above 65,536 of them) uint32; a missing row has length 0."""
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
    """The tokenizer of a state of this transform; made once for a state that is used over and
    over."""
    restored_before = _restored.get(id(state))
    if restored_before is None:
        restored_before = _restored[id(state)] = (state, tokenizing.restore(state["tokenizer"]))
        while len(_restored) > _KEPT:
            _restored.popitem(last=False)
    return restored_before[1]


def _framed(
    config: Config, tokenizer: Tokenizer, column: Column, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, offsets) of rows that are cut; of those that are `there`, between the tokens for
    beginning and end."""
    room = None if config.max_length is None else config.max_length - config.beginning - config.end
    taken = np.zeros(len(column), dtype=np.int64)  # tokens of each row, without those around it
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
    """The first `kept` of the `counts` codes of each row, where asked with a BEGINNING `before` and
    an END `after` them."""
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


# --- what is told of the training rows -----------------------------------------------------------------------------------


def _measure(tokenizer: Tokenizer, column: Column) -> tuple[np.ndarray, float]:
    """(tokens in each row, the share of unknown ones): of all rows, or of the longest where there
    is much text."""
    assert column.offsets is not None
    sizes = np.diff(column.offsets)
    if sizes.sum() > _MEASURED:
        order = np.argsort(-sizes, kind="stable")
        most = int(np.searchsorted(np.cumsum(sizes[order]), _MEASURED))
        if not most:  # a single text so long: it has at most a token a byte
            return sizes, 0.0
        column = column.take(order[:most])
    lengths = np.zeros(len(column), dtype=np.int64)
    unknown = 0
    for block in tokenizer.stream(column):
        lengths[block.rows] += block.counts
        unknown += int((block.codes == UNKNOWN).sum())
    if unknown:  # what stands between the turns of a conversation is no text that anyone wrote
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
