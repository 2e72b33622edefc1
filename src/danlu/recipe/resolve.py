"""Turn the values of a recipe into parts and options, and note every problem on the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from danlu.errors import MOST_SHOWN, PartError, Problem, did_you_mean, nearest
from danlu.recipe.messages import (
    broken_rule,
    dotted_name,
    field_hint,
    format_value,
    is_slip,
    keys_of,
    owner_of,
    value_hint,
)
from danlu.recipe.options import Catalogue, OnShelf, Options, Part, on_shelf
from danlu.recipe.sections import (
    DEFAULTS,
    KEYS,
    PARTS,
    SECTIONS,
    SHELVES_OF_DATA,
    ColumnOptions,
    Data,
)
from danlu.recipe.short_forms import long_column, long_early_stopping
from danlu.recipe.tree import Where, mapping_or_empty
from danlu.terms import KINDS

_MOST_PARTS = 1000  # in a list


class Resolver:
    """Checks one recipe: collects problems, resolves parts, fills in defaults.

    What is wrong is noted and left out, and the rest is checked: one mistake hides no other.

    tree      the recipe as plain data
    where     the file and line of each value
    problems  what is wrong so far
    wrong     the paths of options that were refused; nothing is concluded from them
    filled    the values that are recommended where the user gives none, by dotted name
    explain   whether hints are looked for
    """

    def __init__(
        self, tree: dict[str, Any], where: Where, catalogue: Catalogue, explain: bool = True
    ) -> None:
        self.tree = tree
        self.where = where
        self.catalogue = catalogue
        self.problems: list[Problem] = []
        self.wrong: set[tuple[Any, ...]] = set()
        self.filled: dict[str, Any] = dict(DEFAULTS)
        self.places: list[str] | None = None
        self.explain = explain

    @property
    def explains(self) -> bool:
        """Whether the next problem gets a hint that has to be looked for; not all of thousands."""
        return self.explain and len(self.problems) < MOST_SHOWN

    def at(self, path: tuple[Any, ...]) -> str:
        """The "file:line" of a value, or of the nearest one around it."""
        while path and path not in self.where:
            path = path[:-1]
        return self.where.get(path, "recipe")

    def add(self, path: tuple[Any, ...], message: str, hint: str = "") -> None:
        """Note a problem."""
        self.problems.append(Problem(self.at(path), message, hint))

    # parts

    def part(
        self, shelf: str, value: Any, path: tuple[Any, ...], default: Any = None
    ) -> Part | None:
        """The part that `value` names, without its wrong options; None where it names no part."""
        dotted = dotted_name(path)
        values = self.named(shelf, value, path, default)
        if values is None:
            return None
        name = values["name"]
        if not isinstance(name, str):
            self.add(
                (*path, "name"),
                f"{dotted}.name must be a word, and is {format_value(name)}.",
                self.choices(shelf),
            )
            return None
        if name not in self.catalogue.names(shelf):
            self.no_part(shelf, name, path)
            return None
        try:
            config = self.catalogue.config(shelf, name)
        except PartError as error:  # a part from outside that cannot be imported
            self.add((*path, "name"), f"{dotted}: {error.problem.message}", error.problem.hint)
            return None
        return Part(
            name,
            self.options(
                config, {key: option for key, option in values.items() if key != "name"}, path, name
            ),
        )

    def no_part(self, shelf: str, name: str, path: tuple[Any, ...]) -> None:
        """Note a name that no part of the shelf has, with the most similar name as a hint, or the
        shelf that has the part."""
        names = self.catalogue.names(shelf)
        guess = did_you_mean(name, names) if self.explains else ""
        elsewhere = [
            f"{other}/{name}"
            for other in dict.fromkeys([*PARTS.values(), *SHELVES_OF_DATA])
            if self.explains and name in self.catalogue.names(other)
        ]
        hint = (
            guess
            if guess and not elsewhere
            else f"{elsewhere[0]} is on another shelf"
            if elsewhere
            else f"danlu list {shelf}"
        )
        dotted = dotted_name(path)
        self.add(
            (*path, "name"),
            f"{dotted}: there is no {name!r} among {shelf}. It has {', '.join(names)}.",
            hint,
        )

    def choices(self, shelf: str) -> str:
        """The names of all parts of a shelf, as a hint."""
        return f"{shelf}: {', '.join(self.catalogue.names(shelf))}"

    def named(
        self, shelf: str, value: Any, path: tuple[Any, ...], default: Any
    ) -> dict[str, Any] | None:
        """The value as a mapping with a name; None after its problem was noted."""
        dotted = dotted_name(path)
        if isinstance(value, str):
            if shelf == "sources" and value not in self.catalogue.names("sources"):
                return self.source({"path": value}, path)
            return {"name": value}
        if not isinstance(value, dict):
            self.add(
                path,
                f"{dotted} must be the name of a part or a mapping with a name, and is "
                f"{format_value(value)}.",
                self.choices(shelf),
            )
            return None
        if "name" in value:
            return value
        misspelt = [
            key
            for key, entry in value.items()
            if entry in self.catalogue.names(shelf) and nearest(key, ["name"], 1)
        ]
        if misspelt:
            self.add(
                (*path, misspelt[0]), f"{dotted}.{misspelt[0]} is no option.", "did you mean name?"
            )
            return {
                **{key: entry for key, entry in value.items() if key != misspelt[0]},
                "name": value[misspelt[0]],
            }
        if shelf == "sources":
            return self.source(value, path)
        if default is not None:
            return {**({"name": default} if isinstance(default, str) else default), **value}
        slip = _slips(value, ["name"])
        hint = (
            "did you mean name?"
            if slip
            else f"say which with name: {', '.join(self.catalogue.names(shelf))}"
        )
        self.add((*path, slip[0]) if slip else path, f"{dotted} names no part.", hint)
        return None

    def source(self, value: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any] | None:
        """The value with the name of the source that reads its path; None after a problem was
        noted."""
        data_path = value.get("path")
        data_path = data_path[0] if isinstance(data_path, list) and data_path else data_path
        name = self.catalogue.source_for(data_path) if isinstance(data_path, str) else None
        if name is not None:
            return {"name": name, **value}
        names = self.catalogue.names("sources")
        if isinstance(data_path, str):
            is_path = re.search(r"[/\\.]", data_path) is not None
            guess = "" if is_path or not self.explains else did_you_mean(data_path, names)
            lost = "" if _exists(data_path) else " (there is no such file or folder)"
            self.add(
                (*path, "path"),
                f"no source is known for {data_path!r}{lost}.",
                guess or f"say which with name: {', '.join(names)}",
            )
            return None
        slip = _slips(value, ["name", "path"])
        hint = (
            did_you_mean(slip[0], ["name", "path"])
            if slip
            else f"say which with name: {', '.join(names)}"
        )
        self.add((*path, slip[0]) if slip else path, f"{dotted_name(path)} names no source.", hint)
        return None

    def many(self, shelf: str, value: Any, path: tuple[Any, ...]) -> list[Part | None]:
        """The parts of a list, None for those that are wrong; a single part needs no brackets."""
        value = [value] if isinstance(value, str | dict) else value
        if not isinstance(value, list):
            self.add(
                path,
                f"{dotted_name(path)} must be a list of parts, and is {format_value(value)}.",
                self.choices(shelf),
            )
            return []
        if len(value) > _MOST_PARTS:
            self.add(
                path,
                f"{dotted_name(path)} must be a list of at most {_MOST_PARTS} parts, and has "
                f"{len(value):,}.",
            )
            return []
        return [self.part(shelf, entry, (*path, number)) for number, entry in enumerate(value)]

    # options

    def options(self, config: type[Options], values: Any, path: tuple[Any, ...], owner: str) -> Any:
        """An instance of `config`; what is wrong has its default instead (None where it has
        none)."""
        if not isinstance(values, dict):
            dotted = dotted_name(path)
            self.add(
                path,
                f"{dotted} must be a mapping of options, and is {format_value(values)}.",
                f"options: {', '.join(config.model_fields)}",
            )
            values = {}
        names = list(config.model_fields)
        sound: dict[str, Any] = {}
        wrong: set[str] = set()
        for key, value in values.items():
            if key not in config.model_fields:
                self.unknown(key, names, (*path, key), owner)
                continue
            before = len(self.problems)
            resolved = self.resolved(config, key, value, (*path, key))
            if len(self.problems) == before:
                sound[key] = resolved
            else:
                wrong.add(key)
                if resolved is not None:
                    sound[key] = resolved
        try:
            instance = config.model_validate(sound)
        except ValidationError as error:
            refused = error.errors(include_url=False)
            self.refused(
                config,
                [
                    error_info
                    for error_info in refused
                    if not error_info["loc"] or error_info["loc"][0] not in wrong
                ],
                values,
                path,
                owner,
            )
            wrong |= {str(error_info["loc"][0]) for error_info in refused if error_info["loc"]}
            self.wrong |= {(*path, key) for key in wrong}
            required = {
                name: None for name, info in config.model_fields.items() if info.is_required()
            }
            instance = config.model_construct(
                **required | {key: value for key, value in sound.items() if key not in wrong}
            )
        return instance

    def resolved(self, config: type[Options], key: str, value: Any, path: tuple[Any, ...]) -> Any:
        """The value of an option with its parts resolved; None where it names no part."""
        if config is Data and key == "columns" and isinstance(value, dict):
            return {
                name: self.options(
                    ColumnOptions,
                    long_column(options),
                    (*path, name),
                    f"column {dotted_name((name,))}",
                )
                for name, options in value.items()
            }
        mark = on_shelf(config, key)
        if mark is None or value is None:
            return value
        if mark.fixed:
            return self.fixed(mark, value, path)
        if key == "transforms" and config is Data:
            return self.by_kind(mark.shelf, value, path)
        if key in ("transforms", "augmentations", "steps"):
            return self.many(mark.shelf, value, path)
        return self.part(mark.shelf, value, path, self.filled.get(dotted_name(path)))

    def fixed(self, mark: OnShelf, value: Any, path: tuple[Any, ...]) -> Part | None:
        """The only part that an option can hold: true (its defaults), a number (its patience) or a
        mapping of its options."""
        if value is False:
            return None
        value = long_early_stopping(value)
        if not isinstance(value, dict):
            self.add(
                path,
                f"{dotted_name(path)} must be true, false, a whole number or a mapping, "
                f"and is {format_value(value)}.",
            )
            return None
        if value.get("name", mark.fixed) != mark.fixed:
            self.add(
                (*path, "name"),
                f"{dotted_name(path)} can only be {mark.fixed}, and is "
                f"{format_value(value['name'])}.",
                "leave name out",
            )
            return None
        return self.part(mark.shelf, {**value, "name": mark.fixed}, path)

    def by_kind(self, shelf: str, value: Any, path: tuple[Any, ...]) -> Any:
        """The transforms of each kind of column."""
        if not isinstance(value, dict):
            dotted = dotted_name(path)
            self.add(
                path,
                f"{dotted} must be a mapping by kind of column, and is {format_value(value)}.",
                f"kinds: {', '.join(KINDS)}",
            )
            return {}
        for kind in value:
            if kind not in KINDS:
                self.unknown(kind, list(KINDS), (*path, kind), "data.transforms", "kinds")
        return {
            kind: self.many(shelf, parts, (*path, kind))
            for kind, parts in value.items()
            if kind in KINDS
        }

    # what is wrong

    def unknown(
        self,
        key: str,
        allowed: Sequence[str],
        path: tuple[Any, ...],
        owner: str,
        what: str = "options",
    ) -> None:
        """Note a name that does not exist. The hint is the same word with a slip mended, the same
        word elsewhere in the recipe, or the most similar name."""
        message = (
            f"{dotted_name(path)} is no {what.removesuffix('s')} of {owner}. Its "
            f"{what} are {', '.join(allowed) or 'none'}."
        )
        if not self.explains:
            self.add(path, message)
            return
        if self.places is None:
            self.places = list(dict.fromkeys(self.known_places()))
        places = self.places
        slips = nearest(key, [name for name in allowed if is_slip(key, name)], 1)
        same = [dotted for dotted in places if dotted.rpartition(".")[2] == key]
        near = slips or same or nearest(key, allowed, 1)
        if not near:
            word = nearest(key, [dotted.rpartition(".")[2] for dotted in places], 1)
            near = [dotted for dotted in places if word and dotted.rpartition(".")[2] == word[0]]
        self.add(
            path, message, f"did you mean {near[0]}?" if near else "leave it out, or see danlu show"
        )

    def known_places(self) -> Iterator[str]:
        """Every dotted name that a recipe with these parts can hold."""
        yield from KEYS
        for section, config in SECTIONS.items():
            yield from (f"{section}.{name}" for name in config.model_fields)
        data = mapping_or_empty(self.tree.get("data"))
        places = [
            (key, shelf, self.tree.get(key) or DEFAULTS.get(key)) for key, shelf in PARTS.items()
        ]
        places += [
            ("data.source", "sources", data.get("source")),
            ("data.split", "splits", data.get("split")),
        ]
        for key, shelf, value in places:
            name = (
                value
                if isinstance(value, str)
                else value.get("name")
                if isinstance(value, dict)
                else None
            )
            if isinstance(name, str) and name in self.catalogue.names(shelf):
                yield from (
                    f"{key}.{option}" for option in self.catalogue.config(shelf, name).model_fields
                )
        yield from (f"data.columns.NAME.{name}" for name in ColumnOptions.model_fields)

    def refused(
        self,
        config: type[Options],
        errors: Sequence[Any],
        values: Any,
        path: tuple[Any, ...],
        owner: str,
    ) -> None:
        """Note what pydantic refused; all members of a union give one problem."""
        grouped: dict[tuple[Any, ...], list[Any]] = {}
        for error in errors:
            grouped.setdefault(keys_of(error["loc"]), []).append(error)
        outer = {steps[:length] for steps in grouped for length in range(len(steps))}
        for steps, errors_here in grouped.items():
            if steps in outer:
                continue  # another member of the union names the place more exactly
            self.refuse(config, steps, errors_here, values, path, owner)

    def refuse(
        self,
        config: type[Options],
        steps: tuple[Any, ...],
        errors: Sequence[Any],
        values: Any,
        path: tuple[Any, ...],
        owner: str,
    ) -> None:
        """Note one value that pydantic refused."""
        full_path = (*path, *steps)
        dotted = dotted_name(full_path)
        kind = errors[0]["type"]
        if not steps:
            sentence = broken_rule(errors[0])
            named = [word for word in re.findall(r"\w+", sentence) if word in values]
            self.add((*path, *named[:1]), f"{dotted}: {sentence}.")
        elif kind == "missing":
            self.add(full_path, f"{dotted} is missing.", field_hint(config, steps))
        elif kind == "extra_forbidden":
            inner = owner_of(config, steps)
            self.unknown(
                str(steps[-1]),
                list(inner.model_fields),
                full_path,
                dotted_name(full_path[:-1]) or owner,
            )
        else:
            value = errors[0].get("input")
            rules = [broken_rule(error) for error in errors]
            further = [text.removeprefix("must be ").removeprefix("one of ") for text in rules[1:]]
            rule = " or ".join([rules[0], *further])
            message = (
                f"{dotted} {rule}, and is {format_value(value)}."
                if rule.startswith(("must ", "is ", "has "))
                else f"{dotted}: {rule}."
            )
            hint = value_hint(value, errors) if self.explains else ""
            self.add(full_path, message, hint or field_hint(config, steps))


def _slips(keys: Iterable[str], meant: Sequence[str]) -> list[str]:
    """The first of the keys that is a slip of one of the meant names, as a list of one; else []."""
    return [key for key in islice(keys, MOST_SHOWN) if nearest(key, meant, 1)][:1]


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False
