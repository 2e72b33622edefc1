"""The JSON Schema that editors complete and check recipes with."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from danlu import registry
from danlu.errors import RecipeError
from danlu.recipe import KEYS, read, read_yaml, schema

SCHEMA = schema(registry)
RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))
KNOWN = {
    "$schema", "$defs", "$ref", "title", "description", "default", "type", "enum", "const", "properties", "required",
    "additionalProperties", "items", "anyOf", "allOf", "oneOf", "not", "minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum",
    "minItems", "maxItems", "minLength", "maxLength", "pattern", "multipleOf", "propertyNames", "prefixItems", "minProperties",
    "discriminator", "uniqueItems",
}  # fmt: skip


def is_of(value: Any, kind: str) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "null": value is None,
        "boolean": isinstance(value, bool),
        "integer": number and float(value).is_integer(),
        "number": number,
        "string": isinstance(value, str),
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
    }[kind]


def errors(value: Any, rule: Any, path: str = "") -> Iterator[str]:
    """What a value breaks of a JSON Schema, for the keywords that the schema uses."""
    if rule is True or rule is False:
        yield from () if rule else (f"{path}: nothing may stand here",)
        return
    assert set(rule) <= KNOWN, set(rule) - KNOWN
    if "$ref" in rule:
        name = rule["$ref"].removeprefix("#/$defs/")
        yield from errors(value, SCHEMA["$defs"][name], path)
    if "type" in rule:
        kinds = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
        if not any(is_of(value, kind) for kind in kinds):
            yield f"{path}: is no {kinds}"
    for word, sound in (
        ("enum", lambda given: value in given),
        ("const", lambda given: value == given),
    ):
        if word in rule and not sound(rule[word]):
            yield f"{path}: {word} {rule[word]}"
    for word in ("anyOf", "oneOf"):
        if word in rule and all(
            any(True for _ in errors(value, each, path)) for each in rule[word]
        ):
            yield f"{path}: fits none of {len(rule[word])} forms"
    for each in rule.get("allOf", ()):
        yield from errors(value, each, path)
    if "not" in rule and not list(errors(value, rule["not"], path)):
        yield f"{path}: must not be so"
    yield from outside(value, rule, path)
    if isinstance(value, dict):
        yield from (f"{path}: lacks {key}" for key in rule.get("required", ()) if key not in value)
        for key, each in value.items():
            inner = rule.get("properties", {}).get(key, rule.get("additionalProperties", True))
            yield from errors(each, inner, f"{path}.{key}")
    if isinstance(value, list) and "items" in rule:
        for number, each in enumerate(value):
            yield from errors(each, rule["items"], f"{path}.{number}")


def outside(value: Any, rule: dict[str, Any], path: str) -> Iterator[str]:
    """The bounds that a value breaks."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    size = len(value) if isinstance(value, list | str | dict) else 0
    checks = [
        ("minimum", number, lambda bound: value >= bound),
        ("exclusiveMinimum", number, lambda bound: value > bound),
        ("maximum", number, lambda bound: value <= bound),
        ("exclusiveMaximum", number, lambda bound: value < bound),
        ("minItems", isinstance(value, list), lambda bound: size >= bound),
        ("maxItems", isinstance(value, list), lambda bound: size <= bound),
        ("minLength", isinstance(value, str), lambda bound: size >= bound),
        ("maxLength", isinstance(value, str), lambda bound: size <= bound),
        ("minProperties", isinstance(value, dict), lambda bound: size >= bound),
        ("pattern", isinstance(value, str), lambda bound: re.search(bound, value) is not None),
    ]
    yield from (
        f"{path}: {word} {rule[word]}"
        for word, concerns, sound in checks
        if word in rule and concerns and not sound(rule[word])
    )


def test_it_is_valid_json_with_every_reference_in_place() -> None:
    text = json.dumps(SCHEMA, allow_nan=False)
    assert json.loads(text) == SCHEMA
    for name in re.findall(r'"\$ref": "([^"]*)"', text):
        assert name.removeprefix("#/$defs/") in SCHEMA["$defs"], name
    assert tuple(SCHEMA["properties"])[: len(KEYS)] == KEYS


# exporters are asked for by a verb, and stand in no recipe
@pytest.mark.parametrize(
    "where", [each for each in registry.shelves() if registry.names(each) and each != "exporters"]
)
def test_it_lists_every_part_with_every_option(where: str) -> None:
    forms = SCHEMA["$defs"][where]["anyOf"]
    assert forms[0] == {"enum": registry.names(where)}
    by_name = {
        form["properties"]["name"]["const"]: form
        for form in forms
        if "name" in form.get("properties", {})
    }
    assert sorted(by_name) == registry.names(where)
    for name, form in by_name.items():
        assert set(form["properties"]) == {"name", *registry.config(where, name).model_fields}
        for option, rule in form["properties"].items():
            assert option == "name" or rule.get("description"), f"{where}/{name}.{option}"


SMALL: dict[str, Any] = {
    "task": "classification",
    "data": {"source": "table.csv", "target": "label"},
    "model": "mlp",
}
SOUND: list[dict[str, Any]] = [
    SMALL,
    {
        **SMALL,
        "optimizer": {"learning_rate": 0.1},
        "metrics": "accuracy",
        "train": None,
        "schedule": None,
    },
    {
        **SMALL,
        "regularization": {"early_stopping": 5, "dropout": 0.1},
        "train": {"batch_size": "all", "compile": False},
    },
    {
        **SMALL,
        "data": {
            "source": {"path": "a.csv"},
            "target": ["y"],
            "columns": {"a": "drop", "b": False, "c": {"kind": "text"}},
        },
    },
    {
        **SMALL,
        "data": {**SMALL["data"], "split": {"test": 0.3}, "transforms": {"number": ["scale"]}},
        "name": "丹",
    },
    {**SMALL, "resolved": {"anything": [1]}, "watchers": ["console"]},
]
WRONG: list[dict[str, Any]] = [
    {"task": "classification", "model": "mlp"},
    {**SMALL, "task": "clasification"},
    {**SMALL, "lr": 0.1},
    {**SMALL, "model": {"hidden": [3]}},
    {**SMALL, "optimizer": {"name": "adam", "lr": 0.1}},
    {**SMALL, "optimizer": {"name": "adam", "learning_rate": -0.1}},
    {**SMALL, "train": {"epochs": "3"}},
    {**SMALL, "train": {"batch_size": 0}},
    {**SMALL, "train": {"device": "cup"}},
    {**SMALL, "data": {**SMALL["data"], "columns": {"a": "numbr"}}},
    {**SMALL, "data": {**SMALL["data"], "transforms": {"numbers": []}}},
    {**SMALL, "regularization": {"early_stopping": "yes"}},
]


@pytest.mark.parametrize("tree", SOUND)
def test_what_the_reader_takes_fits(tree: dict[str, Any]) -> None:
    before = copy.deepcopy(tree)
    recipe = read(tree, registry)
    assert list(errors(before, SCHEMA)) == []
    assert list(errors(recipe.as_dict(), SCHEMA)) == []


@pytest.mark.parametrize("tree", WRONG)
def test_what_the_reader_refuses_does_not_fit(tree: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        read(tree, registry)
    assert list(errors(tree, SCHEMA))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_ready_recipes_fit_as_written_and_in_full(path: Path) -> None:
    tree, _ = read_yaml(path.read_text("utf-8"), path.name)
    assert list(errors(tree, SCHEMA)) == []
    source = tree["data"]["source"]
    if isinstance(source, str) and not Path(source).suffix and not Path(source).exists():
        pytest.skip(f"the folder {source} is not here, so that its source is not known")
    assert list(errors(read(path, registry).as_dict(), SCHEMA)) == []
