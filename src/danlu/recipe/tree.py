"""A recipe before it is checked: a tree of plain data, and where in a file each value stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danlu.errors import Problem, RecipeError

DEEPEST = 50  # nested levels
Where = Mapping[tuple[Any, ...], str]  # path of keys -> "file:line"


def plain_data(value: Any, name: str) -> Any:
    """A copy of `value` made of dicts with text keys, lists, text, numbers, true, false and null;
    numpy's numbers become Python's.

    Raises RecipeError, which calls the value `name`, for anything else.
    """
    problems: list[Problem] = []

    def copy(value: Any, path: tuple[str, ...]) -> Any:
        if len(path) > DEEPEST:
            raise RecipeError(
                [
                    Problem(
                        name, f"the recipe is nested deeper than {DEEPEST} levels, or holds itself."
                    )
                ]
            )
        if value is None or type(value) in (str, int, float, bool):
            return value
        if isinstance(value, Mapping):
            result: dict[str, Any] = {}
            for key, each in value.items():
                if str(key) in result:
                    problems.append(
                        Problem(
                            name,
                            f"{'.'.join((*path, str(key)))} is given twice.",
                            "keep one of the two",
                        )
                    )
                result[str(key)] = copy(each, (*path, str(key)))
            return result
        if isinstance(value, list | tuple):
            return [copy(each, (*path, str(number))) for number, each in enumerate(value)]
        if isinstance(value, Path):
            return str(value)
        if hasattr(value, "tolist") and getattr(value, "ndim", None) in (
            0,
            1,
        ):  # numpy numbers and vectors
            return copy(value.tolist(), path)
        for base in (str, bool, int, float):
            if isinstance(value, base):
                return base(value)
        dotted = ".".join(path) or "the recipe"
        problems.append(
            Problem(
                name,
                f"{dotted} is a {type(value).__name__}; a recipe is plain data (text, numbers, lists, mappings).",
            )
        )
        return None

    copied = copy(value, ())
    if problems:
        raise RecipeError(problems)
    return copied


def mapping_or_empty(value: Any) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def split_values(text: str) -> list[str]:
    """The values of A,B,C; what stands in brackets or quotes is one."""
    values, start, depth, quote = [], 0, 0, ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth == 0:
            values.append(text[start:place].strip())
            start = place + 1
    return [*values, text[start:].strip()]
