"""How many insertions, deletions and replacements turn one sequence into another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def edits(one: Sequence[str], other: Sequence[str]) -> int:
    """The fewest insertions, deletions and replacements that turn `one` into `other` (Levenshtein,
    1966).

    >>> edits("kitten", "sitting")
    3
    """
    codes: dict[str, int] = {}
    left = np.array([codes.setdefault(piece, len(codes)) for piece in one], dtype=np.int64)
    right = np.array([codes.setdefault(piece, len(codes)) for piece in other], dtype=np.int64)
    if not len(left) or not len(right):
        return max(len(left), len(right))
    columns = np.arange(len(right) + 1)
    row = columns.copy()
    for number, code in enumerate(left, start=1):
        # replacements and deletions depend on the row before; insertions depend on the same row,
        # where a running minimum computes all at once
        changed = np.minimum(row[:-1] + (right != code), row[1:] + 1)
        without_insertions = np.concatenate([[number], changed])
        row = np.minimum.accumulate(without_insertions - columns) + columns
    return int(row[-1])


def error_rate(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> float | None:
    """The edits of all rows, divided by the length of all references; None where the references are
    empty.

    >>> error_rate(["abd", "x"], ["abc", "x"])
    0.25
    """
    length = sum(len(reference) for reference in references)
    if not length:
        return None
    return (
        sum(edits(one, other) for one, other in zip(predictions, references, strict=True)) / length
    )
