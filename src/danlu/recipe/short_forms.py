"""The short forms of a recipe, and the mappings that they stand for."""

from __future__ import annotations

from typing import Any

from danlu.recipe.options import Catalogue


def long_form(path: tuple[Any, ...], value: Any, catalogue: Catalogue) -> dict[str, Any] | None:
    """The mapping that a short form means (`optimizer: adam`, `age: number`, `early_stopping: 5`);
    None where there is none."""
    if value is None:
        return {}
    if path[:2] == ("data", "columns") and len(path) == 3:
        opened = long_column(value)
        return opened if isinstance(opened, dict) else None
    if path == ("regularization", "early_stopping"):
        return long_early_stopping(value)
    if path == ("compress",) and isinstance(value, list | str):
        return long_section("compress", value)
    if path == ("data", "source") and isinstance(value, str):
        return {"name": value} if value in catalogue.names("sources") else {"path": value}
    return (
        {"name": value}
        if isinstance(value, str) and path[0] not in ("train", "regularization", "name")
        else None
    )


def long_section(key: str, value: Any) -> Any:
    """The options of a section that has a short form: `compress: [int8_static]`.

    >>> long_section("compress", ["prune"])
    {'steps': ['prune']}
    """
    return {"steps": value} if key == "compress" and isinstance(value, list | str) else value


def long_column(value: Any) -> Any:
    """The options of a column, which has short forms: `age: number`, `id: drop`.

    >>> long_column("number"), long_column("drop")
    ({'kind': 'number'}, {'use': False})
    """
    if isinstance(value, str):
        return {"use": False} if value in ("drop", "ignore") else {"kind": value}
    return {"use": False} if value is False else value


def long_early_stopping(value: Any) -> Any:
    """The options of early stopping, which has short forms: true, or its patience.

    >>> long_early_stopping(5)
    {'patience': 5}
    """
    return (
        {}
        if value is True or value is False
        else {"patience": value}
        if type(value) is int
        else value
    )
