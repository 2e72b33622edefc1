"""Linear or logistic regression: one weight per feature and per category.

outputs = W x + b, where x holds all inputs flattened and concatenated, categories as one-hot
columns. With the cross-entropy of classification this is (multinomial) logistic regression, with
the squared error of regression least squares. Weights start at 0: the losses are convex in them, so
no other start is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "categories", "image")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.0},
    "schedule": {"name": "cosine"},
    "train.epochs": 30,
    "train.batch_size": 128,
}


class Config(Options):
    """No options; regularization.l2 and l1 penalise the weights."""


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module, all weights zero."""
    from torch import nn

    from danlu.layers.tabular.categories import CategoryWeights
    from danlu.layers.tabular.merging import Add, TakeInput, concatenated

    dense = [
        TakeInput(name, nn.Flatten() if len(spec.shape) > 1 else None)
        for name, spec in inputs.items()
        if spec.kind != "categories"
    ]
    terms: list[nn.Module] = []
    if dense:
        features = sum(
            math.prod(spec.shape) for spec in inputs.values() if spec.kind != "categories"
        )
        layer = nn.Linear(features, output.size)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        terms.append(nn.Sequential(concatenated([*dense]), layer))
    for name, spec in inputs.items():
        if spec.kind == "categories":
            terms.append(
                TakeInput(name, CategoryWeights(spec.cardinalities, output.size, bias=not terms))
            )
    return terms[0] if len(terms) == 1 else Add(terms)
