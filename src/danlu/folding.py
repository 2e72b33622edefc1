"""Rows cut into k folds for cross-validation."""

from __future__ import annotations

import numpy as np

from danlu.errors import DataError
from danlu.fingerprints import codes
from danlu.shares import shuffled, strata
from danlu.terms import Column


def folds(
    rows: np.ndarray, target: Column | None, k: int, seed: int, groups: Column | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """k pairs (training rows, validation rows), sorted; each of `rows` (int64) is in exactly one of the validation parts.

    Classes of `target` (quantile bins of a number) are spread evenly over the folds; rows equal in `groups` stay in one fold, and
    then classes are left to chance. Both columns hold a value for each of `rows`, in their order. A function of its arguments and
    the seed. DataError where rows or groups are fewer than k.
    """
    order = shuffled(len(rows), seed)
    if groups is not None:
        fold = _fold_of_groups(codes(groups), order, k, groups.name)
    else:
        if len(rows) < k:
            raise DataError(f"{len(rows):,} rows cannot be cut into {k} folds.", hint="set train.folds to a smaller number")
        classes = strata(target) if target is not None else np.zeros(len(rows), dtype=np.int64)
        fold = np.empty(len(rows), dtype=np.int64)
        fold[order[np.argsort(classes[order], kind="stable")]] = np.arange(len(rows)) % k
    return [(np.sort(rows[fold != number]), np.sort(rows[fold == number])) for number in range(k)]


def _fold_of_groups(groups: np.ndarray, order: np.ndarray, k: int, name: str) -> np.ndarray:
    """The fold of each row: the largest group first, each to the fold that holds the fewest rows."""
    group = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(group)
    if len(counts) < k:
        raise DataError(
            f"column {name} holds {len(counts):,} groups, too few for {k} folds.", hint="set train.folds to a smaller number"
        )
    mixed = group[order]
    by_chance = mixed[np.sort(np.unique(mixed, return_index=True)[1])]  # equal sizes fall as the seed has it
    load = np.zeros(k, dtype=np.int64)
    fold = np.empty(len(counts), dtype=np.int64)
    for each in by_chance[np.argsort(-counts[by_chance], kind="stable")]:
        fold[each] = load.argmin()
        load[fold[each]] += counts[each]
    return fold[group]
