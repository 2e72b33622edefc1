"""A running text as one stream of tokens, and what tasks over its windows share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.data.preprocessing import Preprocessor
    from danlu.tokenizing import Tokenizer

from danlu.data.examples import Examples, Ragged, Windows, take_examples
from danlu.errors import DataError
from danlu.parts.tasks._base import (
    CutsExamples,
    Exportable,
    PreparedInputs,
    ReadsPreprocessing,
    ReadsRunningText,
    Responds,
    ScoreOrder,
)
from danlu.reading.growing_array import GrowingArray
from danlu.terms import END, PADDING, Column, InputSpec, OutputSpec, Table

LEAST_WINDOWS = 8  # with fewer windows, a training text is cut in the same places in every epoch
_TOGETHER = 1 << 22  # tokens copied at once


@dataclass(frozen=True)
class TokenStream:
    """The tokens of all splits one after another.

    values    uint16 or uint32 (tokens,): of each split END, its tokens with END after each
              document, then PADDING
    regions   split -> (index of its first token, one past its last)
    places    int64 (R,), the index of the first token of each row, ascending
    rows      int64 (R,), the number of that row
    """

    values: np.ndarray
    regions: dict[str, tuple[int, int]]
    places: np.ndarray
    rows: np.ndarray

    def row_of(self, ids: np.ndarray) -> np.ndarray:
        """The row of the table that each index lies in."""
        return self.rows[np.maximum(np.searchsorted(self.places, ids, side="right") - 1, 0)]

    def windows(self, split: str, context: int) -> np.ndarray:
        """The starts of windows of `context` tokens, int64, so that each token of a split is
        predicted exactly once."""
        start, stop = self.regions[split]
        return np.arange(start, stop - 1, context, dtype=np.int64)


def token_stream(
    tokens: Ragged,
    splits: Mapping[str, np.ndarray],
    continues: np.ndarray | None,
    size: int,
    room: int,
) -> TokenStream:
    """The TokenStream of rows of tokens by split; `size` is the size of the vocabulary, `room` the
    number of PADDING after each split."""
    plans = {split: _plan(tokens, rows, continues) for split, rows in splits.items() if len(rows)}
    values = GrowingArray(np.uint16 if size <= 1 << 16 else np.uint32)
    regions, places, rows, at = {}, [], [], 0
    for split, (ended, lengths) in plans.items():
        values.append(np.array([END]))
        first = at + 1 + np.cumsum(lengths) - lengths
        _copy(values, tokens, splits[split], first, ended, lengths)
        values.append(np.full(room, PADDING))
        stop = at + 1 + int(lengths.sum())
        regions[split] = (at, stop)
        places.append(np.concatenate([[at], first[1:]]))
        rows.append(splits[split])
        at = stop + room
    empty = np.zeros(0, dtype=np.int64)
    return TokenStream(
        values.finish(), regions, np.concatenate(places or [empty]), np.concatenate(rows or [empty])
    )


def _plan(
    tokens: Ragged, rows: np.ndarray, continues: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(which rows are followed by END, bool; the number of tokens of each row) of a split."""
    sizes = tokens.sizes[rows]
    goes_on = np.zeros(len(rows), dtype=bool) if continues is None else np.asarray(continues)[rows]
    # a document that the split cuts off ends there for the model; where nothing follows, nothing
    # need be said
    breaks = np.append(np.diff(rows) != 1, False)
    ended = (~goes_on | breaks) & ((sizes > 0) | np.append(False, goes_on[:-1]))
    return ended, sizes + ended


def _copy(
    values: GrowingArray,
    tokens: Ragged,
    rows: np.ndarray,
    first: np.ndarray,
    ended: np.ndarray,
    lengths: np.ndarray,
) -> None:
    """Append the tokens of `rows`, with END where a row ends; row i begins at index first[i]."""
    start = 0
    while start < len(rows):
        limit = first[start] + _TOGETHER
        stop = max(int(np.searchsorted(first, limit, side="left")), start + 1)
        low, high = int(first[start]), int(first[stop - 1] + lengths[stop - 1])
        part = np.full(high - low, END, dtype=values.dtype)
        inside = np.ones(len(part), dtype=bool)
        inside[(first + lengths - 1)[start:stop][ended[start:stop]] - low] = False
        part[inside] = take_examples(tokens, rows[start:stop]).values
        values.append(part)
        start = stop


def window_starts(
    whole: TokenStream, splits: Mapping[str, np.ndarray], context: int
) -> tuple[dict[str, np.ndarray], int]:
    """(the starts of each split's windows, by how many tokens training windows may be moved).

    Training windows leave room to be moved by up to context - 1 tokens, unless the text is too
    short for that to be worth it."""
    empty = np.zeros(0, dtype=np.int64)
    starts = {
        split: whole.windows(split, context) if split in whole.regions else empty
        for split in splits
    }
    if "train" not in whole.regions:
        return starts, 1
    start, stop = whole.regions["train"]
    count = (stop - start - 1) // context
    if count < LEAST_WINDOWS:
        return starts, 1
    starts["train"] = start + np.arange(count - 1, dtype=np.int64) * context
    return starts, context


def window_tokens(field: Windows, ids: np.ndarray, phase: int = 1) -> np.ndarray:
    """The tokens of the windows of `ids`, each once, without PADDING."""
    if not len(ids):
        return field.values[:0]
    low = int(ids.min()) + field.shift
    tokens = field.values[low : int(ids.max()) + field.shift + field.length + phase - 1]
    return tokens[tokens != PADDING]


def unigram_cross_entropy(train: np.ndarray, scored: np.ndarray, size: int) -> float:
    """The cross-entropy, in nats per token, of tokens `scored` under their frequencies in `train`,
    with one added to each count.

    >>> round(unigram_cross_entropy(np.array([0, 0]), np.array([0]), 2), 4)
    0.2877
    """
    counts = np.bincount(train, minlength=size) + 1.0
    shares = np.bincount(scored, minlength=size) / max(len(scored), 1)
    return float(-(shares * np.log(counts / counts.sum())).sum())


def document_ends(
    tokens: Ragged, continues: np.ndarray | None, room: int
) -> tuple[Ragged, np.ndarray]:
    """(END and the last tokens of each document, at most `room` in all; the first row of each) of
    rows that `continues` joins to documents."""
    count = len(tokens)
    goes_on = (
        np.zeros(count, dtype=bool) if continues is None else np.asarray(continues, dtype=bool)
    )
    first = (
        np.flatnonzero(~np.concatenate([[False], goes_on[:-1]]))
        if count
        else np.zeros(0, dtype=np.int64)
    )
    ends = tokens.offsets[np.append(first[1:], count)]
    sizes = np.minimum(ends - tokens.offsets[first], room - 1)
    last = take_examples(
        Ragged(tokens.values, np.stack([ends - sizes, ends], axis=1).reshape(-1)),
        2 * np.arange(len(first)),
    )
    offsets = np.concatenate([[0], np.cumsum(sizes + 1)]).astype(np.int64)
    values = np.full(int(offsets[-1]), END, dtype=tokens.values.dtype)
    inside = np.ones(len(values), dtype=bool)
    inside[offsets[:-1]] = False
    values[inside] = last.values
    return Ragged(values, offsets, PADDING), first


class RunningText(ReadsRunningText, CutsExamples, ReadsPreprocessing, Responds, Exportable):
    """The base of tasks over windows of `context` tokens of one running text, each token of a split
    predicted once.

    size   the size of the vocabulary; 0 before any text was seen
    """

    score_order: ScoreOrder = ("loss", "lower")
    rows_are_independent = False
    target_names: tuple[str, ...] = ()
    ahead = 0  # the target of a token is the token so many places later

    def __init__(
        self, context: int, size: int = 0, counts: Mapping[str, int] | None = None
    ) -> None:
        self.context = context
        self._set_vocabulary(size)
        self.counts = dict(counts or {})  # tokens by split
        self.tokenizer = None

    def _set_vocabulary(self, size: int) -> None:
        """The model returns one number per code of the vocabulary, for every token."""
        self.size = size
        self.output = OutputSpec(size, per="token", causal=self.ahead > 0)

    def _tokenizer(self) -> Tokenizer:
        """The tokenizer, once it is attached."""
        assert self.tokenizer is not None, "attach() comes first"
        return self.tokenizer

    @property
    def token_bytes(self) -> list[int] | None:
        """The bytes of text that each code writes; None where codes have no text of their own."""
        lengths = None if self.tokenizer is None else self.tokenizer.byte_lengths
        return None if lengths is None else lengths.tolist()

    def attach(self, preprocessor: Preprocessor) -> None:
        """Take the tokenizer of the preprocessing."""
        self.tokenizer = preprocessor.tokenizer

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
        return {"context": self.context, "size": self.size, "counts": self.counts}

    def make_examples(
        self,
        arrays: PreparedInputs,
        specs: Mapping[str, InputSpec],
        targets: Mapping[str, Column],
        splits: Mapping[str, np.ndarray],
        table: Table,
        answering: bool = False,
    ) -> Examples:
        """Windows over one stream of all splits; to be answered, one example per document: its last
        tokens."""
        name, tokens = only_text_input(arrays, specs, table)
        self._set_vocabulary(specs[name].cardinalities[0])
        input_specs = {"tokens": replace(specs[name], shape=(self.context,))}
        if answering:
            documents, first = document_ends(tokens, table.continues, self.context)
            return Examples(
                {"tokens": documents},
                input_specs,
                None,
                {"data": np.arange(len(first))},
                lambda ids: first[ids],
            )
        longest = max(
            (int(tokens.sizes[rows].sum()) + len(rows) + 1 for rows in splits.values()), default=1
        )
        context = min(
            self.context, longest
        )  # no longer than the text: attention over padding costs its square
        whole = token_stream(tokens, splits, table.continues, self.size, context)
        if "train" in splits:
            self.counts = {
                split: stop - start - 1 for split, (start, stop) in whole.regions.items()
            }
            if not self.counts.get("train"):
                raise DataError(
                    "the training split holds no token.",
                    where=table.origin,
                    hint="look at the text and at data.split",
                )
        ids, phase = window_starts(whole, splits, context)
        return Examples(
            {"tokens": Windows(whole.values, context, fill=PADDING)},
            input_specs,
            Windows(whole.values, context, shift=self.ahead, fill=PADDING, ignore=PADDING),
            ids,
            whole.row_of,
            phase,
            context,
            "tokens",
        )

    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """{"logits": float32 (N, T, codes)}, of the next token or of the token itself."""
        return {"logits": outputs}

    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """Scores of predicting each token by its frequency in the training text alone."""
        target = examples.target
        assert isinstance(target, Windows)
        train = window_tokens(target, examples.splits["train"], examples.phase)
        scored = window_tokens(target, examples.splits[split])
        if not len(scored):
            return {}
        nats = unigram_cross_entropy(train, scored, self.size)
        scores = {"loss": nats, "perplexity": float(np.exp(nats))}
        lengths = self.token_bytes
        written = 0 if lengths is None else int(np.asarray(lengths)[scored].sum())
        return (
            {**scores, "bits_per_byte": nats * len(scored) / np.log(2) / written}
            if written
            else scores
        )

    def describe_as(self, what: str) -> str:
        """'language modelling: 1,003,854 tokens of a vocabulary of 70 to train, in windows of
        256'."""
        count = self.counts.get("train", 0)
        return (
            f"{what}: {count:,} tokens of a vocabulary of {self.size:,} to train, in windows of "
            f"{self.context:,}"
        )


def only_text_input(
    arrays: PreparedInputs, specs: Mapping[str, InputSpec], table: Table
) -> tuple[str, Ragged]:
    """(name, tokens) of the one input, which must be of tokens. DataError otherwise."""
    names = [
        name
        for name, spec in specs.items()
        if spec.kind == "tokens" and len(spec.cardinalities) == 1
    ]
    if len(names) != 1 or len(specs) > 1:
        kinds = ", ".join(f"{name} ({spec.kind})" for name, spec in specs.items())
        raise DataError(
            f"the task reads one input of tokens, and the transforms give {kinds or 'none'}.",
            where=table.origin,
            hint="let the text column's transforms be [tokenize], and leave other columns out",
        )
    tokens = arrays[names[0]]
    assert isinstance(tokens, Ragged)
    return names[0], tokens
