"""How many insertions, deletions and replacements lead from one sequence to another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def edits(one: Sequence[str], other: Sequence[str]) -> int:
    """The least number of insertions, deletions and replacements that make `other` of `one`.
    Source: Levenshtein, 1966."""
    codes: dict[str, int] = {}
    left = np.array([codes.setdefault(each, len(codes)) for each in one], dtype=np.int64)
    right = np.array([codes.setdefault(each, len(codes)) for each in other], dtype=np.int64)
    if not len(left) or not len(right):
        return max(len(left), len(right))
    place = np.arange(len(right) + 1)
    row = place.copy()
    for number, code in enumerate(left, start=1):
        # replacing and deleting look one row back; inserting looks along the row, which a running
        # minimum does at once
        changed = np.minimum(row[:-1] + (right != code), row[1:] + 1)
        found = np.concatenate([[number], changed])
        row = np.minimum.accumulate(found - place) + place
    return int(row[-1])


def error_rate(
    predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]]
) -> float | None:
    """Edits over all rows, divided by the length of all references; None where the references are
    empty."""
    length = sum(len(each) for each in references)
    if not length:
        return None
    return (
        sum(edits(one, other) for one, other in zip(predictions, references, strict=True)) / length
    )
