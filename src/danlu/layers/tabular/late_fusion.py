"""Late fusion: a branch makes a vector of each input, and the vectors meet before the last layer.

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

# (a module that makes (B, width) of one input's tensor, width)
Branch = tuple[nn.Module, int]


def require_image(model: str, inputs: Mapping[str, InputSpec], smallest: int) -> None:
    """Raise PartError unless there is an image, and all images have sides of at least `smallest`
    pixels; `model` is named in the message."""
    images = [(name, spec.shape) for name, spec in inputs.items() if spec.kind == "image"]
    if not images:
        raise PartError(
            f"{model} needs an image, and the inputs hold none.",
            hint="choose model: mlp, or give the column the kind image",
        )
    for name, (_, height, width) in images:
        if min(height, width) < smallest:
            raise PartError(
                f"{model} takes images of {smallest}x{smallest} pixels or more, and those of "
                f"{name} have {height}x{width}.",
                hint="choose model: mlp",
            )


def input_branches(
    inputs: Mapping[str, InputSpec],
    image: Callable[[InputSpec], Branch],
    text: Callable[[InputSpec], Branch] | None = None,
) -> list[Branch]:
    """A branch for each input: numbers unchanged, categories embedded, tokens through `text` (None:
    through a TokenSummary), an image through `image`."""
    return [
        _branch(name, spec, text if text is not None and spec.kind == "tokens" else image, text)
        for name, spec in inputs.items()
    ]


def _branch(
    name: str,
    spec: InputSpec,
    body_of: Callable[[InputSpec], Branch],
    text: Callable[[InputSpec], Branch] | None,
) -> Branch:
    if spec.kind == "numbers":
        return TakeInput(name), spec.shape[0]
    if spec.kind == "categories":
        embedding = CategoryEmbedding(spec.cardinalities)
        return TakeInput(name, embedding), embedding.width
    if spec.kind == "tokens" and text is None:
        summary = TokenSummary(spec)
        return TakeInput(name, summary), summary.width
    body, width = body_of(spec)
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
    """inputs -> (B, size): the branches concatenated, a layer of width `dense` where there are
    several (or with `always_dense`), dropout, a linear layer."""
    layers: list[nn.Module] = [concatenated([branch for branch, _ in branches])]
    width = sum(width for _, width in branches)
    if (
        always_dense or len(branches) > 1
    ):  # features of several inputs interact in a layer of their own
        linear = nn.Linear(width, dense)
        init_linear(linear, activation_name)
        _share_equally(linear, [width for _, width in branches])
        layers += [linear, activation(activation_name)]
        width = dense
    if dropout:
        layers.append(Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(width, size))


def _share_equally(linear: nn.Linear, widths: list[int]) -> None:
    """Scale a layer's first weights so that every branch contributes the same variance: else a
    single number would be lost beside a text of 128 features."""
    start, total = 0, sum(widths)
    with torch.no_grad():
        for width in widths:
            linear.weight[:, start : start + width].mul_((total / (len(widths) * width)) ** 0.5)
            start += width
