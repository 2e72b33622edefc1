"""Decoder-only Transformer for language modelling: the GPT family, from tiny to GPT-2's sizes.

size    layers  heads  width
tiny         2      4     64
nano         4      4    128      nanoGPT's for a CPU
small        6      6    384      nanoGPT's for tinyshakespeare on a GPU
gpt2        12     12    768      then gpt2_medium, gpt2_large, gpt2_xl as published

num_layers, num_heads and width override those of the size. With positions: rotary, normalization:
rms, feed_forward: swiglu, qk_norm: false and bias: false it computes the same as Llama.
Sources: Radford et al., 2019; Touvron et al., 2023, arXiv:2302.13971; Jordan and others, 2024
(nanoGPT speed runs)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from danlu.errors import PartError
from danlu.parts.models._parametrization import Parametrization, build_scaled, depth_factor
from danlu.parts.models._transformer import (
    BaseLayers,
    BaseWidth,
    FeedForward,
    FeedForwardWidth,
    Normalization,
    NumHeads,
    NumLayers,
    Positions,
    Sizes,
    Width,
    check_head_widths,
    options_at_width,
)
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("tokens",)
GIVES = ("token",)
DEFAULTS = {
    "optimizer": {"name": "muon", "learning_rate": 0.006, "weight_decay": 0.1, "beta2": 0.99},
    "schedule": {"name": "warmup_stable_decay", "warmup": 0.02, "decay": 0.5, "shape": "linear"},
    "train.epochs": 5,
    "train.batch_size": 16,
    "train.clip_norm": 1.0,
}

SIZES: Sizes = {  # layers, heads, width
    "tiny": (2, 4, 64),
    "nano": (4, 4, 128),
    "small": (6, 6, 384),
    "gpt2": (12, 12, 768),
    "gpt2_medium": (24, 16, 1024),
    "gpt2_large": (36, 20, 1280),
    "gpt2_xl": (48, 25, 1600),
}


class Config(Options):
    """The size, and the variants of its layers."""

    size: Literal["tiny", "nano", "small", "gpt2", "gpt2_medium", "gpt2_large", "gpt2_xl"] = Field(
        "nano", description="A size by name; num_layers, num_heads and width override it."
    )
    weights: str | None = Field(
        None,
        description="An artifact (or run) of a gpt whose weights and tokenizer this model "
        "starts from.",
    )
    num_layers: NumLayers = None
    num_heads: NumHeads = None
    width: Width = None
    num_key_value_heads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Heads of keys and values, shared by groups of query heads; null: num_heads.",
    )
    context: int | None = Field(
        None,
        ge=1,
        le=1_048_576,
        description="Number of learned positions; null: the longest example of the task.",
    )
    positions: Positions = "rotary"
    rotary_theta: float = Field(
        10_000.0, gt=1, description="Base of the wavelengths of rotary positions."
    )
    normalization: Normalization = "rms"
    feed_forward: FeedForward = "swiglu"
    feed_forward_width: FeedForwardWidth = None
    qk_norm: bool = Field(
        True,
        description="Normalise queries and keys, which keeps attention logits small and "
        "training stable.",
    )
    tied: bool = Field(False, description="The output layer uses the weights of the embedding.")
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout of the embedding and of each half of a block.",
    )
    bias: bool = Field(
        False,
        description="Biases in the linear layers of blocks and in layer normalization.",
    )
    parametrization: Parametrization = "standard"
    base_width: BaseWidth = 128
    base_layers: BaseLayers = None

    @model_validator(mode="after")
    def _numbers_that_divide(self) -> Config:
        _, heads, width = self.resolved()
        check_head_widths(self.parametrization, self.base_width, width, heads, self.positions)
        if self.num_key_value_heads is not None and heads % self.num_key_value_heads:
            raise ValueError(
                f"num_heads {heads} is no multiple of num_key_value_heads "
                f"{self.num_key_value_heads}"
            )
        return self

    def resolved(self) -> tuple[int, int, int]:
        """(layers, heads, width) as they are built."""
        layers, heads, width = SIZES[self.size]
        return self.num_layers or layers, self.num_heads or heads, self.width or width


def width_of(config: Config) -> int:
    """Features per position."""
    return config.resolved()[2]


def at_width(config: Config, width: int) -> Config:
    """The same network at another width: as many heads, each wider or narrower in proportion."""
    return Config.model_validate(options_at_width(config, width))


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. PartError where the inputs are not one text, or the outputs are not over its
    vocabulary."""

    def network(config: Config) -> nn.Module:
        return _network(config, inputs, output)

    if config.parametrization == "standard":
        return network(config)
    branch = depth_factor(config.base_layers, config.resolved()[0])
    return build_scaled(network, config, at_width(config, config.base_width), branch)


def _network(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    from danlu.layers.transformer.blocks import StackSizes
    from danlu.layers.transformer.language_model import LanguageModel

    name, tokens = _text(inputs)
    (cardinality,) = tokens.cardinalities
    if output.size != cardinality:
        raise PartError(
            f"gpt predicts the next of the {cardinality:,} tokens it reads, and the task asks "
            f"for {output.size:,} outputs.",
            hint="choose task: language_modeling",
        )
    layers, heads, width = config.resolved()
    sizes = StackSizes(
        num_layers=layers,
        width=width,
        num_heads=heads,
        num_key_value_heads=config.num_key_value_heads,
        feed_forward=config.feed_forward,
        feed_forward_width=config.feed_forward_width,
        normalization=config.normalization,
        qk_norm=config.qk_norm,
        bias=config.bias,
        dropout=config.dropout,
    )
    context = config.context or tokens.shape[0]
    return LanguageModel(
        name,
        cardinality,
        sizes,
        rotary=config.positions == "rotary",
        context=context,
        tied=config.tied,
        theta=config.rotary_theta,
    )


def _text(inputs: Mapping[str, InputSpec]) -> tuple[str, InputSpec]:
    """(name, spec) of the only input, a text with one code per position."""
    if len(inputs) == 1:
        name, only = next(iter(inputs.items()))
        if only.kind == "tokens" and len(only.cardinalities) == 1:
            return name, only
    listing = ", ".join(f"{name} ({spec.kind})" for name, spec in inputs.items())
    raise PartError(
        f"gpt reads one text with one code per position; the inputs are {listing}.",
        hint="use task: language_modeling",
    )
