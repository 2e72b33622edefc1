"""Transformer encoder as BERT: attention in both directions, one output per text or per token.

size    layers  heads  width
tiny         2      2    128      as the smallest published BERT
mini         4      4    256
small        4      8    512
base        12     12    768

num_layers, num_heads and width override those of the size. One output per text is computed from the
pooled positions; each text column has its own encoder, and texts, numbers and categories are joined
before the output layer. For one output per token, inputs with the same positions (words and their
parts of speech) are joined position by position. A model trained with task:
masked_language_modeling starts other tasks through `weights`. With BERT's options (positions:
learned, norm_position: after, head: dense, and pooling: first for one output per text) it can be
exported in the layout of Hugging Face.
Sources: Devlin et al., 2019, arXiv:1810.04805; sizes: Turc et al., 2019, arXiv:1908.08962.
"""

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

    from danlu.layers.transformer.encoder import Encoder
    from danlu.terms import InputSpec, OutputSpec

TAKES = ("tokens", "frames", "numbers", "categories")
GIVES = ("row", "token")
SEQUENCES = ("tokens", "frames")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.0005, "weight_decay": 0.05},
    "schedule": {"name": "linear", "warmup": 0.1},
    "train.epochs": 10,
    "train.batch_size": 32,
    "train.clip_norm": 1.0,
}
SIZES: Sizes = {  # layers, heads, width
    "tiny": (2, 2, 128),
    "mini": (4, 4, 256),
    "small": (4, 8, 512),
    "base": (12, 12, 768),
}


class Config(Options):
    """The size, and the variants of its layers."""

    size: Literal["tiny", "mini", "small", "base"] = Field(
        "tiny", description="A size by name; num_layers, num_heads and width override it."
    )
    weights: str | None = Field(
        None,
        description="An artifact (or run) of an encoder whose weights and tokenizer this model "
        "starts from.",
    )
    num_layers: NumLayers = None
    num_heads: NumHeads = None
    width: Width = None
    positions: Positions = "rotary"
    context: int | None = Field(
        None,
        ge=1,
        le=1_048_576,
        description="Number of learned positions; null: the length of the longest training row.",
    )
    normalization: Normalization = "layer"
    norm_position: Literal["before", "after"] = Field(
        "before",
        description="Normalise before each half of a block, or after it (BERT; the embedding "
        "then too).",
    )
    feed_forward: FeedForward = "gelu"
    feed_forward_width: FeedForwardWidth = None
    letter_embedding: int = Field(
        24, ge=1, le=1024, description="Size of the embedding of a letter (vocabulary: characters)."
    )
    letter_filters: int = Field(
        48,
        ge=1,
        le=4096,
        description="Filters over the letters of a word (vocabulary: characters).",
    )
    pooling: Literal["mean", "max", "attention", "first"] = Field(
        "mean", description="How the positions of a text are pooled to one vector."
    )
    head: Literal["linear", "dense"] = Field(
        "linear",
        description="The output layer: linear, or a dense layer and a linear one, as in BERT "
        "(for one output per text, and for masked tokens).",
    )
    dropout: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Dropout of the embedding, of each half of a block, and of features.",
    )
    unknown: float = Field(
        0.0, ge=0, lt=1, description="Share of tokens replaced by the unknown token in training."
    )
    parametrization: Parametrization = "standard"
    base_width: BaseWidth = 128
    base_layers: BaseLayers = None

    @model_validator(mode="after")
    def _reaches(self) -> Config:
        if self.context is not None and self.positions == "rotary":
            raise ValueError(
                "context belongs to positions: learned; rotary positions have no limit"
            )
        return self

    @model_validator(mode="after")
    def _pools_once(self) -> Config:
        if self.head == "dense" and self.pooling != "first":
            raise ValueError("head: dense reads the first position of a text: set pooling to first")
        return self

    @model_validator(mode="after")
    def _numbers_that_divide(self) -> Config:
        _, heads, width = self.resolved()
        check_head_widths(self.parametrization, self.base_width, width, heads, self.positions)
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
    """The module. PartError where there is no text, or the task is causal."""

    def network(config: Config) -> nn.Module:
        return _network(config, inputs, output)

    if config.parametrization == "standard":
        return network(config)
    branch = depth_factor(config.base_layers, config.resolved()[0])
    return build_scaled(network, config, at_width(config, config.base_width), branch)


def _network(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    from danlu.layers.tabular.late_fusion import fuse_branches

    if not any(spec.kind in SEQUENCES for spec in inputs.values()):
        raise PartError(
            "encoder reads tokens or frames, and the inputs hold none.", hint="choose model: mlp"
        )
    if output.causal:
        raise PartError(
            "encoder attends to following tokens, and this task must not look ahead.",
            hint="choose model: gpt",
        )
    if output.per == "token":
        return _places(config, inputs, output)
    branches = [_branch(config, name, spec) for name, spec in inputs.items()]
    return fuse_branches(branches, output.size, dense=config.resolved()[2], dropout=config.dropout)


def _branch(config: Config, name: str, spec: InputSpec) -> tuple[nn.Module, int]:
    """(A module from one input to (B, width), that width)."""
    from danlu.layers.pooling import AttentionPooling, MaxPooling, MeanPooling
    from danlu.layers.tabular.categories import CategoryEmbedding
    from danlu.layers.tabular.merging import TakeInput
    from danlu.layers.transformer.encoder import EncodedRow, Pooler

    if spec.kind == "categories":
        embedding = CategoryEmbedding(spec.cardinalities)
        return TakeInput(name, embedding), embedding.width
    if spec.kind == "numbers":
        return TakeInput(name), spec.shape[0]
    encoder = _encoder(config, {name: spec})
    pooling: nn.Module | None = None
    if config.pooling == "attention":
        pooling = AttentionPooling(encoder.width)
    elif config.pooling == "first" and config.head == "dense":
        pooling = Pooler(encoder.width)
    elif config.pooling != "first":
        pooling = {"max": MaxPooling, "mean": MeanPooling}[config.pooling]()
    return EncodedRow(encoder, pooling), encoder.width


def _places(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    from torch import nn

    from danlu.layers.dropout import Dropout
    from danlu.layers.tabular.merging import concatenated
    from danlu.layers.transformer.encoder import EncodedPlaces, VocabularyHead

    read = {name: spec for name, spec in inputs.items() if spec.kind in SEQUENCES}
    asides = [_branch(config, name, spec) for name, spec in inputs.items() if name not in read]
    encoder = _encoder(config, read)
    width = encoder.width + sum(width for _, width in asides)
    # outputs over a vocabulary have no names; their head may be BERT's
    linear = nn.Linear(width, output.size)
    head = nn.Sequential(
        Dropout(config.dropout),
        linear if output.names or config.head == "linear" else VocabularyHead(width, output.size),
    )
    return EncodedPlaces(
        encoder, concatenated([aside for aside, _ in asides]) if asides else None, head
    )


def _encoder(config: Config, inputs: Mapping[str, InputSpec]) -> Encoder:
    """The encoder of inputs that share their positions."""
    from danlu.layers.recurrent.sequence_reader import Reader
    from danlu.layers.text.embeddings import WordEmbedding
    from danlu.layers.transformer.blocks import StackSizes
    from danlu.layers.transformer.encoder import Encoder

    layers, heads, width = config.resolved()
    bodies: list[nn.Module | None] = []
    size = 0
    for spec in inputs.values():
        if spec.kind == "tokens":
            body = WordEmbedding(
                spec.cardinalities,
                spec.names,
                width,
                letter_size=config.letter_embedding,
                filters=config.letter_filters,
                unknown=config.unknown,
            )
            bodies.append(body)
            size += body.width
        else:
            bodies.append(None)
            size += spec.shape[-1]
    sizes = StackSizes(
        num_layers=layers,
        width=width,
        num_heads=heads,
        feed_forward=config.feed_forward,
        feed_forward_width=config.feed_forward_width,
        normalization=config.normalization,
        bias=True,
        dropout=config.dropout,
        norm_first=config.norm_position == "before",
    )
    longest = max(spec.shape[0] for spec in inputs.values())
    if config.context is not None and config.context < longest:
        raise PartError(
            f"model.context is {config.context:,}, and rows have up to {longest:,} positions.",
            hint="raise it, or shorten the rows (max_length of their transform, or the task's "
            "context)",
        )
    context = (config.context or longest) if config.positions == "learned" else None
    return Encoder(Reader(list(inputs), bodies, 0.0), size, sizes, context=context)
