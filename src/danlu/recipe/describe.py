"""The options of a part as text, as `danlu show` prints them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from danlu.recipe.options import Options, as_plain, on_shelf


def describe_options(config: type[Options]) -> list[str]:
    """Two lines per option: its name with type, range and default; its meaning."""
    lines = []
    for name, info in config.model_fields.items():
        mark = on_shelf(config, name)
        kind = f"a part of {mark.shelf}" if mark else _type_name(info.annotation)
        limits = [_limit(limit) for limit in info.metadata]
        default = (
            "required"
            if info.is_required()
            else f"default {_short(info.get_default(call_default_factory=True))}"
        )
        detail = ", ".join(filter(None, [kind, *limits, default]))
        lines.append(f"  {name} ({detail})\n      {info.description or ''}".rstrip())
    return lines


def _short(default: object) -> str:
    text = (
        default
        if isinstance(default, str) and default
        else json.dumps(as_plain(default), ensure_ascii=False)
    )
    return text if len(text) <= 80 else text[:77] + "..."


def _limit(mark: object) -> str:
    if isinstance(mark, Gt):
        return f"greater than {mark.gt}"
    if isinstance(mark, Ge):
        return f"at least {mark.ge}"
    if isinstance(mark, Lt):
        return f"less than {mark.lt}"
    return f"at most {mark.le}" if isinstance(mark, Le) else ""


def _type_name(annotation: Any) -> str:
    simple = {
        int: "whole number",
        float: "number",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    origin = get_origin(annotation)
    if origin is Annotated:  # inside a list or mapping: the type without its limits
        return _type_name(get_args(annotation)[0])
    if annotation in simple:
        return simple[annotation]
    members = get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, members))
    if origin is list:
        return f"list of {_type_name(members[0])}"
    if origin is dict:
        return f"mapping of {_type_name(members[1])}"
    return (
        " | ".join(_type_name(member) for member in members)
        if members
        else annotation.__name__
        if isinstance(annotation, type)
        else str(annotation)
    )
