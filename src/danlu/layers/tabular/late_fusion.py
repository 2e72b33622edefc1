"""Late fusion: each input is taken to a vector by a branch of its own, and the vectors meet before the last layer.

B batch, D features of all branches together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from danlu.errors import PartError
from danlu.layers.activations import Activation, activation, init_linear
from danlu.layers.dropout import Dropout
from danlu.layers.tabular.categories import CategoryEmbedding
from danlu.layers.tabular.merging import TakeInput, concatenated
from danlu.layers.text.summary import TokenSummary
from danlu.terms import InputSpec

# What makes (B, width) of one input's tensor, and width.
Branch = tuple[nn.Module, int]


def require_image(model: str, inputs: Mapping[str, InputSpec], smallest: int) -> None:
    """Raise PartError unless there is an image, and all have at least `smallest` pixels a side."""
    images = [(name, each.shape) for name, each in inputs.items() if each.kind == "image"]
    if not images:
        raise PartError(
            f"{model} needs an image, and the inputs hold none.",
            hint="choose model: mlp, or give the column the kind image",
        )
    for name, (_, height, width) in images:
        if min(height, width) < smallest:
            raise PartError(
                f"{model} takes images from {smallest}x{smallest} pixels on, and those of {name} have {height}x{width}.",
                hint="choose model: mlp",
            )


def input_branches(
    inputs: Mapping[str, InputSpec],
    image: Callable[[InputSpec], Branch],
    text: Callable[[InputSpec], Branch] | None = None,
) -> list[Branch]:
    """A branch for each input: numbers as they are, categories embedded, tokens summed up or
    through what `text` makes of them, an image through what `image` makes of it."""
    return [
        _branch(name, each, text if text is not None and each.kind == "tokens" else image, text)
        for name, each in inputs.items()
    ]


def _branch(
    name: str,
    each: InputSpec,
    body_of: Callable[[InputSpec], Branch],
    text: Callable[[InputSpec], Branch] | None,
) -> Branch:
    if each.kind == "numbers":
        return TakeInput(name), each.shape[0]
    if each.kind == "categories":
        embedding = CategoryEmbedding(each.cardinalities)
        return TakeInput(name, embedding), embedding.width
    if each.kind == "tokens" and text is None:
        summary = TokenSummary(each)
        return TakeInput(name, summary), summary.width
    body, width = body_of(each)
    return TakeInput(name, body), width


def fuse_branches(
    branches: list[Branch],
    size: int,
    *,
    dense: int,
    activation_name: Activation = "relu",
    dropout: float = 0.0,
    always_dense: bool = False,
) -> nn.Sequential:
    """inputs -> (B, size): the branches side by side, a layer of `dense` where several meet (or
    always), dropout, linear."""
    layers: list[nn.Module] = [concatenated([branch for branch, _ in branches])]
    width = sum(width for _, width in branches)
    if always_dense or len(branches) > 1:  # features of several inputs meet in a layer of their own
        linear = nn.Linear(width, dense)
        init_linear(linear, activation_name)
        _share_equally(linear, [width for _, width in branches])
        layers += [linear, activation(activation_name)]
        width = dense
    if dropout:
        layers.append(Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(width, size))


def _share_equally(linear: nn.Linear, widths: list[int]) -> None:
    """Scales a layer's start so that each branch has as much say as another: else one number beside
    a text of 128 is drowned."""
    start, total = 0, sum(widths)
    with torch.no_grad():
        for width in widths:
            linear.weight[:, start : start + width].mul_((total / (len(widths) * width)) ** 0.5)
            start += width
