"""Decoder-only Transformer for language modelling: the GPT family, from a toy to GPT-2's sizes.

size    layers  heads  width
tiny         2      4     64
nano         4      4    128      nanoGPT's for a CPU
small        6      6    384      nanoGPT's for tinyshakespeare on a GPU
gpt2        12     12    768      then gpt2_medium, gpt2_large, gpt2_xl as published

A number given beside the size overrides the size's own. With positions: rotary, normalization: rms,
feed_forward: swiglu, qk_norm: false and bias: false it is Llama's network, to the last digits.
Sources: Radford et al., 2019; Touvron et al., 2023, arXiv:2302.13971; Jordan and others, 2024
(nanoGPT speed runs)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from danlu.errors import PartError
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

SIZES: dict[str, tuple[int, int, int]] = {  # layers, heads, width
    "tiny": (2, 4, 64),
    "nano": (4, 4, 128),
    "small": (6, 6, 384),
    "gpt2": (12, 12, 768),
    "gpt2_medium": (24, 16, 1024),
    "gpt2_large": (36, 20, 1280),
    "gpt2_xl": (48, 25, 1600),
}


class Config(Options):
    """Its size, and which of the usual parts it is built of."""

    size: Literal["tiny", "nano", "small", "gpt2", "gpt2_medium", "gpt2_large", "gpt2_xl"] = Field(
        "nano", description="A size by name; the numbers below override its own."
    )
    weights: str | None = Field(
        None,
        description="An artifact (or run) of a gpt whose weights and tokenizer this model starts from.",
    )
    num_layers: int | None = Field(
        None, ge=1, le=1000, description="Blocks; none: as the size has it."
    )
    num_heads: int | None = Field(
        None, ge=1, le=1024, description="Heads of attention; none: as the size has it."
    )
    width: int | None = Field(
        None,
        ge=2,
        le=65536,
        description="Numbers that stand for a token; none: as the size has it.",
    )
    num_key_value_heads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Heads of keys and values, shared by groups of query heads; none: one each.",
    )
    context: int | None = Field(
        None,
        ge=1,
        le=1_048_576,
        description="Tokens that learned positions reach; none: the longest example of the task.",
    )
    positions: Literal["rotary", "learned"] = Field(
        "rotary", description="How a token's place is told."
    )
    rotary_theta: float = Field(
        10_000.0, gt=1, description="Base of the wave lengths of rotary positions."
    )
    normalization: Literal["rms", "layer"] = Field(
        "rms", description="Normalization before each half of a block."
    )
    feed_forward: Literal["gelu", "swiglu", "relu_squared"] = Field(
        "swiglu", description="Kind of the feed-forward half."
    )
    feed_forward_width: int | None = Field(
        None,
        ge=1,
        le=1_048_576,
        description="Its inner width; none: 4 times the width, 8/3 times for swiglu.",
    )
    qk_norm: bool = Field(
        True,
        description="Normalise queries and keys: attention cannot grow sharper than training can bear.",
    )
    tied: bool = Field(
        False, description="The head multiplies by the embedding's weights instead of its own."
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share dropped of the embedding and of what each half of a block adds.",
    )
    bias: bool = Field(
        False,
        description="Add biases to the layers inside the blocks, and shifts to layer normalization.",
    )
    parametrization: Literal["standard", "mup"] = Field(
        "standard",
        description="mup scales the start, learning rates and multipliers by the width: one learning rate then serves every width.",
    )
    base_width: int = Field(128, ge=2, description="Width at which mup is the same as standard.")
    base_layers: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Blocks at which depth changes nothing (mup); null: depth is not scaled.",
    )

    @model_validator(mode="after")
    def _numbers_that_divide(self) -> Config:
        _, heads, width = self.resolved()
        self._refuse_indivisible("width", width, heads)
        if self.parametrization == "mup":
            self._refuse_indivisible("base_width", self.base_width, heads)
        if self.num_key_value_heads is not None and heads % self.num_key_value_heads:
            raise ValueError(
                f"num_heads {heads} is no multiple of num_key_value_heads {self.num_key_value_heads}"
            )
        return self

    def _refuse_indivisible(self, name: str, width: int, heads: int) -> None:
        if width % heads:
            raise ValueError(f"{name} {width} is no multiple of num_heads {heads}")
        if self.positions == "rotary" and (width // heads) % 2:
            raise ValueError(
                f"rotary positions turn pairs of numbers, and a head has {width // heads}: choose another {name} or num_heads"
            )

    def resolved(self) -> tuple[int, int, int]:
        """(layers, heads, width) as they are built."""
        layers, heads, width = SIZES[self.size]
        return self.num_layers or layers, self.num_heads or heads, self.width or width


def width_of(config: Config) -> int:
    """Numbers that stand for a place."""
    return config.resolved()[2]


def at_width(config: Config, width: int) -> Config:
    """The same network at another width: as many heads, each as much wider or narrower."""
    changed: dict[str, int] = {"width": width}
    if config.feed_forward_width is not None:
        changed["feed_forward_width"] = max(
            1, round(config.feed_forward_width * width / width_of(config))
        )
    return Config.model_validate({**config.model_dump(), **changed})


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module. Raises PartError where the inputs are not one text, or a tied head has other
    codes to tell than it reads."""
    if config.parametrization == "standard":
        return _network(config, inputs, output)
    from danlu.layers.parametrization import parametrize

    base = at_width(config, config.base_width)
    branch = (
        1.0 if config.base_layers is None else (config.base_layers / config.resolved()[0]) ** 0.5
    )
    return parametrize(
        lambda: _network(config, inputs, output), lambda: _network(base, inputs, output), branch
    )


def _network(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    from danlu.layers.transformer.blocks import StackSizes
    from danlu.layers.transformer.language_model import LanguageModel

    name, tokens = _text(inputs)
    (cardinality,) = tokens.cardinalities
    if output.size != cardinality:
        raise PartError(
            f"gpt tells the next of the {cardinality:,} codes it reads, and the task asks for {output.size:,} numbers.",
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
    """The one input, which is one code a place."""
    if len(inputs) == 1:
        name, only = next(iter(inputs.items()))
        if only.kind == "tokens" and len(only.cardinalities) == 1:
            return name, only
    said = ", ".join(f"{name} ({each.kind})" for name, each in inputs.items())
    raise PartError(
        f"gpt reads one text, one code a place; the inputs are {said}.",
        hint="use task: language_modeling",
    )
