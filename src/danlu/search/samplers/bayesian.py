"""Bayesian search by a tree of Parzen estimators (TPE); the default sampler.

The first trials are random. Then two densities over all dimensions are fitted, one to the values of
the best trials and one to those of all others; of several values drawn from the first density, the
one with the highest ratio of the two is tried. Trials that are still running count as bad ones,
which spreads the trials of a batch. It costs little time, and handles choices and conditions.

Source: Bergstra et al., 2011, NeurIPS 24; the joint form of Falkner et al., 2018, arXiv:1807.01774;
Watanabe, 2023, arXiv:2304.11127.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from danlu.recipe import Options, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Config(Options):
    """How TPE begins and draws."""

    random_trials: int = Field(
        10,
        ge=1,
        le=100_000,
        description="Trials drawn at random before anything is learnt from them.",
    )
    candidates: int = Field(
        24,
        ge=1,
        le=10_000,
        description="Values drawn for a suggestion, of which the best is taken.",
    )
    joint: bool = Field(
        True, description="One density over all dimensions that take part, not one a dimension."
    )


def build(
    config: Config, space: Space, directions: Sequence[str], seed: int, study_seed: int
) -> BaseSampler:
    """Optuna's TPE sampler."""
    import warnings

    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import TPESampler

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ExperimentalWarning
        )  # of multivariate and group, there since 2020
        return TPESampler(
            n_startup_trials=config.random_trials,
            n_ei_candidates=config.candidates,
            seed=seed % 2**32,
            multivariate=config.joint,
            group=config.joint,
            constant_liar=True,
        )
