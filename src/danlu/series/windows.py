"""Windows over time series: runs without gaps, where windows may lie, forward filling, split masks.

A run is a stretch of rows of one series that follow each other step by step. No window crosses the
end of a run."""

from __future__ import annotations

import numpy as np

from danlu.terms import Table


def contiguous_runs(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """(first, last): for each row the first and the last row of its run, int64 (N,) each. Where the
    table does not say (`Table.continues` is None), all rows are one run.

    >>> from danlu.terms import Column
    >>> column = Column("x", "number", np.zeros(4))
    >>> table = Table({"x": column}, "t.csv", continues=np.array([True, False, True, False]))
    >>> [ends.tolist() for ends in contiguous_runs(table)]
    [[0, 0, 2, 2], [1, 1, 3, 3]]
    """
    count = len(table)
    goes_on = (
        np.asarray(table.continues)
        if table.continues is not None
        else np.append(np.ones(max(count - 1, 0), dtype=bool), False)
    )
    goes_on = goes_on.copy()
    goes_on[-1:] = False
    starts = np.append(True, ~goes_on[:-1])[:count]
    first = np.maximum.accumulate(np.where(starts, np.arange(count), 0))
    ends = np.flatnonzero(~goes_on)
    return first, ends[np.cumsum(starts) - 1] if count else first


def window_origins(
    runs: tuple[np.ndarray, np.ndarray],
    owned: np.ndarray,
    context: int,
    horizon: int,
    *,
    inside: bool,
) -> np.ndarray:
    """The rows p at which a forecast can begin, int64, ascending: `context` moments up to p and
    `horizon` moments after p lie in one run, and those after p are all `owned` (bool (N,), the rows
    of a split).

    runs     what contiguous_runs returns
    inside   whether the moments up to p must be owned as well (training); else they may lie before
             the split's border

    >>> runs = np.zeros(6, dtype=int), np.full(6, 5)
    >>> window_origins(runs, np.ones(6, dtype=bool), 2, 3, inside=True).tolist()
    [1, 2]
    """
    first, last = runs
    rows = np.arange(len(first))
    fits = (rows - first >= context - 1) & (last - rows >= horizon)
    whole = np.concatenate([[0], np.cumsum(owned)])
    ahead = np.minimum(rows + 1 + horizon, len(first))
    fits &= whole[ahead] - whole[np.minimum(rows + 1, len(first))] == horizon
    if inside:
        fits &= whole[rows + 1] - whole[np.maximum(rows + 1 - context, 0)] == context
    return np.flatnonzero(fits)


def forward_fill(values: np.ndarray, first: np.ndarray) -> np.ndarray:
    """`values` (N, V) in which each NaN is replaced by the last value before it in its run, or by 0
    where there is none. `first` (N,) is the first row of each row's run.

    >>> forward_fill(np.array([[np.nan], [2.0], [np.nan]]), np.zeros(3, dtype=int)).ravel().tolist()
    [0.0, 2.0, 2.0]
    """
    present = ~np.isnan(values)
    if present.all():
        return values
    source = np.maximum.accumulate(np.where(present, np.arange(len(values))[:, None], -1), axis=0)
    filled = np.take_along_axis(values, np.maximum(source, 0), axis=0)
    return np.where((source >= first[:, None]) & (source >= 0), filled, values.dtype.type(0))


def split_masks(splits: dict[str, np.ndarray], empty: np.ndarray) -> dict[str, np.ndarray]:
    """Which rows belong to each split, {name: bool (N,)}. A row of no split that is `empty` (bool
    (N,): it has no target) belongs to the split of the row before it.

    >>> splits = {"train": np.array([0, 2]), "test": np.array([3])}
    >>> split_masks(splits, np.array([False, True, False, False]))["train"].tolist()
    [True, True, True, False]
    """
    owner = np.full(len(empty), -1, dtype=np.int64)
    for number, rows in enumerate(splits.values()):
        owner[rows] = number
    adrift = empty & (owner < 0)
    last = (
        np.maximum.accumulate(np.where(adrift, -1, np.arange(len(owner)))) if len(owner) else owner
    )
    owner = np.where(adrift & (last >= 0), owner[np.maximum(last, 0)], owner)
    return {name: owner == number for number, name in enumerate(splits)}
