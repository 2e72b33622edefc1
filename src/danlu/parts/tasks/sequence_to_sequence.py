"""Sequence to sequence: one text in, another out, as in translation and summarisation.

The target is a text column, the one other text column is the source. The task learns a vocabulary
of its own from the training targets (the source has that of its transform). The model learns to
predict each token of the target from the source and the tokens before it; answers are found by beam
search. Source: Sutskever, Vinyals and Le, 2014, arXiv:1409.3215."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from danlu import tokenizing
from danlu.data.examples import Examples, Ragged
from danlu.errors import DataError
from danlu.parts.tasks._base import (
    Answer,
    CutsExamples,
    DrawsSamples,
    HasReferences,
    PreparedInputs,
    Responds,
    RewritesTexts,
    RunNetwork,
    ScoreOrder,
    Task,
    WritesTokenByToken,
)
from danlu.parts.tasks._numpy_generation import beam_search, last_logits, pad_rows
from danlu.parts.tasks._targets import as_text, refuse_empty
from danlu.recipe import Options
from danlu.terms import (
    BEGINNING,
    END,
    FIRST_TOKEN,
    IGNORED,
    MASK,
    PADDING,
    UNKNOWN,
    Column,
    InputSpec,
    OutputSpec,
    Sample,
    Table,
)
from danlu.tokenizing import Tokenizer
from danlu.tokenizing.from_artifact import is_artifact, output_tokenizer_state

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.terms import Batch

ASKS = "tokens"
TARGETS = (1, 1)
DEFAULTS = {
    "model": "seq2seq",
    "loss": "cross_entropy",
    "metrics": ["perplexity", "accuracy", "rouge"],
    "data.transforms": {"text": [{"name": "tokenize", "kind": "bpe", "end": True}]},
}
DECODER = "decoder"  # the input of the target's tokens so far
_SAMPLES = 3  # samples at each evaluation
_WIDTH = 100  # characters of a source in the title of a sample
_NEVER = (PADDING, UNKNOWN, BEGINNING, MASK)  # codes that are never written


class Config(Options):
    """The vocabulary of the target, and the beam search."""

    kind: Literal["bpe", "words", "characters", "bytes", "file"] = Field(
        "bpe", description="What a token of the target is."
    )
    vocabulary: int | None = Field(
        None,
        ge=FIRST_TOKEN + 1,
        le=1 << 20,
        description="Size of the vocabulary, the five special tokens included; null: 32,768 words, "
        "8,192 byte pairs, all characters.",
    )
    lower: bool = Field(
        False, description="Put the target into lower case; so are the answers then."
    )
    tokenizer: str | None = Field(
        None,
        description="For kind file: a tokenizer.json, or an artifact whose target vocabulary is "
        "used.",
    )
    max_tokens: int | None = Field(
        None,
        ge=1,
        le=1_048_576,
        description="Most tokens of an answer; null: those of the longest training target.",
    )
    num_beams: int = Field(
        5,
        ge=1,
        le=1000,
        description="Beams of the search; 1: greedy search.",
    )
    length_penalty: float = Field(
        0.6,
        ge=-10,
        le=10,
        description="Log-probabilities are divided by this power of the length: above 0 favours "
        "longer "
        "answers.",
    )
    no_repeat: int = Field(
        0,
        ge=0,
        le=1000,
        description="No run of so many tokens occurs twice in an answer; 0: any may.",
    )

    @model_validator(mode="after")
    def _one_vocabulary(self) -> Config:
        if (self.kind == "file") != (self.tokenizer is not None):
            raise ValueError("tokenizer names a file for kind file, and only for it")
        if self.kind in ("bytes", "file") and self.vocabulary is not None:
            raise ValueError(f"the vocabulary of kind {self.kind} is fixed: leave vocabulary out")
        if (
            self.kind == "bpe"
            and self.vocabulary is not None
            and self.vocabulary < 256 + FIRST_TOKEN
        ):
            raise ValueError(
                f"vocabulary must be at least {256 + FIRST_TOKEN} for bpe, which has a token for "
                "each byte"
            )
        return self


class SequenceToSequence(
    CutsExamples,
    Responds,
    DrawsSamples,
    HasReferences,
    RewritesTexts,
    WritesTokenByToken,
    Task,
):
    """The tokenizer of the target, and how answers are generated.

    longest   tokens of the longest training target, its end included
    """

    score_order: ScoreOrder = ("perplexity", "lower")

    def __init__(self, config: Config, target: str, tokenizer: Tokenizer, longest: int) -> None:
        self.config = config
        self.target_names = (target,)
        self.answer_column = target
        self.tokenizer = tokenizer
        self.longest = longest
        self.output = OutputSpec(tokenizer.size, per="token", causal=True)
        self._references: Column | None = (
            None  # the raw targets of the rows last given to make_examples
        )
        self._shown: list[tuple[str, dict[str, np.ndarray]]] = []  # (title, inputs) of the samples

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
        return {
            "target": self.target_names[0],
            "tokenizer": self.tokenizer.state(),
            "longest": self.longest,
        }

    # --- examples

    def make_examples(
        self,
        arrays: PreparedInputs,
        specs: Mapping[str, InputSpec],
        targets: Mapping[str, Column],
        splits: Mapping[str, np.ndarray],
        table: Table,
        answering: bool = False,
    ) -> Examples:
        """One example per row: the source, "decoder" (BEGINNING and the target), and as its target
        the target's tokens and END."""
        source = _source(specs, table)
        rows = len(arrays[source])
        codes, offsets = np.zeros(0, dtype=np.int64), np.zeros(rows + 1, dtype=np.int64)
        self._references = None
        if targets:
            self._references = as_text(targets[self.target_names[0]])
            codes, offsets = self.tokenizer.encode(self._references)
        decoder = _with_one(codes, offsets, BEGINNING, before=True)
        target = _with_one(codes, offsets, END, before=False) if targets else None
        inputs = {**arrays, DECODER: decoder}
        self._shown = _shown(source, inputs, splits, table, self.target_names[0])
        return Examples(
            inputs=inputs,
            input_specs={
                **specs,
                DECODER: InputSpec("tokens", (self.longest,), cardinalities=(self.tokenizer.size,)),
            },
            target=target,
            splits=dict(splits),
            units=round(float(decoder.sizes[splits["train"]].mean()))
            if "train" in splits and len(splits["train"])
            else 0,
            unit="tokens",
        )

    def references(self, batch: Batch) -> list[str]:
        """The raw targets of a batch. DataError for rows without targets."""
        if self._references is None:
            raise DataError(
                "the rows hold no target to compare with.", hint="give the column of the target"
            )
        return [self._references.text(row) or "" for row in batch.rows.tolist()]

    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """Scores of predicting each token by its frequency in the training targets alone."""
        target = examples.target
        if not isinstance(target, Ragged):
            return {}
        train, scored = (_codes(target, examples.splits[name]) for name in ("train", split))
        counts = (
            np.bincount(train, minlength=self.tokenizer.size) + 1.0
        )  # so that a token never seen has a finite logarithm
        shares = counts / counts.sum()
        if not len(scored):
            return {}
        nats = -np.log(shares[scored]).mean()
        return {"perplexity": math.exp(nats), "accuracy": float(np.mean(scored == counts.argmax()))}

    # --- answers

    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """{"logits": float32 (N, S, codes)} of the next token after each token of "decoder"."""
        return {"logits": outputs}

    def respond(self, module: nn.Module, batch: Batch) -> list[Answer]:
        """{"prediction": the text that beam search finds} per row."""
        return [
            {"prediction": text}
            for text, _ in self._written(module, batch.inputs, self.config.num_beams)
        ]

    def rewrite(self, module: nn.Module, batch: Batch, column: Column) -> list[str | None]:
        """The texts that beam search finds; None where one is empty or was cut off at the most
        tokens."""
        texts = self._written(module, batch.inputs, self.config.num_beams)
        return [text if ended and text else None for text, ended in texts]

    def write(self, run: RunNetwork, inputs: Mapping[str, np.ndarray]) -> list[Answer]:
        """The answers, as `respond` gives them, of a network that `run` runs."""
        limit = self.config.max_tokens or self.longest
        (source,) = (name for name in inputs if name != DECODER)

        def following(rows: list[int], codes: list[list[int]]) -> np.ndarray:
            return last_logits(
                run({source: inputs[source][rows], DECODER: pad_rows(codes)})["logits"], codes
            )

        sequences = beam_search(
            following,
            [limit] * len(inputs[DECODER]),
            beams=self.config.num_beams,
            length_penalty=self.config.length_penalty,
            no_repeat=self.config.no_repeat,
        )
        return [
            {"prediction": self.tokenizer.decode(each).strip() if each else ""}
            for each in sequences
        ]

    def samples(self, module: nn.Module, seed: int) -> tuple[Sample, ...]:
        """The answers to the first rows of the validation split, by greedy search."""
        import torch

        device = next(module.parameters()).device
        samples = []
        for name, inputs in self._shown:
            tensors = {
                key: torch.from_numpy(array.astype(np.int64))[None].to(device)
                for key, array in inputs.items()
            }
            samples.append(Sample(name, self._written(module, tensors, 1)[0][0]))
        return tuple(samples)

    def _written(
        self, module: nn.Module, inputs: Mapping[str, Tensor], beams: int
    ) -> list[tuple[str, bool]]:
        """(the text found, whether it ended by itself) of each row."""
        import torch

        from danlu.parts.tasks._beam_search import beam_search

        limit = self.config.max_tokens or self.longest
        with torch.inference_mode():
            hypotheses = beam_search(
                steps(module, inputs, min(limit, 256)),
                [limit] * len(inputs[DECODER]),
                begin=BEGINNING,
                end=END,
                beams=beams,
                length_penalty=self.config.length_penalty,
                no_repeat=self.config.no_repeat,
                forbidden=_NEVER,
                device=inputs[DECODER].device,
            )
        return [
            (self.tokenizer.decode(best_first[0].tokens).strip(), best_first[0].ended)
            if best_first
            else ("", False)
            for best_first in hypotheses
        ]

    def describe(self) -> str:
        """'sequence to sequence: en, 8,192 tokens (bpe), up to 44 a row; 5 beams'."""
        return (
            f"sequence to sequence: {self.target_names[0]}, {self.tokenizer.size:,} tokens "
            f"({self.tokenizer.kind}), up to "
            f"{self.longest:,} a row; {self.config.num_beams} "
            f"beam{'s' if self.config.num_beams > 1 else ''}"
        )


def steps(
    module: Any, inputs: Mapping[str, Tensor], length: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """The step function of a beam search with a model that has `begin` and `extend`."""
    cache = module.begin(inputs, length)

    def step(tokens_N: Tensor, parents_N: Tensor) -> Tensor:
        nonlocal cache
        cache = cache.keep(parents_N)
        return module.extend(tokens_N[:, None], cache)[:, -1]

    return step


def build(config: Config, targets: Mapping[str, Column]) -> SequenceToSequence:
    """The task, with a vocabulary learnt from the training targets."""
    ((name, column),) = targets.items()
    refuse_empty(column)
    column = as_text(column)
    written = (
        None
        if config.tokenizer is None or not is_artifact(config.tokenizer)
        else output_tokenizer_state(config.tokenizer)
    )
    if written is not None:  # the tokenizer of that task's target, not of its source
        tokenizer = tokenizing.restore(written)
    else:
        tokenizer = tokenizing.fit(
            config.kind, column, config.vocabulary, config.lower, path=config.tokenizer
        )
    _, offsets = tokenizer.encode(column)
    return SequenceToSequence(config, name, tokenizer, int(np.diff(offsets).max(initial=0)) + 1)


def restore(config: Config, state: Mapping[str, Any]) -> SequenceToSequence:
    """The task whose `state()` this is."""
    return SequenceToSequence(
        config, str(state["target"]), tokenizing.restore(state["tokenizer"]), int(state["longest"])
    )


def _source(described: Mapping[str, InputSpec], table: Table) -> str:
    """The name of the one input, with one code per token. DataError."""
    if len(described) == 1:
        name, only = next(iter(described.items()))
        if only.kind == "tokens" and len(only.cardinalities) == 1:
            return name
    kinds = ", ".join(f"{name} ({spec.kind})" for name, spec in described.items())
    raise DataError(
        f"the task reads one text, and the data gives {kinds}.",
        where=table.origin,
        hint="set data.columns.NAME.use to false for the other columns",
    )


def _with_one(codes: np.ndarray, offsets: np.ndarray, code: int, *, before: bool) -> Ragged:
    """The rows with one more code before or after each. The padding is PADDING before, for an
    input, and IGNORED after, for a target."""
    rows = len(offsets) - 1
    longer = offsets + np.arange(rows + 1)
    values = np.full(len(codes) + rows, code, dtype=np.int64)
    own = np.ones(len(values), dtype=bool)
    own[longer[:-1] if before else longer[1:] - 1] = False
    values[own] = codes
    return Ragged(values, longer, PADDING if before else IGNORED)


def _codes(target: Ragged, rows: np.ndarray) -> np.ndarray:
    """The codes of some rows, one after another."""
    from danlu.data.examples import take_examples

    return take_examples(target, rows).values


def _shown(
    source: str,
    inputs: Mapping[str, Any],
    splits: Mapping[str, np.ndarray],
    table: Table,
    target: str,
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """(a title, the inputs) of the samples: the first rows of the validation split."""
    rows = splits.get("validation", np.zeros(0, dtype=np.int64))[:_SAMPLES].tolist()
    read = [
        column for name, column in table.columns.items() if column.kind == "text" and name != target
    ]
    return [
        (
            textwrap.shorten(read[0].text(row) or "", _WIDTH, placeholder=" ...")
            if len(read) == 1
            else table.where(row),
            {source: inputs[source].row(row), DECODER: inputs[DECODER].row(row)},
        )
        for row in rows
        if len(inputs[source].row(row))
    ]
