"""The base class of options, a recipe's parts, and the mark of options that hold a part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from danlu.parts.tasks._base import TaskFacts
    from danlu.recipe.search_space import Space


class Options(BaseModel):
    """The base class of every part's Config: frozen, without unknown keys, and without conversions
    ("0.1" is not a number, 1 is not true)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


class ScheduleOptions(Options):
    """The base class of every schedule's Config."""

    warmup: float = Field(
        default=0.0,
        ge=0,
        description="Steps of linear warm-up before the schedule; below 1 it is a share of all "
        "steps.",
    )


@dataclass(frozen=True)
class Part:
    """A part that a recipe names: its name on its shelf, and its checked options."""

    name: str
    options: Options

    def as_dict(self) -> dict[str, Any]:
        """{"name": ..., option: value, ...} with every default written out."""
        return {"name": self.name, **as_plain(self.options)}


@dataclass(frozen=True)
class OnShelf:
    """Marks an option that holds a part (or a list or mapping of parts) of a shelf.

    `fixed` names the only part that the option can hold: a recipe writes its options without the
    name."""

    shelf: str
    fixed: str = ""


def on_shelf(config: type[BaseModel], name: str) -> OnShelf | None:
    """The mark of an option that holds parts; None for other options."""
    return next(
        (mark for mark in config.model_fields[name].metadata if isinstance(mark, OnShelf)), None
    )


class UpdatesAllRows(Protocol):
    """What recipe needs to know of an optimizer."""

    @property
    def full_batch(self) -> bool:
        """Whether one update uses all training rows."""
        ...


class SearchLimits(Protocol):
    """What recipe needs to know of a sampler."""

    @property
    def several(self) -> bool:
        """Whether it can search for several objectives together."""
        ...

    @property
    def refuses(self) -> Callable[[Any, Space], str] | None:
        """refuses(config, space): why it cannot search this space; "" where it can. None: it can
        search every space."""
        ...


class Catalogue(Protocol):
    """What this package needs to know of the parts; danlu.registry is one."""

    def names(self, shelf: str) -> list[str]: ...
    def config(self, shelf: str, name: str) -> type[Options]: ...
    def defaults(self, shelf: str, name: str) -> Mapping[str, Any]: ...
    def recommended(self, shelf: str, part: Part) -> Mapping[str, Any]: ...
    def facts(self, shelf: str, name: str) -> Any: ...
    def task_facts(self, name: str) -> TaskFacts: ...
    def optimizer_facts(self, name: str) -> UpdatesAllRows: ...
    def sampler_facts(self, name: str) -> SearchLimits: ...
    def source_for(self, path: str) -> str | None: ...
    def remote_is_allowed(self) -> bool: ...


def as_plain(options: Any) -> Any:
    """Options as plain data (dicts, lists, numbers, texts), each part with its name."""
    if isinstance(options, Part):
        return options.as_dict()
    if isinstance(options, BaseModel):
        return {name: as_plain(getattr(options, name)) for name in type(options).model_fields}
    if isinstance(options, Mapping):
        return {str(key): as_plain(value) for key, value in options.items()}
    if isinstance(options, list | tuple):
        return [as_plain(value) for value in options]
    return options
