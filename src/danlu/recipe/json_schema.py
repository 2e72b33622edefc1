"""A JSON Schema of recipes, made from the options of every part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from danlu.recipe.options import Catalogue, Options, on_shelf
from danlu.recipe.sections import KEYS, LISTS, NAME, PARTS, SECTIONS, ColumnOptions, Data
from danlu.terms import KINDS


def schema(catalogue: Catalogue) -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of recipes, made from the parts, for completion and checking in
    editors."""
    return _Schema(catalogue).whole()


class _Schema:
    """Makes the schema. Each shelf is written once, under $defs."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.definitions: dict[str, Any] = {}

    def whole(self) -> dict[str, Any]:
        """The schema of a recipe."""
        properties: dict[str, Any] = {
            "name": {
                "type": "string",
                "pattern": f"^{NAME}$",
                "description": "What the run folder is called.",
            }
        }
        for key, shelf in PARTS.items():
            one = self.shelf(shelf)
            if key in LISTS:
                properties[key] = {"anyOf": [one, {"type": "array", "items": one}, _NULL]}
            else:  # a mapping without a name sets options of the default part
                unnamed = [] if key in ("task", "model") else [_UNNAMED, _NULL]
                properties[key] = {"anyOf": [one, *unnamed]}
        for key, config in SECTIONS.items():
            section = self.section(config)
            properties[key] = section if key == "data" else {"anyOf": [section, _NULL]}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "danlu recipe",
            "type": "object",
            "additionalProperties": False,
            "required": ["task", "data", "model"],
            "properties": {key: properties[key] for key in KEYS} | {"resolved": {"type": "object"}},
            "$defs": self.definitions,
        }

    def shelf(self, shelf: str) -> dict[str, Any]:
        """A part of a shelf: its name, or a mapping with its name and options."""
        if shelf not in self.definitions:
            self.definitions[
                shelf
            ] = {}  # stands while its parts are read, so that shelves may refer to each other
            names = self.catalogue.names(shelf)
            choices: list[Any] = [{"enum": names}, *(self.part(shelf, name) for name in names)]
            if (
                shelf == "sources"
            ):  # a path, alone or with the options of the source that its ending means
                choices += [{"type": "string"}, {**_UNNAMED, "required": ["path"]}]
            self.definitions[shelf] = {"anyOf": choices}
        return {"$ref": f"#/$defs/{shelf}"}

    def part(self, shelf: str, name: str) -> dict[str, Any]:
        body = self.section(self.catalogue.config(shelf, name))
        properties = {"name": {"const": name}, **body["properties"]}
        return {**body, "properties": properties, "required": ["name", *body.get("required", [])]}

    def section(self, config: type[Options]) -> dict[str, Any]:
        """A mapping of options."""
        whole = config.model_json_schema()
        properties = {name: self.option(config, name, whole) for name in config.model_fields}
        required = [name for name, info in config.model_fields.items() if info.is_required()]
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
            **({"required": required} if required else {}),
        }

    def option(self, config: type[Options], name: str, whole: Mapping[str, Any]) -> dict[str, Any]:
        info, mark = config.model_fields[name], on_shelf(config, name)
        if config is Data and name == "columns":
            inner: dict[str, Any] = {
                "anyOf": [{"enum": [*KINDS, "drop", "ignore", False]}, self.section(ColumnOptions)]
            }
            inner = {"type": "object", "additionalProperties": inner}
        elif mark is None:
            return _inlined(whole["properties"][name], whole.get("$defs", {}))
        elif mark.fixed:
            options = self.section(self.catalogue.config(mark.shelf, mark.fixed))
            options["properties"] = {"name": {"const": mark.fixed}, **options["properties"]}
            inner = {"anyOf": [{"type": ["boolean", "integer", "null"]}, options]}
        else:
            inner = self.shelf(mark.shelf)
            if name in ("transforms", "augmentations"):
                inner = {"anyOf": [inner, {"type": "array", "items": inner}]}
            if config is Data and name == "transforms":
                inner = {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": dict.fromkeys(KINDS, inner),
                }
            if config is Data and name == "split":
                inner = {"anyOf": [inner, _UNNAMED]}
            if type(None) in get_args(info.annotation):
                inner = {"anyOf": [inner, _NULL]}
        return {**inner, "description": info.description or ""}


_NULL = {"type": "null"}
_UNNAMED = {"type": "object", "not": {"required": ["name"]}}


def _inlined(value: Any, definitions: Mapping[str, Any]) -> Any:
    """A piece of pydantic's schema, with each reference replaced by its definition."""
    if isinstance(value, dict):
        if "$ref" in value:
            rest = {key: inner for key, inner in value.items() if key != "$ref"}
            return {**_inlined(definitions[value["$ref"].rpartition("/")[2]], definitions), **rest}
        return {key: _inlined(inner, definitions) for key, inner in value.items()}
    return [_inlined(inner, definitions) for inner in value] if isinstance(value, list) else value
