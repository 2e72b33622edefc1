"""The options of a part in words, one line each, as `danlu show` prints them."""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

from danlu.recipe.options import Options, as_plain, on_shelf


def describe_options(config: type[Options]) -> list[str]:
    """One line an option: name, type, default, range, meaning."""
    lines = []
    for name, info in config.model_fields.items():
        mark = on_shelf(config, name)
        kind = f"a part of {mark.shelf}" if mark else _type_name(info.annotation)
        limits = [_limit(each) for each in info.metadata]
        default = (
            "required"
            if info.is_required()
            else f"default {_short(info.get_default(call_default_factory=True))}"
        )
        detail = ", ".join(filter(None, [kind, *limits, default]))
        lines.append(f"  {name} ({detail})\n      {info.description or ''}".rstrip())
    return lines


def _short(default: Any) -> str:
    text = (
        default
        if isinstance(default, str) and default
        else json.dumps(as_plain(default), ensure_ascii=False)
    )
    return text if len(text) <= 80 else text[:77] + "..."


def _limit(mark: Any) -> str:
    words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
    return ", ".join(
        f"{words[key]} {getattr(mark, key)}"
        for key in words
        if getattr(mark, key, None) is not None
    )


def _type_name(annotation: Any) -> str:
    simple = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    if hasattr(
        annotation, "__metadata__"
    ):  # Annotated, inside a list or mapping: the type without its limits
        annotation = annotation.__origin__
    if annotation in simple:
        return simple[annotation]
    members = get_args(annotation)
    if getattr(annotation, "__origin__", None) is Literal:
        return " | ".join(map(str, members))
    if getattr(annotation, "__origin__", None) is list:
        return f"list of {_type_name(members[0])}"
    if getattr(annotation, "__origin__", None) is dict:
        return f"mapping of {_type_name(members[1])}"
    return (
        " | ".join(_type_name(member) for member in members)
        if members
        else getattr(annotation, "__name__", str(annotation))
    )
