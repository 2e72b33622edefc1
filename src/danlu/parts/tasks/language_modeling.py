"""The next token of a running text: language modelling, the pretraining of GPT-like models.

Every text of the column is one document after another in a single stream of tokens, with the
end-of-document token between them; the model reads windows of `context` tokens and is asked for the
next token at every place. Validation and test ask every token exactly once; training cuts its
windows elsewhere in every epoch. The loss is in nats a token; bits per byte can be compared between
tokenizers. Splits are consecutive parts of the text, since neighbouring passages know each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from danlu.data import documents
from danlu.parts.tasks._base import (
    Answer,
    ContinuesText,
    DrawsSamples,
    RunNetwork,
    WritesTokenByToken,
)
from danlu.parts.tasks._numpy_generation import greedy, last_logits, pad_rows
from danlu.parts.tasks._token_stream import RunningText
from danlu.recipe import Data, Options
from danlu.terms import END, PADDING, Column, Sample, Table

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import Batch

ASKS = "tokens"
TARGETS = (0, 0)
DEFAULTS = {
    "model": "gpt",
    "loss": "cross_entropy",
    "metrics": ["bits_per_byte", "perplexity"],
    "data.split": {"name": "in_order", "validation": 0.05, "test": 0.05},
    "data.transforms": {"text": [{"name": "tokenize", "kind": "bpe"}]},
}


class Config(Options):
    """How far the model looks back, which column it reads, and what is written to look at."""

    context: int = Field(
        256, ge=2, le=1_048_576, description="Tokens of a window: how far back the model can look."
    )
    column: str | None = Field(
        None,
        description="The column that holds the text; null: the only one, or the one called text.",
    )
    samples: int = Field(
        2, ge=0, le=100, description="Texts written at each evaluation, to look at; 0: none."
    )
    sample_tokens: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Tokens of such a text, and of the answer to a row of predict.",
    )


def adapt(config: Config, data: Data) -> Data:
    """The data section with texts tokenized whole."""
    return documents.without_cutting(data)


def recast(config: Config, table: Table) -> Table:
    """The text in pieces of a few KB, lines of a file joined again."""
    return documents.document_pieces(table, documents.text_column(table, config.column))


class LanguageModeling(RunningText, ContinuesText, DrawsSamples, WritesTokenByToken):
    """The vocabulary, the length of a window, and how a text goes on."""

    ahead = 1
    usage = "generate {} --prompt TEXT"

    def __init__(
        self, config: Config, size: int = 0, counts: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(config.context, size, counts)
        self.config = config

    def describe(self) -> str:
        """'language modelling: 1,003,854 tokens of a vocabulary of 70 to train, in windows of
        256'."""
        return self.describe_as("language modelling")

    def samples(self, module: nn.Module, seed: int) -> tuple[Sample, ...]:
        """Texts as the model writes them by itself, from the beginning of a document."""
        from danlu.layers.generation.sampling import Sampling

        count = self.config.samples if self.tokenizer is not None else 0
        texts = self._written(module, [[END]] * count, Sampling(temperature=0.8, top_p=0.95), seed)
        return tuple(Sample(f"text {number}", text) for number, text in enumerate(texts, 1))

    def respond(self, module: nn.Module, batch: Batch) -> list[Answer]:
        """{"prediction": how the text most likely goes on} a row."""
        from danlu.layers.generation.sampling import Sampling

        prompts = [
            [code for code in row if code != PADDING] for row in batch.inputs["tokens"].tolist()
        ]
        return [
            {"prediction": text}
            for text in self._written(module, prompts, Sampling(temperature=0), 0)
        ]

    def write(self, run: RunNetwork, inputs: Mapping[str, np.ndarray]) -> list[Answer]:
        """`respond`, of a network that `run` runs."""
        prompts = [row[row != PADDING].tolist() for row in inputs["tokens"]]

        def following(rows: list[list[int]]) -> np.ndarray:
            return last_logits(run({"tokens": pad_rows(rows)})["logits"], rows)

        return [
            {"prediction": self._tokenizer().decode(codes)}
            for codes in greedy(following, prompts, self.context, self.config.sample_tokens)
        ]

    def _written(
        self, module: nn.Module, prompts: list[list[int]], sampling: Any, seed: int
    ) -> list[str]:
        """What is written after each prompt."""
        from danlu.layers.generation.autoregressive import Continuation

        going = Continuation(module, prompts, self.context, sampling, seed)
        for _ in range(self.config.sample_tokens):
            if not going.step():
                break
        return [
            self._tokenizer().decode(codes[len(prompt) :])
            for codes, prompt in zip(going.codes, prompts, strict=True)
        ]


def build(config: Config, targets: Mapping[str, Column]) -> LanguageModeling:
    """The task; its vocabulary is known once it has seen the text."""
    return LanguageModeling(config)


def restore(config: Config, state: Mapping[str, Any]) -> LanguageModeling:
    """The task as `state()` wrote it."""
    return LanguageModeling(
        config,
        int(state["size"]),
        {str(split): int(count) for split, count in state["counts"].items()},
    )
