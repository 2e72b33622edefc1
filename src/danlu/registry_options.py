"""Parts inside the options of another part: a name, or a mapping of a name and options.

The recipe reads the parts of its own sections; a part that holds further parts by target (weighted,
per_target, multi_task) declares them with these types. `losses: dict[str, LossPart]` then takes
what a recipe would write after `loss:`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated

from pydantic import BeforeValidator, ValidationError, WithJsonSchema

from danlu import registry
from danlu.errors import PartError, did_you_mean
from danlu.recipe import Part


def part_of(kind: str, value: object) -> Part:
    """The Part on the shelf `kind` that `value` means. Raises ValueError with the broken rule as a
    plain sentence."""
    if isinstance(value, Part):
        return value
    options = {"name": value} if isinstance(value, str) else value
    if not isinstance(options, Mapping) or not isinstance(options.get("name"), str):
        raise ValueError(f"must be the name of one of {kind}, or a mapping with a name")
    name = options["name"]
    try:
        config = registry.config(kind, name)
    except PartError as error:
        raise ValueError(_sentence(error.problem.message, error.problem.hint)) from None
    try:
        return Part(
            name,
            config.model_validate(
                {key: option for key, option in options.items() if key != "name"}
            ),
        )
    except ValidationError as error:
        raise ValueError(_broken_rule(name, list(config.model_fields), error)) from None


def _sentence(message: str, hint: str) -> str:
    return f"is wrong: {message.rstrip('.')}{f' ({hint})' if hint else ''}"


def _broken_rule(name: str, options: list[str], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    option = ".".join(str(step) for step in first["loc"])
    if first["type"] == "extra_forbidden":
        return _sentence(
            f"{option} is no option of {name}, which has {', '.join(options) or 'none'}",
            did_you_mean(option, options),
        )
    rule = str(first["msg"]).removeprefix("Value error, ")
    return _sentence(f"{option} of {name}: {rule[0].lower()}{rule[1:]}", "")


def _reader(kind: str) -> Callable[[object], Part]:
    return lambda value: part_of(kind, value)


_JSON_SCHEMA = WithJsonSchema(
    {"anyOf": [{"type": "string"}, {"type": "object", "required": ["name"]}]}
)
TaskPart = Annotated[Part, BeforeValidator(_reader("tasks")), _JSON_SCHEMA]
LossPart = Annotated[Part, BeforeValidator(_reader("losses")), _JSON_SCHEMA]
MetricPart = Annotated[Part, BeforeValidator(_reader("metrics")), _JSON_SCHEMA]
