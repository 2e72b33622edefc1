"""Encoder-decoder Transformer: reads one text and writes another (translation, summarisation).

size     layers  heads  width
tiny        2+2      2     64
small       3+3      4    256     some ten thousand pairs of sentences
medium      6+6      8    512     Vaswani's base model: some million pairs
large       6+6     16   1024

The options below override those of the size. Normalization precedes each half of a block, positions
are rotary in both stacks, and the output layer uses the weights of the target's embedding unless
`tied` is false.
Sources: Vaswani et al., 2017, arXiv:1706.03762; Press and Wolf, 2017, arXiv:1608.05859 (tied
embeddings)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from danlu.errors import PartError
from danlu.recipe import Options, Part

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("tokens",)
GIVES = ("token",)
DEFAULTS = {
    "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
    "optimizer": {"name": "muon", "learning_rate": 0.003, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup": 0.1},
    "train.epochs": 15,
    "train.batch_size": 128,
    "train.clip_norm": 1.0,
}
TARGET = "decoder"  # the input that holds the target tokens so far

SIZES: dict[str, tuple[int, int, int]] = {  # layers of each stack, heads, width
    "tiny": (2, 2, 64),
    "small": (3, 4, 256),
    "medium": (6, 8, 512),
    "large": (6, 16, 1024),
}


class Config(Options):
    """The size, and the variants of its layers."""

    weights: str | None = Field(
        None,
        description="An artifact (or run) of a seq2seq whose weights and tokenizers this model "
        "starts from.",
    )
    size: Literal["tiny", "small", "medium", "large"] = Field(
        "small", description="A size by name; the options below override it."
    )
    encoder_layers: int | None = Field(
        None, ge=1, le=1000, description="Blocks of the encoder; null: as the size has it."
    )
    decoder_layers: int | None = Field(
        None, ge=1, le=1000, description="Blocks of the decoder; null: as the size has it."
    )
    num_heads: int | None = Field(
        None, ge=1, le=1024, description="Attention heads; null: as the size has it."
    )
    width: int | None = Field(
        None,
        ge=2,
        le=65536,
        description="Features per position; null: as the size has it.",
    )
    normalization: Literal["rms", "layer"] = Field(
        "rms", description="Normalization of each half of a block."
    )
    feed_forward: Literal["gelu", "swiglu", "relu_squared"] = Field(
        "relu_squared", description="Activation of the feed-forward half of a block."
    )
    feed_forward_width: int | None = Field(
        None,
        ge=1,
        le=1_048_576,
        description="Its inner width; null: 4 times the width, 8/3 times for swiglu.",
    )
    qk_norm: bool = Field(
        False,
        description="Normalise queries and keys, which keeps attention logits small and "
        "training stable.",
    )
    tied: bool = Field(
        True,
        description="The output layer uses the weights of the target's embedding.",
    )
    shared: bool = Field(
        False,
        description="One embedding for source and target; only if both use the same vocabulary.",
    )
    dropout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Dropout of the embeddings and of each half of a block.",
    )
    bias: bool = Field(
        False,
        description="Biases in the linear layers of blocks and in layer normalization.",
    )

    @model_validator(mode="after")
    def _numbers_that_divide(self) -> Config:
        _, heads, width = self.resolved()
        if width % heads:
            raise ValueError(f"width {width} is no multiple of num_heads {heads}")
        if (width // heads) % 2:
            raise ValueError(
                f"rotary positions rotate pairs of features, and a head has {width // heads}: "
                "choose another width or num_heads"
            )
        return self

    def resolved(self) -> tuple[tuple[int, int], int, int]:
        """((layers of the encoder, of the decoder), heads, width) as they are built."""
        layers, heads, width = SIZES[self.size]
        return (
            (self.encoder_layers or layers, self.decoder_layers or layers),
            self.num_heads or heads,
            self.width or width,
        )


def adapt_task(config: Config, task: Part) -> Part:
    """The task with the target vocabulary of the artifact that the weights come from."""
    if config.weights is None or task.name != "sequence_to_sequence":
        return task
    borrowed = {"kind": "file", "tokenizer": config.weights, "vocabulary": None, "lower": False}
    return Part(task.name, task.options.model_copy(update=borrowed))


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. PartError where the inputs are not a source and a target with one code per
    position."""
    from danlu.layers.transformer.blocks import StackSizes
    from danlu.parts.models._encoder_decoder import EncoderDecoder

    source = _source(inputs)
    cardinalities = inputs[source].cardinalities[0], inputs[TARGET].cardinalities[0]
    if output.size != cardinalities[1]:
        raise PartError(
            f"seq2seq predicts the next of the {cardinalities[1]:,} tokens of its target, and "
            f"the task asks for {output.size:,} outputs.",
            hint="choose task: sequence_to_sequence",
        )
    if config.shared and cardinalities[0] != cardinalities[1]:
        raise PartError(
            f"model.shared: the source has {cardinalities[0]:,} tokens and the target "
            f"{cardinalities[1]:,}, so they do not share a vocabulary.",
            hint="give both one tokenizer.json (kind: file), or set model.shared to false",
        )
    (encoder, decoder), heads, width = config.resolved()
    sizes = StackSizes(
        num_layers=encoder,
        width=width,
        num_heads=heads,
        feed_forward=config.feed_forward,
        feed_forward_width=config.feed_forward_width,
        normalization=config.normalization,
        qk_norm=config.qk_norm,
        bias=config.bias,
        dropout=config.dropout,
    )
    return EncoderDecoder(
        source,
        TARGET,
        cardinalities,
        sizes,
        replace(sizes, num_layers=decoder),
        longest=max(inputs[name].shape[0] for name in (source, TARGET)),
        tied=config.tied,
        shared=config.shared,
    )


def _source(inputs: Mapping[str, InputSpec]) -> str:
    """The name of the source input."""
    sources = [name for name in inputs if name != TARGET]
    plain = all(spec.kind == "tokens" and len(spec.cardinalities) == 1 for spec in inputs.values())
    if TARGET in inputs and len(sources) == 1 and plain:
        return sources[0]
    listing = ", ".join(f"{name} ({spec.kind})" for name, spec in inputs.items())
    raise PartError(
        "seq2seq reads one text and writes another, with one code per position; the inputs are "
        f"{listing}.",
        hint="use task: sequence_to_sequence",
    )
