"""Sampling the next token from logits: temperature, top-k, top-p, min-p, repetition penalty.

Pure functions on logits_BV, applied in the order of Hugging Face's processors: repetition penalty,
temperature, top-k, top-p, min-p. A token that is ruled out gets the logit minus infinity; at least
one always stays.

B rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from danlu.system.random_draws import counter_uniform

_NEVER = float("-inf")


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    temperature         logits are divided by it; 0: always the likeliest token
    top_k               only the k likeliest; None: all
    top_p               only the likeliest that together reach this probability; 1: all
    min_p               only those at least this share as likely as the likeliest; 0: all
    repetition_penalty  divides the positive logits of tokens that the text holds already, and
                        multiplies negative ones; 1: none
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def repetition_penalty(logits_BV: Tensor, seen_BV: Tensor, penalty: float) -> Tensor:
    """Logits in which tokens that the text holds already (seen_BV, bool) are less likely. Source:
    Keskar et al., 2019, arXiv:1909.05858.

    >>> seen = torch.tensor([[True, True, False]])
    >>> repetition_penalty(torch.tensor([[2.0, -2.0, 2.0]]), seen, 2.0).tolist()
    [[1.0, -4.0, 2.0]]
    """
    return torch.where(
        seen_BV, torch.where(logits_BV < 0, logits_BV * penalty, logits_BV / penalty), logits_BV
    )


def top_k(logits_BV: Tensor, k: int) -> Tensor:
    """Logits with all but the k likeliest ruled out; those equal to the k-th stay. Source: Fan et
    al., 2018, arXiv:1805.04833."""
    if k >= logits_BV.shape[1]:
        return logits_BV
    least_B1 = logits_BV.topk(k, dim=1).values[:, -1:]
    return logits_BV.masked_fill(logits_BV < least_B1, _NEVER)


def top_p(logits_BV: Tensor, p: float) -> Tensor:
    """Logits with all ruled out but the likeliest that together reach probability p. Source:
    Holtzman et al., 2019, arXiv:1904.09751."""
    ordered_BV, order_BV = logits_BV.sort(dim=1)
    out_BV = ordered_BV.softmax(dim=1).cumsum(dim=1) <= 1 - p  # from the unlikeliest on
    out_BV[:, -1] = False
    return logits_BV.masked_fill(torch.zeros_like(out_BV).scatter_(1, order_BV, out_BV), _NEVER)


def min_p(logits_BV: Tensor, p: float) -> Tensor:
    """Logits with all ruled out that are less than p times as likely as the likeliest. Source:
    Nguyen et al., 2024, arXiv:2407.01082."""
    probability_BV = logits_BV.softmax(dim=1)
    return logits_BV.masked_fill(
        probability_BV < p * probability_BV.amax(dim=1, keepdim=True), _NEVER
    )


def filter_logits(logits_BV: Tensor, sampling: Sampling, seen_BV: Tensor | None = None) -> Tensor:
    """The logits float32 that the next token is drawn from; seen_BV (bool) says which tokens each
    text holds already."""
    logits_BV = logits_BV.float()
    if sampling.repetition_penalty != 1 and seen_BV is not None:
        logits_BV = repetition_penalty(logits_BV, seen_BV, sampling.repetition_penalty)
    if sampling.temperature not in (0, 1):
        logits_BV = logits_BV / sampling.temperature
    if sampling.top_k is not None:
        logits_BV = top_k(logits_BV, sampling.top_k)
    if sampling.top_p < 1:
        logits_BV = top_p(logits_BV, sampling.top_p)
    if sampling.min_p > 0:
        logits_BV = min_p(logits_BV, sampling.min_p)
    return logits_BV


def draw(logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """One token for each row, int64 (B,): the inverse of the cumulative distribution at uniform_B,
    float64 in [0, 1).

    >>> draw(torch.zeros(1, 4), torch.tensor([0.6], dtype=torch.float64)).tolist()
    [2]
    """
    reached_BV = logits_BV.double().softmax(dim=1).cumsum(dim=1)
    goal_B1 = uniform_B[:, None] * reached_BV[:, -1:]
    # the first token whose cumulative probability exceeds the goal: never one of probability 0,
    # where the sum does not rise
    return (reached_BV <= goal_B1).sum(dim=1).clamp(max=logits_BV.shape[1] - 1)


def next_token(
    logits_BV: Tensor,
    sampling: Sampling,
    seed: int | Tensor,
    rows_B: Tensor,
    steps_B: Tensor,
    seen_BV: Tensor | None = None,
) -> Tensor:
    """The next token of each row, int64 (B,): a function of its logits, the seed, the row's number
    and how many tokens it has drawn. So a text does not depend on those generated beside it.

    seed       one for all rows, or int64 (B,)
    rows_B     the number of each row, int64
    steps_B    how many tokens each row has drawn, int64
    """
    logits_BV = filter_logits(logits_BV, sampling, seen_BV)
    if sampling.temperature == 0:
        return logits_BV.argmax(dim=1)
    return draw(logits_BV, counter_uniform(seed, rows_B, steps_B).to(logits_BV.device))
