"""Whether two answers to a row say the same: equal words, and numbers within a tolerance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping


def first_difference(
    expected: object, actual: object, allowed: float, at: str = "the answer"
) -> str:
    """In words, the first difference between two answers (JSON values); "" where they say the same.

    Floats may differ by 10 * `allowed`, relative to the larger of 1 and their size. `at` names what
    is compared, for the words.

    >>> first_difference({"prediction": "yes"}, {"prediction": "no"}, 1e-4)
    'prediction is "no" in place of "yes"'
    >>> first_difference([0.5], [0.5 + 1e-9], 1e-4)
    ''
    """
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        if list(expected) != list(actual):
            names = ", ".join(map(str, expected))
            return f"{at} names {', '.join(map(str, actual))} in place of {names}"
        parts = ((expected[key], actual[key], f"{key}") for key in expected)
        return _first(parts, allowed)
    if isinstance(expected, list | tuple) and isinstance(actual, list | tuple):
        if len(expected) != len(actual):
            return f"{at} has {len(actual)} entries in place of {len(expected)}"
        return _first(((one, other, at) for one, other in zip(expected, actual)), allowed)
    if isinstance(expected, float) and isinstance(actual, float):
        limit = allowed * max(1.0, abs(expected), abs(actual)) * 10
        close = expected == actual or abs(expected - actual) <= limit
        return "" if close else f"{at} is {actual:.9g} in place of {expected:.9g}"
    same = type(expected) is type(actual) and expected == actual
    return "" if same else f"{at} is {_quoted(actual)} in place of {_quoted(expected)}"


def _first(parts: Iterable[tuple[object, object, str]], allowed: float) -> str:
    differences = (first_difference(one, other, allowed, at) for one, other, at in parts)
    return next((difference for difference in differences if difference), "")


def differ_by_a_tie(
    expected: Mapping[str, object], actual: Mapping[str, object], allowed: float
) -> bool:
    """Whether two answers differ only in which of several equally likely classes or labels they
    name: classes whose probabilities are within 2 * `allowed`, labels that close to 1/2."""
    probabilities = expected.get("probabilities")
    if not isinstance(probabilities, Mapping):
        return False
    if first_difference(probabilities, actual.get("probabilities"), allowed):
        return False
    one, other = expected["prediction"], actual["prediction"]
    if not isinstance(one, Mapping):
        return _is_tie(probabilities, one, other, allowed)
    if not isinstance(other, Mapping):
        return False
    return all(
        _is_tie(probabilities.get(name), one[name], other.get(name), allowed) for name in one
    )


def _is_tie(probabilities: object, one: object, other: object, allowed: float) -> bool:
    """Whether the predictions `one` and `other` are equal, or as likely as each other."""
    if one == other:
        return True
    if not isinstance(probabilities, Mapping):
        return False
    try:
        gap = (
            abs(probabilities[one] - probabilities[other])
            if one in probabilities
            else min(abs(p - 0.5) for p in probabilities.values())
        )
    except (KeyError, TypeError):
        return False
    return gap <= 2 * allowed


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:80]
