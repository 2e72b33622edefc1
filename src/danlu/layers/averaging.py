"""The mean of several models' outputs: of probabilities for classes, else of the numbers.

K models, B rows, S columns of the output.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.terms import OutputSpec


@runtime_checkable
class Ensemble(Protocol):
    """A module of several networks that answer together.

    In training mode forward returns (B * members, S), the members of a row side by side: each is
    trained by its own loss. In evaluation mode it returns (B, S), their average.
    """

    members: int


def members_of(module: nn.Module) -> int:
    """How many networks a module trains side by side; 1 for a module that is no Ensemble."""
    return int(module.members) if isinstance(module, Ensemble) else 1


def average_outputs(outputs_KBS: Tensor, output: OutputSpec) -> Tensor:
    """Outputs float32 (B, S) whose answers are the mean of the answers of all K outputs;
    `output.means` says what each column is.

    For classes the logarithm of the mean probability, for labels the logit of the mean probability,
    for numbers their mean. Probabilities stay logarithms, so that a model that is nearly certain
    gives no infinity.
    """
    groups = output.means or (("numbers", output.size),)
    pieces = outputs_KBS.float().split([size for _, size in groups], dim=2)
    return torch.cat(
        [_MEANS[kind](piece) for (kind, _), piece in zip(groups, pieces, strict=True)], dim=1
    )


def _numbers(x_KBS: Tensor) -> Tensor:
    return x_KBS.mean(0)


def _classes(logits_KBS: Tensor) -> Tensor:
    return _log_mean(logits_KBS.log_softmax(2))


def _labels(logits_KBS: Tensor) -> Tensor:
    return _log_mean(functional.logsigmoid(logits_KBS)) - _log_mean(
        functional.logsigmoid(-logits_KBS)
    )


def _log_mean(logarithms_KBS: Tensor) -> Tensor:
    """The logarithm of the mean of exp(x) over K."""
    return logarithms_KBS.logsumexp(0) - math.log(len(logarithms_KBS))


_MEANS = {"numbers": _numbers, "classes": _classes, "labels": _labels}
