"""Masked language modelling: predicts hidden words, the pretraining of BERT-like encoders.

`share` of the tokens of every window are targets. 80 % of those are hidden behind the mask, 10 %
replaced by a random token of the vocabulary, and 10 % left unchanged, so that the model must
predict something at every place. They are drawn anew in every update, and alike in every
evaluation. Source: Devlin et al., 2018, arXiv:1810.04805."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from danlu.data import documents
from danlu.data.examples import Examples, Ragged
from danlu.parts.tasks._base import (
    Answer,
    AnswersFromArrays,
    HidesInputs,
    PreparedInputs,
)
from danlu.parts.tasks._token_stream import RunningText
from danlu.recipe import Data, Options
from danlu.terms import END, FIRST_TOKEN, IGNORED, MASK, PADDING, Column, InputSpec, Table

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import Batch

ASKS = "tokens"
TARGETS = (0, 0)
DEFAULTS = {
    "model": "encoder",
    "loss": "cross_entropy",
    "metrics": ["accuracy", "perplexity"],
    "data.split": {"name": "in_order", "validation": 0.05, "test": 0.05},
    "data.transforms": {"text": [{"name": "tokenize", "kind": "bpe"}]},
}
_HIDDEN, _REPLACED = 0.8, 0.1
_MARK = "[MASK]"  # stands for a masked token in a text to be answered
_TOLD = 5  # likeliest tokens in the answer to a masked token


class Config(Options):
    """The context, the share of targets, and the column."""

    context: int = Field(128, ge=2, le=1_048_576, description="Tokens of a window.")
    share: float = Field(0.15, gt=0, lt=1, description="Share of the tokens that are targets.")
    column: str | None = Field(
        None,
        description="The column of the text; null: the only one, or the one named text.",
    )


def adapt(config: Config, data: Data) -> Data:
    """The data section with texts tokenized whole."""
    return documents.without_cutting(data)


def recast(config: Config, table: Table) -> Table:
    """The text in pieces of a few KB, lines of a file joined again."""
    return documents.document_pieces(table, documents.text_column(table, config.column))


class MaskedLanguageModeling(RunningText, HidesInputs, AnswersFromArrays):
    """The vocabulary, the context, and the share of targets."""

    def __init__(
        self, config: Config, size: int = 0, counts: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(config.context, size, counts)
        self.share = config.share

    def make_examples(
        self,
        arrays: PreparedInputs,
        specs: Mapping[str, InputSpec],
        targets: Mapping[str, Column],
        splits: Mapping[str, np.ndarray],
        table: Table,
        answering: bool = False,
    ) -> Examples:
        """Windows over one stream of all splits; to be answered, the documents, in which [MASK]
        stands for a masked token."""
        examples = super().make_examples(arrays, specs, targets, splits, table, answering)
        if answering and self.tokenizer is not None:
            examples.inputs["tokens"] = self._with_masks(table, examples)
        return examples

    def _with_masks(self, table: Table, examples: Examples) -> Ragged:
        (column,) = table.columns.values()
        starts = [*examples.row_of(examples.splits["data"]).tolist(), len(table)]
        texts = [
            "".join(column.text(row) or "" for row in range(low, high))
            for low, high in pairwise(starts)
        ]
        pieces = [text.split(_MARK) for text in texts]
        codes, offsets = self._tokenizer().encode(
            [piece for text_pieces in pieces for piece in text_pieces]
        )
        encoded = iter([codes[low:high].tolist() for low, high in pairwise(offsets.tolist())])
        rows = []
        for text_pieces in pieces:
            row = [END]
            for number in range(len(text_pieces)):
                row += [*([MASK] if number else []), *next(encoded)]
            rows.append(row[: self.context])
        sizes = np.cumsum([0, *map(len, rows)]).astype(np.int64)
        return Ragged(
            np.array([code for row in rows for code in row], dtype=np.int64), sizes, PADDING
        )

    def corrupt(self, batch: Batch, seed: int) -> Batch:
        """The batch with some tokens hidden, which are its targets.

        What happens to a token is a function of the seed, its window and its place in it. A window
        without any token that could be hidden has no target; any other has at least one."""
        import torch

        from danlu.system.random_draws import counter_bits, counter_uniform

        tokens = batch.inputs["tokens"]
        rows, places = batch.rows[:, None], torch.arange(tokens.shape[1], device=tokens.device)
        chance = counter_uniform(seed, rows, places).masked_fill_(tokens < FIRST_TOKEN, 2.0)
        hidden = (chance < self.share) | (
            (chance == chance.amin(dim=1, keepdim=True)) & (chance < 1)
        )
        fate = counter_uniform(seed + 1, rows, places)
        replacements = (counter_bits(seed + 2, rows, places) & (2**31 - 1)) % max(
            self.size - FIRST_TOKEN, 1
        ) + FIRST_TOKEN
        shown = torch.where(hidden & (fate < _HIDDEN), MASK, tokens)
        shown = torch.where(hidden & (fate >= 1 - _REPLACED), replacements, shown)
        return replace(
            batch,
            inputs={**batch.inputs, "tokens": shown},
            target=tokens.masked_fill(~hidden, IGNORED),
        )

    def respond(self, module: nn.Module, batch: Batch) -> list[Answer]:
        """{"prediction": the text with [MASK] filled in, "masked": [the likeliest tokens of each,
        with their probabilities]} per row."""
        logits = module(batch.inputs).float().cpu().numpy()
        return self.answers_from_arrays(
            {"logits": logits}, {"tokens": batch.inputs["tokens"].cpu().numpy()}
        )

    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """The answers, as `respond` gives them; `beside` holds the tokens."""
        logits = arrays["logits"].astype(np.float32)
        logits[..., :FIRST_TOKEN] = -np.inf
        return [
            self._filled(row, row_logits)
            for row, row_logits in zip(beside["tokens"], logits, strict=True)
        ]

    def _filled(self, row: np.ndarray, logits: np.ndarray) -> Answer:
        codes = row.tolist()
        guesses = []
        for index, code in enumerate(codes):
            if code == MASK:
                shares = np.exp(logits[index] - logits[index].max())
                best = np.argsort(-shares, kind="stable")[
                    : min(_TOLD, self.size - FIRST_TOKEN)
                ].tolist()
                codes[index] = best[0]
                guesses.append(
                    {
                        self._tokenizer().decode([token]): float(shares[token] / shares.sum())
                        for token in best
                    }
                )
        text = self._tokenizer().decode([code for code in codes if code not in (PADDING, END)])
        return {"prediction": text, "masked": guesses}

    def describe(self) -> str:
        """'masked language modelling: 1,003,854 tokens of a vocabulary of 70 to train, in windows
        of 128; 15 % asked'."""
        return f"{self.describe_as('masked language modelling')}; {100 * self.share:g} % asked"


def build(config: Config, targets: Mapping[str, Column]) -> MaskedLanguageModeling:
    """The task; its vocabulary is set by the first call of make_examples."""
    return MaskedLanguageModeling(config)


def restore(config: Config, state: Mapping[str, Any]) -> MaskedLanguageModeling:
    """The task whose `state()` this is."""
    return MaskedLanguageModeling(
        config,
        int(state["size"]),
        {str(split): int(count) for split, count in state["counts"].items()},
    )
