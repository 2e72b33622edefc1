"""The contract of a pruner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class Pruner(ABC):
    """Decides which trials end early. Its answers depend on the arguments alone."""

    @abstractmethod
    def prune(
        self, number: int, curve: Sequence[float], others: Mapping[int, Sequence[float]]
    ) -> bool:
        """Whether trial `number` ends now.

        `curve` holds its scores so far, one per evaluation, the last of them just measured.
        `others` holds the curves of all other trials by number, cut to the length of `curve`:
        what happened at later evaluations is not used. Curves count evaluations, not steps, since
        trials may have batches of different sizes.
        """


class ExploitingPruner(Pruner):
    """Ends no trial: instead bad trials copy the weights and options of good ones. Runs where many
    trials are one program (tune.on: vectorised).

    `every` is the number of evaluations between two calls of `exploit`.
    """

    every: int

    def prune(
        self, number: int, curve: Sequence[float], others: Mapping[int, Sequence[float]]
    ) -> bool:
        """False: every trial runs to its end."""
        return False

    @abstractmethod
    def exploit(
        self,
        scores: Sequence[float | None],
        options: Mapping[str, Sequence[float]],
        generator: np.random.Generator,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(which trial each of K trials continues from, the options of all K afterwards by name).

        The first is int64 of shape (K,), with each trial's own index for most; the others are
        float64 of shape (K,). `scores` are the K trials' last ones; None or NaN, where a trial has
        none, counts as worst, and equal scores are ordered by number. `options` are the searched
        numbers, K values each. New options may lie outside of the space: the caller clips them.
        """


@dataclass(frozen=True)
class PrunerFacts:
    """What a pruner says of itself. Each field is a module-level name of the part's file."""

    # build(config, direction, seed): the pruner of one objective; `direction` says whether
    # "higher" or "lower" is better, `seed` is the study's.
    build: Callable[[Any, str, int], Pruner]

    # True: `build` gives an ExploitingPruner.
    exploits: bool = field(default=False, metadata={"name": "EXPLOITS"})
