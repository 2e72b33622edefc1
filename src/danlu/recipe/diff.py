"""The differences between two recipes, value by value."""

from __future__ import annotations

from typing import Any

from danlu.recipe.messages import format_value


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The differences between two recipes as plain data, one line per value.

    >>> differences({"train": {"seed": 0}}, {"train": {"seed": 1}})
    ['train.seed: 0 -> 1']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in old:
                lines.append(f"{inner}: (not there) -> {format_value(new[key])}")
            elif key not in new:
                lines.append(f"{inner}: {format_value(old[key])} -> (not there)")
            else:
                lines += differences(old[key], new[key], inner)
        return lines
    same = old == new and isinstance(old, bool) == isinstance(new, bool)  # true is not 1
    return [] if same else [f"{path}: {format_value(old)} -> {format_value(new)}"]
