"""Options and rules that the Transformer families encoder and gpt share."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import Field

from danlu.parts.models._parametrization import Parametrization

# (layers, heads, width) of each size that has a name.
Sizes = dict[str, tuple[int, int, int]]

NumLayers = Annotated[
    int | None, Field(ge=1, le=1000, description="Blocks; null: as the size has it.")
]
NumHeads = Annotated[
    int | None, Field(ge=1, le=1024, description="Attention heads; null: as the size has it.")
]
Width = Annotated[
    int | None,
    Field(ge=2, le=65536, description="Features per position; null: as the size has it."),
]
Positions = Annotated[
    Literal["rotary", "learned"], Field(description="How the order of positions is encoded.")
]
Normalization = Annotated[
    Literal["rms", "layer"], Field(description="Normalization of each half of a block.")
]
FeedForward = Annotated[
    Literal["gelu", "swiglu", "relu_squared"],
    Field(description="Activation of the feed-forward half of a block."),
]
FeedForwardWidth = Annotated[
    int | None,
    Field(
        ge=1,
        le=1_048_576,
        description="Its inner width; null: 4 times the width, 8/3 times for swiglu.",
    ),
]
BaseWidth = Annotated[int, Field(ge=2, description="Width at which mup equals standard.")]
BaseLayers = Annotated[
    int | None,
    Field(
        ge=1,
        le=1000,
        description="Blocks at which depth changes nothing (mup); null: depth is not scaled.",
    ),
]


class _Scalable(Protocol):
    """What `at_width` reads of a Config."""

    @property
    def feed_forward_width(self) -> int | None: ...

    def resolved(self) -> tuple[int, int, int]: ...

    def model_dump(self) -> dict[str, object]: ...


def check_head_widths(
    parametrization: Parametrization, base_width: int, width: int, heads: int, positions: str
) -> None:
    """ValueError where a width cannot be cut into the heads, at the base width of muP as well."""
    widths = {"width": width}
    if parametrization == "mup":
        widths["base_width"] = base_width
    for name, features in widths.items():
        if features % heads:
            raise ValueError(f"{name} {features} is no multiple of num_heads {heads}")
        if positions == "rotary" and (features // heads) % 2:
            raise ValueError(
                f"rotary positions rotate pairs of features, and a head has {features // heads}: "
                f"choose another {name} or num_heads"
            )


def options_at_width(config: _Scalable, width: int) -> dict[str, object]:
    """The options of the same network at another width: as many heads, each wider or narrower."""
    changed: dict[str, object] = {"width": width}
    if config.feed_forward_width is not None:
        _, _, now = config.resolved()
        changed["feed_forward_width"] = max(1, round(config.feed_forward_width * width / now))
    return {**config.model_dump(), **changed}
