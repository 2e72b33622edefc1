"""Rows cut into k folds for cross-validation."""

from __future__ import annotations

import numpy as np

from danlu.data.fingerprints import value_codes
from danlu.data.splitting import shuffled_rows, strata
from danlu.errors import DataError
from danlu.terms import Column


def k_fold(
    rows: np.ndarray, target: Column | None, k: int, seed: int, groups: Column | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """k pairs (training rows, validation rows), each sorted; each of `rows` (int64 (M,)) is a
    validation row of exactly one fold.

    target   its classes (of a number: quantile bins) are spread evenly over the folds
    groups   rows with the same value stay in one fold; then classes are not spread
    Both columns have one value per row of `rows`, in that order. The result is a function of the
    arguments. DataError where there are fewer than k rows or groups.

    >>> [validation.tolist() for _, validation in k_fold(np.arange(4), None, 2, seed=0)]
    [[1, 3], [0, 2]]
    """
    order = shuffled_rows(len(rows), seed)
    if groups is not None:
        fold = _fold_of_groups(value_codes(groups), order, k, groups.name)
    else:
        if len(rows) < k:
            raise DataError(
                f"{len(rows):,} rows cannot be cut into {k} folds.",
                hint="set train.folds to a smaller number",
            )
        classes = strata(target) if target is not None else np.zeros(len(rows), dtype=np.int64)
        fold = np.empty(len(rows), dtype=np.int64)
        fold[order[np.argsort(classes[order], kind="stable")]] = np.arange(len(rows)) % k
    return [(np.sort(rows[fold != number]), np.sort(rows[fold == number])) for number in range(k)]


def rolling_origin(
    rows: np.ndarray, moments: np.ndarray, k: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """k pairs (training rows, validation rows) of rows in the order of time: the validation rows of
    a fold come after all its training rows (rolling origin).

    `moments` (M,) is the time of each of `rows` (int64 (M,)). Rows are cut into k + 1 stretches of
    equal length: fold i trains on the first i + 1 of them and is validated on the next. Rows of one
    moment stay together. DataError where there are fewer than k + 1 moments.
    Source: Tashman, 2000, doi:10.1016/S0169-2070(00)00065-0.

    >>> pairs = rolling_origin(np.arange(3), np.arange(3), 2)
    >>> [(train.tolist(), validation.tolist()) for train, validation in pairs]
    [([0], [1]), ([0, 1], [2])]
    """
    distinct, moment_code, counts = np.unique(moments, return_inverse=True, return_counts=True)
    if len(distinct) < k + 1:
        raise DataError(
            f"{len(distinct):,} moments cannot be cut into {k} folds and a start.",
            hint="set train.folds to a smaller number",
        )
    middle = np.cumsum(counts) - counts / 2
    stretch = np.minimum((middle * (k + 1) / len(rows)).astype(np.int64), k)[moment_code]
    pairs = [
        (np.sort(rows[stretch <= number]), np.sort(rows[stretch == number + 1]))
        for number in range(k)
    ]
    if any(not len(part) for pair in pairs for part in pair):
        raise DataError(
            f"the moments lie too unevenly for {k} folds.",
            hint="set train.folds to a smaller number",
        )
    return pairs


def _fold_of_groups(groups: np.ndarray, order: np.ndarray, k: int, name: str) -> np.ndarray:
    """The fold of each row: the largest group comes first, and each goes to the fold with the
    fewest rows."""
    group = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(group)
    if len(counts) < k:
        raise DataError(
            f"column {name} holds {len(counts):,} groups, too few for {k} folds.",
            hint="set train.folds to a smaller number",
        )
    mixed = group[order]
    by_chance = mixed[
        np.sort(np.unique(mixed, return_index=True)[1])
    ]  # equal sizes fall as the seed has it
    load = np.zeros(k, dtype=np.int64)
    fold = np.empty(len(counts), dtype=np.int64)
    for group_code in by_chance[np.argsort(-counts[by_chance], kind="stable")]:
        fold[group_code] = load.argmin()
        load[fold[group_code]] += counts[group_code]
    return fold[group]
