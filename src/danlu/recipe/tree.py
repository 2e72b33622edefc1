"""A recipe before it is checked: a tree of plain data, and the file and line of each value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from danlu.errors import Problem, RecipeError

DEEPEST = 50  # nested levels
Where = Mapping[tuple[Any, ...], str]  # path of keys -> "file:line"


@runtime_checkable
class ArrayLike(Protocol):
    """An array of numpy or torch."""

    ndim: int

    def tolist(self) -> Any:
        """The array as (nested lists of) Python's numbers."""
        ...


def plain_data(value: Any, name: str) -> Any:
    """A copy of `value` made of dicts with text keys, lists, texts, numbers, True, False and None;
    numpy's numbers become Python's.

    Raises RecipeError for anything else; its messages call the value `name`.

    >>> plain_data({"hidden": (32, 16)}, "recipe")
    {'hidden': [32, 16]}
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
        if isinstance(value, str) and not is_text(value):
            note = f"{'.'.join(path) or name} holds bytes that are not UTF-8: {value!r}."
            problems.append(Problem(name, note, "rename the file; a recipe is text in UTF-8"))
            return ""
        if value is None or type(value) in (str, int, float, bool):
            return value
        if isinstance(value, Mapping):
            result: dict[str, Any] = {}
            for key, entry in value.items():
                if str(key) in result:
                    problems.append(
                        Problem(
                            name,
                            f"{'.'.join((*path, str(key)))} is given twice.",
                            "keep one of the two",
                        )
                    )
                result[str(key)] = copy(entry, (*path, str(key)))
            return result
        if isinstance(value, list | tuple):
            return [copy(entry, (*path, str(number))) for number, entry in enumerate(value)]
        if isinstance(value, Path):
            return str(value)
        # numpy's numbers and vectors, torch's too; neither library is imported here
        if isinstance(value, ArrayLike) and value.ndim in (0, 1):
            return copy(value.tolist(), path)
        for base in (str, bool, int, float):
            if isinstance(value, base):
                return base(value)
        dotted = ".".join(path) or "the recipe"
        problems.append(
            Problem(
                name,
                f"{dotted} is a {type(value).__name__}; a recipe is plain data (text, numbers, "
                "lists, mappings).",
            )
        )
        return None

    copied = copy(value, ())
    if problems:
        raise RecipeError(problems)
    return copied


def is_text(value: str) -> bool:
    """Whether a text holds characters alone: a file name that is no UTF-8 has bytes instead."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def mapping_or_empty(value: Any) -> dict[str, Any]:
    """The value where it is a mapping, else an empty mapping."""
    return value if isinstance(value, dict) else {}


def split_values(text: str) -> list[str]:
    """The values of a list A,B,C; commas in brackets or quotes do not separate.

    >>> split_values("a,[1,2],'b,c'")
    ['a', '[1,2]', "'b,c'"]
    """
    values, start, depth, quote = [], 0, 0, ""
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth == 0:
            values.append(text[start:index].strip())
            start = index + 1
    return [*values, text[start:].strip()]
