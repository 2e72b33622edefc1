"""Language modelling: predicts the next token of a text, the pretraining of GPT-like models.

The texts of the column are documents of a single stream of tokens, with the end-of-document token
between them; the model reads windows of `context` tokens and predicts the next token at every
place. Validation and test predict every token exactly once; training cuts its windows elsewhere in
every epoch. The loss is in nats per token; bits per byte can be compared between tokenizers. Splits
are consecutive parts of the text, since neighbouring passages share words and names."""

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

    from danlu.layers.generation.sampling import Sampling
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
    """The context, the column, and the samples."""

    context: int = Field(
        256, ge=2, le=1_048_576, description="Tokens of a window, which the model sees at once."
    )
    column: str | None = Field(
        None,
        description="The column of the text; null: the only one, or the one named text.",
    )
    samples: int = Field(
        2, ge=0, le=100, description="Texts generated as samples at each evaluation; 0: none."
    )
    sample_tokens: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Tokens of a sample, and of the answer to a row of predict.",
    )


def adapt(config: Config, data: Data) -> Data:
    """The data section with texts tokenized whole."""
    return documents.without_cutting(data)


def recast(config: Config, table: Table) -> Table:
    """The text in pieces of a few KB, lines of a file joined again."""
    return documents.document_pieces(table, documents.text_column(table, config.column))


class LanguageModeling(RunningText, ContinuesText, DrawsSamples, WritesTokenByToken):
    """The vocabulary, the context, and how a text is continued."""

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
        """Texts that the model writes from the beginning of a document."""
        from danlu.layers.generation.sampling import Sampling

        count = self.config.samples if self.tokenizer is not None else 0
        texts = self._written(module, [[END]] * count, Sampling(temperature=0.8, top_p=0.95), seed)
        return tuple(Sample(f"text {number}", text) for number, text in enumerate(texts, 1))

    def respond(self, module: nn.Module, batch: Batch) -> list[Answer]:
        """{"prediction": the likeliest continuation} per row."""
        from danlu.layers.generation.sampling import Sampling

        prompts = [
            [code for code in row if code != PADDING] for row in batch.inputs["tokens"].tolist()
        ]
        return [
            {"prediction": text}
            for text in self._written(module, prompts, Sampling(temperature=0), 0)
        ]

    def write(self, run: RunNetwork, inputs: Mapping[str, np.ndarray]) -> list[Answer]:
        """The answers, as `respond` gives them, of a network that `run` runs."""
        prompts = [row[row != PADDING].tolist() for row in inputs["tokens"]]

        def following(rows: list[list[int]]) -> np.ndarray:
            return last_logits(run({"tokens": pad_rows(rows)})["logits"], rows)

        return [
            {"prediction": self._tokenizer().decode(codes)}
            for codes in greedy(following, prompts, self.context, self.config.sample_tokens)
        ]

    def _written(
        self, module: nn.Module, prompts: list[list[int]], sampling: Sampling, seed: int
    ) -> list[str]:
        """The continuation of each prompt."""
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
    """The task; its vocabulary is set by the first call of make_examples."""
    return LanguageModeling(config)


def restore(config: Config, state: Mapping[str, Any]) -> LanguageModeling:
    """The task whose `state()` this is."""
    return LanguageModeling(
        config,
        int(state["size"]),
        {str(split): int(count) for split, count in state["counts"].items()},
    )
