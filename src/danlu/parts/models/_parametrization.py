"""The option `parametrization` and how a family with it is built: as it is, or scaled by muP."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field

if TYPE_CHECKING:
    from torch import nn

ConfigT = TypeVar("ConfigT")

Parametrization = Annotated[
    Literal["standard", "mup"],
    Field(
        description="mup scales initial weights, learning rates and multipliers by the width, "
        "so that one learning rate serves every width."
    ),
]


def depth_factor(base_layers: int | None, layers: int) -> float:
    """What muP multiplies each residual branch by: sqrt(base_layers / layers); 1.0 for None.

    >>> depth_factor(None, 12), depth_factor(3, 12)
    (1.0, 0.5)
    """
    return 1.0 if base_layers is None else (base_layers / layers) ** 0.5


def build_scaled(
    network: Callable[[ConfigT], nn.Module], config: ConfigT, base: ConfigT, branch: float = 1.0
) -> nn.Module:
    """The network of `config`, scaled by muP against the same network of `base`.

    `branch` is what each residual branch is multiplied by. Random numbers are drawn for `config`
    alone.
    """
    from danlu.layers.parametrization import parametrize

    return parametrize(lambda: network(config), lambda: network(base), branch)
