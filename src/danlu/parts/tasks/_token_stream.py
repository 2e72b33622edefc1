"""Tokens as one stream that windows are cut from, and what the tasks over such windows share."""

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

LEAST_WINDOWS = 8  # windows of a training text from which on they are cut elsewhere in every epoch
_TOGETHER = 1 << 22  # tokens copied at a time


@dataclass(frozen=True)
class TokenStream:
    """The tokens of all splits one after another.

    values    uint16 or uint32 (places,): of each split END, its tokens with END after each document, then PADDING
    regions   split -> (first place, one past its last token)
    places    int64 (R,), the first place of each row, ascending; `rows` int64 (R,), which row that is
    """

    values: np.ndarray
    regions: dict[str, tuple[int, int]]
    places: np.ndarray
    rows: np.ndarray

    def row_of(self, ids: np.ndarray) -> np.ndarray:
        """The row of the table in which each place stands."""
        return self.rows[np.maximum(np.searchsorted(self.places, ids, side="right") - 1, 0)]

    def windows(self, split: str, context: int) -> np.ndarray:
        """Where windows of `context` places begin so that each token of a split is predicted
        exactly once, int64."""
        start, stop = self.regions[split]
        return np.arange(start, stop - 1, context, dtype=np.int64)


def token_stream(
    tokens: Ragged,
    splits: Mapping[str, np.ndarray],
    continues: np.ndarray | None,
    size: int,
    room: int,
) -> TokenStream:
    """The Stream of rows of tokens by split; `size` counts the vocabulary, `room` the places of
    padding after each split."""
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
    """(which rows are followed by END, bool; places that each row takes) of a split."""
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
    """Add the tokens of `rows` and END after those that end; row i begins at place first[i]."""
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
    """(where the windows of each split begin, the phase of training).

    Training windows leave room to be moved by up to context - 1 places, unless the text is too
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
    """What the windows of `ids` hold, each place once, without padding."""
    if not len(ids):
        return field.values[:0]
    low = int(ids.min()) + field.shift
    tokens = field.values[low : int(ids.max()) + field.shift + field.length + phase - 1]
    return tokens[tokens != PADDING]


def unigram_cross_entropy(train: np.ndarray, scored: np.ndarray, size: int) -> float:
    """The cross-entropy (nats a token) of tokens `asked` under how often each stands among `told`,
    each counted once more."""
    counts = np.bincount(train, minlength=size) + 1.0
    shares = np.bincount(scored, minlength=size) / max(len(scored), 1)
    return float(-(shares * np.log(counts / counts.sum())).sum())


def document_ends(
    tokens: Ragged, continues: np.ndarray | None, room: int
) -> tuple[Ragged, np.ndarray]:
    """(END and the last tokens of each document, at most `room` in all; the first row of each) of
    rows that `continues` joins."""
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
    """The base of a task over windows of `context` tokens of one running text, each token of a
    split asked once.

    size        how many codes the vocabulary has; 0 before any text was seen
    tokenizer   what reads and writes text, once `attach` was called
    """

    score_order: ScoreOrder = ("loss", "lower")
    rows_are_independent = False
    target_names: tuple[str, ...] = ()
    ahead = 0  # how many places after the input's its target stands

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
        """Take over what the preprocessing reads text with."""
        self.tokenizer = preprocessor.tokenizer

    def state(self) -> dict[str, object]:
        """What an artifact keeps."""
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
        """Windows over one stream of all splits; to be answered, one example a document: its last
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
        )  # a window is no longer than the text: attention over padding costs its square
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
        """{"logits": float32 (N, T, codes)}: of what follows each place, or of what stands at
        it."""
        return {"logits": outputs}

    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """Scores of knowing only how often each token stands in the training text, whatever stands
        before it."""
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
        return f"{what}: {count:,} tokens of a vocabulary of {self.size:,} to train, in windows of {self.context:,}"


def only_text_input(
    arrays: PreparedInputs, specs: Mapping[str, InputSpec], table: Table
) -> tuple[str, Ragged]:
    """(name, tokens) of the one input of tokens. DataError where there is another, or none."""
    names = [
        name
        for name, spec in specs.items()
        if spec.kind == "tokens" and len(spec.cardinalities) == 1
    ]
    if len(names) != 1 or len(specs) > 1:
        kinds = ", ".join(f"{name} ({spec.kind})" for name, spec in specs.items())
        raise DataError(
            f"a running text is one input of tokens, and the transforms give {kinds or 'none'}.",
            where=table.origin,
            hint="let the text column's transforms be [tokenize], and leave other columns out",
        )
    tokens = arrays[names[0]]
    assert isinstance(tokens, Ragged)
    return names[0], tokens
