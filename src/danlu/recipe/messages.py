"""The texts of messages: a value, the rule that it breaks, and what was probably meant."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from danlu.errors import did_you_mean, edit_distance
from danlu.recipe.options import Part

NEW_RECIPE = "danlu new DATA --target COLUMN writes one"  # the hint to users without a recipe
_LONGEST_VALUE = 80  # letters of a value or a key as a message shows it
_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)


def dotted_name(path: Iterable[Any]) -> str:
    """The dotted name of a path of keys as messages show it; a key longer than 80 letters is cut.

    >>> dotted_name(("data", "columns", "age"))
    'data.columns.age'
    """
    return ".".join(_cut(str(key)) for key in path)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def format_value(value: Any) -> str:
    """A value as messages show it: at most 80 characters; texts and booleans with their kind.

    >>> format_value(0.1), format_value("0.1")
    ('0.1', '"0.1" (text)')
    """
    if value is None:
        return "null"
    text = _cut(value.name if isinstance(value, Part) else _start_of_json(value))
    kind = {
        bool: "true or false",
        str: "text",
        int: "a whole number",
        float: "a number",
        list: "a list",
        dict: "a mapping",
    }
    named = kind.get(type(value))
    return f"{text} ({named})" if named and isinstance(value, str | bool) else text


def _start_of_json(value: Any) -> str:
    """The value as JSON; of a long one somewhat more than the part that messages show."""
    if isinstance(value, str):
        return _ENCODER.encode(value[: _LONGEST_VALUE + 1])
    if not isinstance(value, dict | list):
        return _ENCODER.encode(value)
    text = ""
    for piece in _ENCODER.iterencode(value):
        text += piece
        if len(text) > _LONGEST_VALUE:
            break
    return text


def is_slip(written: str, meant: str) -> bool:
    """Whether `written` is `meant` but for case, hyphens, or one letter added, left out, changed or
    swapped with its neighbour.

    >>> is_slip("lerning-rate", "learning_rate"), is_slip("rate", "learning_rate")
    (True, False)
    """
    written, meant = (word.lower().replace("-", "_").replace(" ", "_") for word in (written, meant))
    near = len(meant) > 2 and abs(len(written) - len(meant)) <= 1
    return written == meant or (near and edit_distance(written, meant) == 1)


_UNION_MEMBERS = {"int", "float", "str", "bool", "none", "[key]"}
_UNION_PREFIXES = (
    "literal[",
    "list[",
    "dict[",
    "constrained",
    "function-",
    "nullable",
    "is-instance",
    "lax-or-strict",
    "json-or-python",
)


def keys_of(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """The keys of a pydantic location, without the names of union members and validators."""
    return tuple(
        key
        for number, key in enumerate(loc)
        if number == 0
        or not (isinstance(key, str) and (key in _UNION_MEMBERS or key.startswith(_UNION_PREFIXES)))
    )


def broken_rule(error: Any) -> str:
    """The rule that a pydantic error reports, in words."""
    context, kind = error.get("ctx", {}), error["type"]
    simple = {
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "finite_number": "must be a finite number",
        "string_type": "must be text",
        "bool_type": "must be true or false",
        "list_type": "must be a list",
        "dict_type": "must be a mapping",
        "model_type": "must be a mapping of options",
        "none_required": "must be null",
    }
    bounds = {
        "greater_than": ("gt", "must be greater than"),
        "greater_than_equal": ("ge", "must be at least"),
        "less_than": ("lt", "must be less than"),
        "less_than_equal": ("le", "must be at most"),
        "too_short": ("min_length", "must have at least this many entries:"),
        "too_long": ("max_length", "must have at most this many entries:"),
        "string_too_short": ("min_length", "must have at least this many letters:"),
        "string_too_long": ("max_length", "must have at most this many letters:"),
        "string_pattern_mismatch": ("pattern", "must match"),
        "multiple_of": ("multiple_of", "must be a multiple of"),
    }
    if kind in simple:
        return simple[kind]
    if kind == "literal_error":
        return (
            f"must be one of {', '.join(_words(context['expected']))}"
            if len(_words(context["expected"])) > 1
            else f"must be {_words(context['expected'])[0]}"
        )
    if kind in bounds:
        key, words = bounds[kind]
        return (
            f"{words} {context[key]:g}"
            if isinstance(context[key], float)
            else f"{words} {context[key]}"
        )
    message = str(error["msg"]).removeprefix("Value error, ").rstrip(".")
    return message if kind == "value_error" else message[:1].lower() + message[1:]


def _words(expected: str) -> list[str]:
    """The choices in pydantic's text "'keep' or 'drop'"."""
    return re.findall(r"'([^']*)'", expected) or [expected]


def value_hint(value: Any, errors: Sequence[Any]) -> str:
    """A hint at what was probably meant by a refused value, or ""."""
    kinds = {error["type"] for error in errors}
    choices = [
        word
        for error in errors
        if error["type"] == "literal_error"
        for word in _words(error["ctx"]["expected"])
    ]
    choices += ["true", "false"] if "bool_type" in kinds else []
    for error in errors:
        if (
            error["type"] == "string_pattern_mismatch"
        ):  # the words of a pattern such as ^(auto|cpu|mps)$
            choices += re.findall(
                r"(?<![A-Za-z\\])[a-z]{2,}(?![A-Za-z*+?\[])", error["ctx"]["pattern"]
            )
    if isinstance(value, str):
        if "bool_type" in kinds and value.lower() in ("yes", "on", "y", "no", "off", "n"):
            return f"write {'true' if value.lower() in ('yes', 'on', 'y') else 'false'}"
        number = r"[-+]?[\d_,]*\.?\d+([eE][-+]?\d+)?"  # its time grows with the square of digits
        if (
            kinds & {"int_type", "float_type"}
            and len(value) <= _LONGEST_VALUE
            and re.fullmatch(number, value)
        ):
            return f"write {value.replace('_', '').replace(',', '')} without quotes"
        return did_you_mean(value, choices)
    if "int_type" in kinds and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    return ""


def owner_of(config: type[BaseModel], steps: tuple[Any, ...]) -> type[BaseModel]:
    """The options class that has the last of `steps` as an option."""
    for step in steps[:-1]:
        info = config.model_fields.get(str(step))
        config = next(_classes(info.annotation), config) if info is not None else config
    return config


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    """The options classes that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for member in get_args(annotation):
        yield from _classes(member)


def field_hint(config: type[BaseModel], steps: tuple[Any, ...]) -> str:
    """The description of an option, as a hint."""
    info = owner_of(config, steps).model_fields.get(str(steps[-1])) or config.model_fields.get(
        str(steps[0])
    )
    return info.description.rstrip(".") if info is not None and info.description else ""
