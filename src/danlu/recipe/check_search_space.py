"""Check the section tune: its dimensions, and every value against the option that it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from danlu.errors import MOST_SHOWN, Problem, RecipeError, did_you_mean
from danlu.recipe.messages import dotted_name, format_value
from danlu.recipe.options import Catalogue
from danlu.recipe.overrides import apply_overrides
from danlu.recipe.resolve import Resolver
from danlu.recipe.search_space import Dimension, Space, canonical
from danlu.recipe.sections import KEYS, Objective, Tune
from danlu.recipe.tree import DEEPEST, mapping_or_empty


class Try(Protocol):
    """Checks the recipe with some values changed."""

    def __call__(self, values: Mapping[str, Any], explain: bool = False) -> list[Problem]:
        """The problems; `explain`: with hints, which take time to look for."""
        ...


_RANGE = ("low", "high", "step", "log", "when")
_NOT_SEARCHED = ("tune", "name", "watchers", "task")
_WHAT_IS_COMPARED = (
    "data.source",
    "data.target",
    "data.split",
    "train.folds",
)  # trials of other rows have scores of another kind
_MOST_STEPS = 2**53  # of a range
_MOST_TRIED = (
    400  # combinations of a value with the choices around it that are checked before anything runs
)
_MOST_DIMENSIONS = 200
# Of a small recipe, whose check takes about half a millisecond; of a large one fewer:
_MOST_VALUES = 1000  # choices, and ends of ranges, of all dimensions together
_MOST_CHECKS = 1500  # of the recipe with other values
_SMALL = 300  # values in a recipe
_MOST_STEPS_AROUND = 10_000  # values that are looked at for the choices around one dimension
_MOST_NAMED = 10  # choices that a message names
MEASURED = ("loss", "seconds", "parameters")  # objectives that every recipe has


def in_order(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values sorted so that a part comes before its options (optimizer before
    optimizer.learning_rate)."""
    return dict(sorted(values.items(), key=lambda item: item[0].count(".")))


def check_search_space(
    checking: Resolver, tune: Tune, parts: Mapping[str, Any], try_out: Try
) -> Space:
    """The dimensions of a section tune, each after those that its condition names; problems are
    noted.

    `try_out` checks the recipe with some options changed, and returns the problems of that."""
    if len(tune.space) > _MOST_DIMENSIONS:
        checking.add(
            ("tune", "space"),
            f"tune.space names {len(tune.space):,} options; at most {_MOST_DIMENSIONS} can be "
            "searched together.",
            "search the options that matter most",
        )
        return ()
    written = {name: value for name, value in tune.space.items() if _nameable(checking, name)}
    dimensions: dict[str, Dimension] = {}
    for name, value in written.items():
        dimension = _dimension(checking, name, value)
        if dimension is not None:
            dimensions[name] = dimension
    _note_conditions(checking, dimensions, written)
    space = _sorted(checking, dimensions)
    if len(checking.problems) > MOST_SHOWN:
        return ()  # each check would find all of them again
    effort = _effort(checking.tree, space)
    count = sum(_value_count(member) for member in space)
    most = round(_MOST_VALUES / effort)
    if count > most:
        checking.add(
            ("tune", "space"),
            f"tune.space has {count:,} values (choices, and both ends of each range); at most "
            f"{most:,} are checked in a recipe of this size.",
            "write a range {low, high, step} in place of many choices",
        )
        return ()
    arounds = _arounds(space, round(_MOST_CHECKS / effort))
    space = tuple(
        _tried(checking, member, around, try_out) for member, around in zip(space, arounds)
    )
    _note_circumstances(checking, tune, parts, space)
    return space


def _path(name: str) -> tuple[str, ...]:
    return ("tune", "space", name)


def _dotted(name: str) -> str:
    return dotted_name(_path(name))


def _nameable(checking: Resolver, name: str) -> bool:
    head = name.partition(".")[0]
    if any(f"{name}.".startswith(f"{other}.") for other in _WHAT_IS_COMPARED):
        checking.add(
            _path(name),
            f"tune.space: {dotted_name((name,))} says on which rows scores are measured, so it "
            "cannot be searched.",
            "leave it out",
        )
        return False
    shallow = name.count(".") < DEEPEST and all(name.split("."))
    if head in KEYS and head not in _NOT_SEARCHED and shallow:
        return True
    keys = [key for key in KEYS if key not in _NOT_SEARCHED]
    hint = did_you_mean(head, keys) or "example: optimizer.learning_rate"
    checking.add(
        _path(name),
        f"tune.space: {dotted_name((name,))} is no option of a recipe that can be searched. It "
        f"begins with {', '.join(keys)}.",
        hint,
    )
    return False


# --- one dimension


def _dimension(checking: Resolver, name: str, value: Any) -> Dimension | None:
    """The dimension that a value of tune.space describes; None after its problem was noted."""
    if isinstance(value, list):
        return _choice(checking, name, value, {})
    if not isinstance(value, dict):
        hint = "example: {low: 1.0e-4, high: 0.1, log: true}, or [adam, sgd]"
        checking.add(
            _path(name),
            f"{_dotted(name)} must be a list of choices or a range, and is {format_value(value)}.",
            hint,
        )
        return None
    when = value.get("when") or {}
    if not isinstance(when, dict):
        checking.add(
            (*_path(name), "when"),
            f"{_dotted(name)}.when must be a mapping, and is {format_value(when)}.",
            "example: {optimizer: sgd}",
        )
        return None
    when = {
        other: tuple(condition) if isinstance(condition, list) else (condition,)
        for other, condition in when.items()
    }
    if "choices" in value:
        wrong = [key for key in value if key not in ("choices", "when")]
        for key in wrong:
            checking.unknown(key, ("choices", "when"), (*_path(name), key), "choices", "keys")
        choices = value["choices"]
        if not isinstance(choices, list):
            checking.add(
                (*_path(name), "choices"),
                f"{_dotted(name)}.choices must be a list, and is {format_value(choices)}.",
            )
            return None
        return None if wrong else _choice(checking, name, choices, when)
    return _range(checking, name, value, when)


def _choice(
    checking: Resolver, name: str, choices: list[Any], when: Mapping[str, tuple[Any, ...]]
) -> Dimension | None:
    if not choices:
        checking.add(
            _path(name), f"{_dotted(name)} has no choice.", "give the values that are tried"
        )
        return None
    twice: list[Any] = []
    before: set[str] = set()
    for choice in choices:
        text = canonical(choice)
        twice += [choice] if text in before else []
        before.add(text)
    if twice:
        checking.add(
            _path(name),
            f"{_dotted(name)} names the choice {format_value(twice[0])} twice.",
            "keep one of the two",
        )
        return None
    return Dimension(name, "choice", choices=tuple(choices), when=when)


def _range(
    checking: Resolver, name: str, value: dict[str, Any], when: Mapping[str, tuple[Any, ...]]
) -> Dimension | None:
    before = len(checking.problems)
    for key in value:
        if key not in _RANGE:
            checking.unknown(
                key, (*_RANGE, "choices"), (*_path(name), key), f"the range of {name}", "keys"
            )
    low, high, step, log = (value.get(key) for key in ("low", "high", "step", "log"))
    for key, number in (("low", low), ("high", high), ("step", step)):
        absent = number is None and key not in value
        if absent and key != "step":
            checking.add(
                _path(name),
                f"{_dotted(name)}: {key} is missing: a range has low and high.",
                "or give a list of choices",
            )
        elif not absent and not _is_number(number):
            checking.add(
                (*_path(name), key),
                f"{_dotted(name)}.{key} must be a finite number, and is {format_value(number)}.",
            )
    if log not in (None, True, False) or type(log) is int:
        checking.add(
            (*_path(name), "log"),
            f"{_dotted(name)}.log must be true or false, and is {format_value(log)}.",
        )
    if len(checking.problems) > before:
        return None
    assert low is not None and high is not None
    wrong = _wrong_range(low, high, step, bool(log))
    if wrong:
        key, sentence = wrong
        checking.add((*_path(name), key), f"{_dotted(name)}: {sentence}.")
        return None
    whole = all(
        isinstance(bound, int) for bound in (low, high, *([step] if step is not None else []))
    )
    return Dimension(
        name,
        "integer" if whole else "float",
        low=low,
        high=high,
        step=step,
        log=bool(log),
        when=when,
    )


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) < 2**53  # no infinity, and no NaN
    )


def _wrong_range(low: float, high: float, step: float | None, log: bool) -> tuple[str, str] | None:
    """(the wrong key, the rule that it breaks) of a range; None where the range is valid."""
    if low >= high:
        return "high", f"high ({high:g}) must be greater than low ({low:g})"
    if log and low <= 0:
        return "low", f"low ({low:g}) must be greater than 0 where log is true"
    if step is not None and step <= 0:
        return "step", f"step ({step:g}) must be greater than 0"
    if step is not None and step > high - low:
        return "step", f"step ({step:g}) is longer than the range from {low:g} to {high:g}"
    if step is not None and (high - low) / step > _MOST_STEPS:
        return "step", f"step ({step:g}) is too short for the range from {low:g} to {high:g}"
    if step is not None and log and step != 1:
        return "step", "a range with log: true takes no step"
    return None


# --- together


def _note_conditions(
    checking: Resolver, dimensions: dict[str, Dimension], written: Mapping[str, Any]
) -> None:
    """Note conditions that do not name choices of another dimension."""
    for name, dimension in list(dimensions.items()):
        for other, wanted in dimension.when.items():
            path = (*_path(name), "when", other)
            others = [wanted_choice for wanted_choice in dimensions if wanted_choice != name]
            if other not in written or other == name:
                hint = (
                    did_you_mean(other, others)
                    or f"what is searched besides: {', '.join(others) or 'nothing'}"
                )
                checking.add(
                    path, f"{_dotted(name)}.when names {other}, which is not searched.", hint
                )
                dimensions.pop(name, None)
            elif other in dimensions and dimensions[other].kind != "choice":
                checking.add(
                    path,
                    f"{_dotted(name)}.when names {other}, which is a range.",
                    "a condition names choices",
                )
                dimensions.pop(name, None)
            elif other in dimensions:
                for wanted_choice in wanted:
                    if not dimensions[other].holds(wanted_choice):
                        checking.add(
                            path,
                            f"{_dotted(name)}.when: {format_value(wanted_choice)} is no choice "
                            f"of {other}. It has {_listed(dimensions[other].choices)}.",
                        )
                        dimensions.pop(name, None)


def _listed(choices: Sequence[Any]) -> str:
    """The first choices, and how many more there are."""
    texts = [format_value(choice) for choice in choices[:_MOST_NAMED]]
    more = len(choices) - len(texts)
    return ", ".join(texts) + (f" and {more:,} more" if more else "")


def _sorted(checking: Resolver, dimensions: dict[str, Dimension]) -> Space:
    """The dimensions in the order of the recipe, each moved behind those that its condition
    names."""
    placed: dict[str, Dimension] = {}
    while len(placed) < len(dimensions):
        ready = [
            dimension
            for name, dimension in dimensions.items()
            if name not in placed
            and all(other in placed or other not in dimensions for other in dimension.when)
        ]
        if not ready:
            rest = [name for name in dimensions if name not in placed]
            checking.add(
                _path(rest[0]),
                f"tune.space: the conditions of {', '.join(rest)} go round in a circle.",
            )
            return ()
        placed[ready[0].name] = ready[0]
    return tuple(placed.values())


def _value_count(dimension: Dimension) -> int:
    """How many values of a dimension are checked."""
    return len(dimension.choices) if dimension.kind == "choice" else 2


def _effort(tree: Mapping[str, Any], space: Space) -> float:
    """How long a check of the recipe takes, in those of a small recipe, from 1 on."""
    largest = [max(map(_size, member.choices), default=1) for member in space]
    return max(
        1.0, (_size(_searched(tree, [member.name for member in space])) + sum(largest)) / _SMALL
    )


def _size(value: Any) -> int:
    """How many values plain data hold."""
    if isinstance(value, dict):
        return 1 + sum(map(_size, value.values()))
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


def _searched(tree: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The recipe without what a search of these options cannot change: its section tune, and the
    options of columns, of which there may be thousands."""
    bare = {key: value for key, value in tree.items() if key != "tune"}
    if isinstance(bare.get("data"), dict) and not any(name.startswith("data.") for name in names):
        bare["data"] = {key: value for key, value in bare["data"].items() if key != "columns"}
    return bare


def _arounds(space: Space, most: int) -> list[list[dict[str, Any]]]:
    """For each dimension, the values of other dimensions beside which its values are checked: all,
    or as many as `most` checks allow, at least one."""
    arounds = [list(_around(dimension, space)) for dimension in space]
    checks = sum(len(around) * (1 + _value_count(member)) for around, member in zip(arounds, space))
    share = min(1.0, most / max(checks, 1))
    return [around[: max(1, int(share * len(around)))] for around in arounds]


def _tried(
    checking: Resolver, dimension: Dimension, around: list[dict[str, Any]], try_out: Try
) -> Dimension:
    """The dimension after checking every choice, or both ends, in the recipe with each of the
    values around it; problems are noted."""
    problems_before = set(try_out({}))
    around = [values for values in around if problems_before.issuperset(try_out(values))] or [{}]
    if dimension.kind == "choice":
        for number, choice in enumerate(dimension.choices):
            _note_refusal(
                checking, (*_path(dimension.name), number), dimension.name, choice, around, try_out
            )
        return dimension
    for end in ("low", "high"):
        _note_refusal(
            checking,
            (*_path(dimension.name), end),
            dimension.name,
            getattr(dimension, end),
            around,
            try_out,
        )
    between = (dimension.low + dimension.high) / 2 + (
        0.25 if (dimension.low + dimension.high) % 1 == 0 else 0.0
    )
    continuous = dimension.kind == "integer" and dimension.step is None
    if continuous and not try_out({**around[0], dimension.name: between}):
        return replace(dimension, kind="float")  # {low: 0, high: 1} of an option that takes 0.5
    return dimension


def _around(dimension: Dimension, space: Space) -> Iterator[dict[str, Any]]:
    """The values of other dimensions with which this one is searched: those that its condition
    names, and the parts whose option it is."""
    named = {member.name: member for member in space}
    concerned: set[str] = set()
    waiting = [dimension.name]
    while waiting:
        keys = (name := waiting.pop()).split(".")
        outer = [".".join(keys[:length]) for length in range(1, len(keys))]
        new = [other for other in (*named[name].when, *outer) if other in named]
        waiting += [other for other in new if other not in concerned]
        concerned.update(new)
    concerned.discard(dimension.name)
    order = [member for member in space if member.name in concerned]
    needed = _needed(dimension, named)
    steps = iter(range(_MOST_STEPS_AROUND))

    def spread(rest: list[Dimension], values: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if next(steps, None) is None:
            return
        if not rest:
            if dimension.active(values):
                yield values
            return
        first, *others = rest
        if not first.active(values):
            yield from spread(others, values)
            return
        for value in first.choices if first.kind == "choice" else (first.low, first.high):
            if first.name not in needed or canonical(value) in needed[first.name]:
                yield from spread(others, {**values, first.name: value})

    count = 0
    for values in spread(order, {}):
        yield values
        count += 1
        if count == _MOST_TRIED:
            return
    if count == 0:
        yield {}


def _needed(dimension: Dimension, named: Mapping[str, Dimension]) -> dict[str, set[str]]:
    """The values (in canonical form) of other dimensions without which this one takes no part."""
    needed: dict[str, set[str]] = {}
    waiting = [dimension]
    while waiting:
        for name, choices in waiting.pop().when.items():
            texts = set(map(canonical, choices))
            if name in needed:
                needed[name] &= texts
            elif name in named:
                needed[name] = texts
                waiting.append(named[name])
    return needed


def _note_refusal(
    checking: Resolver,
    path: tuple[Any, ...],
    name: str,
    value: Any,
    around: list[dict[str, Any]],
    try_out: Try,
) -> None:
    """Note that the recipe refuses a value. Where it refuses it only beside some values of other
    dimensions, the first of these is named."""
    refusals: list[tuple[dict[str, Any], Problem]] = []
    for values in around:
        problems = set(try_out(values))
        refused = [
            problem for problem in try_out({**values, name: value}) if problem not in problems
        ]
        refusals += [(values, refused[0])] if refused else []
    if not refusals:
        return
    values, first = refusals[0]
    if checking.explains:
        explained = try_out({**values, name: value}, explain=True)
        first = next(problem for problem in explained if problem.message == first.message)
    if len(refusals) == len(around):
        checking.add(path, f"{_dotted(name)}: {first.message}", first.hint)
        return
    beside = ", ".join(
        f"{other}={value if isinstance(value, str) else format_value(value)}"
        for other, value in values.items()
    )
    checking.add(
        path,
        f"{_dotted(name)}: {first.message} (with {beside})",
        "say with which choice it takes part: when: {...}",
    )


def _note_circumstances(
    checking: Resolver, tune: Tune, parts: Mapping[str, Any], space: Space
) -> None:
    """Note contradictions between the space, the objectives, the sampler and the pruner."""
    objectives = [
        entry for entry in tune.objectives or () if isinstance(entry, Objective)
    ]  # wrong ones were noted already
    several = len(objectives) > 1
    if several and tune.pruner is not None and tune.pruner.name != "none":
        checking.add(
            ("tune", "pruner"),
            f"tune.pruner: {tune.pruner.name} goes by one objective, and there are "
            f"{len(objectives)}.",
            "set it to none",
        )
    if tune.sampler is not None and tune.sampler.name in checking.catalogue.names("samplers"):
        limits = checking.catalogue.sampler_facts(tune.sampler.name)
        if several and not limits.several:
            able = [
                entry
                for entry in checking.catalogue.names("samplers")
                if checking.catalogue.sampler_facts(entry).several
            ]
            checking.add(
                ("tune", "sampler"),
                f"tune.sampler: {tune.sampler.name} goes by one objective.",
                f"for several: {', '.join(able)}",
            )
        refusal = limits.refuses(tune.sampler.options, space) if limits.refuses and space else ""
        if refusal:
            checking.add(("tune", "sampler"), f"tune.sampler: {refusal}")
    measured = {part.name for part in parts.get("metrics", ()) if part is not None} | set(MEASURED)
    for number, objective in enumerate(objectives):
        unmeasured = (
            objective.metric in checking.catalogue.names("metrics")
            and objective.metric not in measured
        )
        if unmeasured:
            hint = f"add it to metrics, or choose among {', '.join(sorted(measured))}"
            checking.add(
                ("tune", "objectives", number, "metric"),
                f"tune.objectives: the recipe does not measure {objective.metric}.",
                hint,
            )


def trial_checker(tree: dict[str, Any], catalogue: Catalogue, check: Callable[..., Any]) -> Try:
    """A function that checks the recipe, without its section tune, with some options changed."""
    bare = _searched(tree, list(mapping_or_empty(mapping_or_empty(tree["tune"]).get("space"))))
    problems: dict[str, list[Problem]] = {}

    def try_out(values: Mapping[str, Any], explain: bool = False) -> list[Problem]:
        key = repr((explain, sorted(values.items(), key=lambda item: item[0])))
        if key not in problems:
            try:
                changed, where = apply_overrides(bare, {(): ""}, in_order(values), catalogue)
                check(changed, dict.fromkeys(where, ""), catalogue, explain=explain)
                problems[key] = []
            except RecipeError as error:
                problems[key] = list(error.problems)
        return problems[key]

    return try_out
