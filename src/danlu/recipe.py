"""What to do, as frozen data: read (YAML 1.2 with line numbers, JSON, or a dict), check, override, write. No torch.

A recipe is checked whole before any data is read, and every problem is reported at once. The options of a part are declared in the
part's own file; this module reaches them through a `Catalogue` (danlu.shelf is one), so that it knows no part by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from danlu.errors import DanluError, PartError, Problem, RecipeError, nearest
from danlu.terms import KINDS, Kind

LARGEST_RECIPE = 1_000_000  # bytes; a recipe is a page, not data
MOST_NODES = 100_000  # YAML nodes after aliases are followed: an alias bomb stops here
DEEPEST = 50  # nested levels

Where = Mapping[tuple[Any, ...], str]  # path of keys -> "file:line"


class Options(BaseModel):
    """The base of every part's Config: frozen, no unknown key, no silent conversion ("0.1" is not a number, 1 is not true)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


class ScheduleOptions(Options):
    """The base of every schedule's Config."""

    warmup: float = Field(
        0.0, ge=0, description="Steps of linear warm-up before the schedule; below 1 it is a share of all steps."
    )


@dataclass(frozen=True)
class Part:
    """A chosen part: its name on its shelf and its checked options."""

    name: str
    options: Options

    def as_dict(self) -> dict[str, Any]:
        """{"name": ..., option: value, ...} with every default written out."""
        return {"name": self.name, **plain(self.options)}


@dataclass(frozen=True)
class OnShelf:
    """Marks a field that holds a part (or a list or mapping of parts) of a shelf."""

    shelf: str
    fixed: str = ""  # the one part that may stand here; the recipe then writes its options without a name


class Catalogue(Protocol):
    """What recipe needs to know of the shelves; danlu.shelf offers it."""

    def names(self, shelf: str) -> list[str]: ...
    def config(self, shelf: str, name: str) -> type[Options]: ...
    def defaults(self, shelf: str, name: str) -> Mapping[str, Any]: ...
    def facts(self, shelf: str, name: str) -> Any: ...
    def source_for(self, path: str) -> str | None: ...


class ColumnOptions(Options):
    """What a recipe says of one column."""

    kind: Kind | None = Field(None, description="What the column holds; inferred when null.")
    on_error: Literal["error", "missing"] = Field(
        "error", description="A value that is not of the kind: stop and name the row, or count it as missing."
    )
    use: bool = Field(True, description="Whether the column is an input (false for names, keys, anything that must not be learnt from).")
    transforms: Annotated[list[Part] | None, OnShelf("transforms")] = Field(
        None, description="The transforms of this column instead of those of its kind."
    )


class Data(Options):
    """Which rows, which columns, and how they become tensors."""

    source: Annotated[Part, OnShelf("sources")] = Field(description="Where rows come from: a path, or a source with its options.")
    target: str | list[str] | None = Field(None, description="The column to predict, or several.")
    columns: dict[str, ColumnOptions] = Field({}, description="What to know of single columns, by name.")
    split: Annotated[Part | None, OnShelf("splits")] = Field(
        None, description="How rows are divided into train, validation and test; rows the source itself assigns stay there."
    )
    transforms: Annotated[dict[Kind, list[Part]], OnShelf("transforms")] = Field(
        {}, description="Transforms by kind of column; a kind not named keeps its defaults."
    )
    augmentations: Annotated[list[Part], OnShelf("augmentations")] = Field(
        [], description="Random changes of training batches."
    )
    duplicates: Literal["keep", "drop"] = Field("keep", description="What to do with rows that repeat another one exactly.")
    missing_rows: Literal["keep", "drop"] = Field("keep", description="drop leaves out rows with a missing input value; keep imputes.")
    missing_target: Literal["error", "drop"] = Field("error", description="What to do with rows whose target is missing.")
    checks: Literal["warn", "error", "off"] = Field("warn", description="What a suspicion (leak, duplicates across splits) does.")
    cache: bool = Field(True, description="Keep the table memory-mapped on disk for the next start.")

    @property
    def targets(self) -> tuple[str, ...]:
        """The target columns, in the order given."""
        return () if self.target is None else (self.target,) if isinstance(self.target, str) else tuple(self.target)


class Regularization(Options):
    """What keeps a model from learning its training rows by heart."""

    l1: float = Field(0.0, ge=0, description="Weight of the sum of absolute weights, added to the loss (matrices only).")
    l2: float = Field(0.0, ge=0, description="Weight of half the sum of squared weights, added to the loss (matrices only).")
    dropout: float | None = Field(None, ge=0, lt=1, description="Share of activations dropped; null leaves the model's own option.")
    early_stopping: Annotated[Part | None, OnShelf("watchers", fixed="early_stopping")] = Field(
        None, description="Stop when the validation score no longer improves; true takes the defaults."
    )
    restore_best: bool = Field(True, description="Release the weights of the best evaluation, not the last; needs a validation split.")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="Decay a step of the exponential moving average of weights that is evaluated and released."
    )


class Train(Options):
    """How long, how large, how exactly."""

    epochs: float | None = Field(None, gt=0, le=1_000_000, description="Passes over the training rows; this or steps.")
    steps: int | None = Field(None, gt=0, description="Optimizer updates; this or epochs.")
    batch_size: int | Literal["all"] = Field(64, description="Examples of one update; all: every training row.")
    micro_batch: int | None = Field(
        None, gt=0, description="Examples of one forward pass; gradients of a batch are accumulated exactly over several. Null: the batch."
    )
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of the gradient; longer ones are shortened to it.")
    clip_value: float | None = Field(None, gt=0, description="Largest size of each entry of the gradient.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Number format of the forward pass; weights stay float32. auto: by rule over hardware and work per step."
    )
    compile: bool | Literal["auto"] = Field("auto", description="Whether torch.compile is used; auto: by rule.")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda, cuda:N or mps.")
    threads: int | None = Field(None, gt=0, le=4096, description="CPU threads; null: one a core. Recorded, since it changes the last bits.")
    report_every: int | None = Field(None, gt=0, description="Steps between reports of the training loss; null: about 100 a run.")
    evaluate_every: int | None = Field(None, gt=0, description="Steps between evaluations on the validation split; null: once an epoch.")
    save_every: int | None = Field(None, gt=0, description="Steps between checkpoints; null: with every evaluation, at most 20 a run.")
    keep: int = Field(2, ge=1, le=1000, description="Newest checkpoints kept.")
    on_nan: Literal["stop", "skip", "roll_back"] = Field(
        "stop", description="A NaN or infinity in loss or gradient: stop before the update, skip the update, or go back to the last "
        "checkpoint and skip the batch."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="All randomness is a function of it and the step.")
    folds: int | None = Field(None, ge=2, le=100, description="k-fold cross-validation over the rows outside the test split.")


@dataclass(frozen=True)
class Recipe:
    """A checked recipe with every default filled in."""

    name: str
    task: Part
    data: Data
    model: Part
    loss: Part
    metrics: tuple[Part, ...]
    optimizer: Part
    schedule: Part
    regularization: Regularization
    train: Train
    watchers: tuple[Part, ...]
    raw: Mapping[str, Any] = field(repr=False, compare=False)  # as written, overrides applied; what tuning edits
    path: str = field(default="", compare=False)  # the file it came from; "" for a dict

    def as_dict(self) -> dict[str, Any]:
        """The whole recipe as plain data, every default written out; reading it back gives an equal recipe."""
        return {
            "name": self.name,
            "task": self.task.as_dict(),
            "data": plain(self.data),
            "model": self.model.as_dict(),
            "loss": self.loss.as_dict(),
            "metrics": [part.as_dict() for part in self.metrics],
            "optimizer": self.optimizer.as_dict(),
            "schedule": self.schedule.as_dict(),
            "regularization": plain(self.regularization),
            "train": plain(self.train),
            "watchers": [part.as_dict() for part in self.watchers],
        }


PARTS = {
    "task": "tasks",
    "model": "models",
    "loss": "losses",
    "metrics": "metrics",
    "optimizer": "optimizers",
    "schedule": "schedules",
    "watchers": "watchers",
}
SECTIONS: dict[str, type[Options]] = {"data": Data, "regularization": Regularization, "train": Train}
KEYS = ("name", "task", "data", "model", "loss", "metrics", "optimizer", "schedule", "regularization", "train", "watchers")
LISTS = {"metrics", "watchers"}
# What every recipe has unless a task, a model, an optimizer or the user says otherwise, in that order.
DEFAULTS: dict[str, Any] = {
    "optimizer": "adamw",
    "schedule": "constant",
    "metrics": [],
    "train.epochs": 20,
    "data.split": "random",
    "watchers": ["console", "jsonl", "tensorboard", "sanity", "divergence"],
}


# --- reading ----------------------------------------------------------------------------------------------------------


class _Yaml12(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's scalars: 1e-3 is a number, `no` is a word, 12:30 is no number."""


_SCALARS: list[tuple[str, str, str]] = [
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
]
_Yaml12.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _SCALARS:
    _Yaml12.add_implicit_resolver(_tag, re.compile(_pattern), ["" if letter == "\0" else letter for letter in _first])


class _Writer(yaml.SafeDumper):
    """Quotes what YAML 1.2 would not read back as the same string."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Writer.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _SCALARS:
    _Writer.add_implicit_resolver(_tag, re.compile(_pattern), ["" if letter == "\0" else letter for letter in _first])


def write_yaml(value: Any) -> str:
    """Plain data as YAML 1.2 text, keys in their order."""
    return yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=120)


def read_yaml(text: str, name: str) -> tuple[Any, dict[tuple[Any, ...], str]]:
    """(value, where) of a YAML 1.2 (or JSON) text; `where` maps each path of keys to "name:line".

    Raises RecipeError for what is not YAML, duplicate keys, tags, alias bombs and documents too deep.
    """
    if text.count("[") + text.count("{") > MOST_NODES:
        raise RecipeError([Problem(name, "the recipe opens too many brackets to be one.")])
    try:
        loader = _Yaml12(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        said = (error.problem or str(error)).strip()
        raise RecipeError([Problem(where, f"this is not YAML: {said}.", _yaml_hint(text, mark.line if mark else 0))]) from None
    except yaml.YAMLError as error:
        raise RecipeError([Problem(name, f"this is not YAML: {str(error).splitlines()[0]}.")]) from None
    except RecursionError:
        raise RecipeError([Problem(name, f"the recipe is nested deeper than {DEEPEST} levels.")]) from None
    where: dict[tuple[Any, ...], str] = {(): f"{name}:1"}
    problems: list[Problem] = []
    count = 0

    def value_of(node: yaml.Node, path: tuple[Any, ...]) -> Any:
        nonlocal count
        count += 1
        line = f"{name}:{node.start_mark.line + 1}"
        if count > MOST_NODES or len(path) > DEEPEST:
            raise RecipeError([Problem(line, f"the recipe holds more than {MOST_NODES:,} values or {DEEPEST} levels.")])
        where.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            if node.tag != "tag:yaml.org,2002:map":
                problems.append(Problem(line, f"the tag {node.tag} is not allowed in a recipe.", "a recipe is plain data"))
            result: dict[Any, Any] = {}
            for key_node, child in node.value:
                key_line = f"{name}:{key_node.start_mark.line + 1}"
                if not isinstance(key_node, yaml.ScalarNode):
                    problems.append(Problem(key_line, "a key must be a word."))
                    continue
                key = key_node.value
                if key in result:
                    first = where[(*path, key)].rpartition(":")[2]
                    dotted = ".".join(map(str, (*path, key)))
                    problems.append(Problem(key_line, f"{dotted} is given twice (first on line {first}).", "keep one of the two"))
                    continue
                where[(*path, key)] = key_line
                result[key] = value_of(child, (*path, key))
            return result
        if isinstance(node, yaml.SequenceNode):
            return [value_of(child, (*path, number)) for number, child in enumerate(node.value)]
        return _scalar(node, line, problems)

    value = None if node is None else value_of(node, ())
    if problems:
        raise RecipeError(problems)
    return value, where


def _yaml_hint(text: str, line: int) -> str:
    lines = text.splitlines()
    near = lines[max(line - 1, 0) : line + 1]
    if any("\t" in each[: len(each) - len(each.lstrip())] for each in near):
        return "YAML is indented with spaces, not tabs"
    return "look at the colon, the indentation and the brackets of this line and the one before"


def _scalar(node: yaml.Node, line: str, problems: list[Problem]) -> Any:
    text = str(node.value)
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        if len(text) > 400:
            problems.append(Problem(line, f"a number of {len(text):,} digits is too long."))
            return 0
        return int(text, 0) if text.lower().startswith(("0x", "0o")) else int(text)
    if kind == "float":
        lowered = text.lower()
        return float(lowered.replace(".inf", "inf").replace(".nan", "nan"))
    if kind != "str":
        problems.append(Problem(line, f"the tag {node.tag} is not allowed in a recipe.", "a recipe is plain data"))
    return text


def read(
    source: str | Path | Mapping[str, Any],
    catalogue: Catalogue,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Recipe:
    """The checked recipe of a file or dict, with `overrides` ("optimizer.learning_rate=0.1", or a dict of dotted names) applied.

    Raises RecipeError with every problem at once; reads no data.
    """
    if isinstance(source, Mapping):
        tree, where, path = json.loads(json.dumps(source, default=_refuse)), {(): "recipe"}, ""
    else:
        path = str(source)
        tree, where = read_yaml(_read_text(Path(source)), Path(source).name)
    if not isinstance(tree, dict):
        raise RecipeError([Problem(where.get((), path), "a recipe is a mapping with the keys task, data and model.", _NEW)])
    tree, where = apply_overrides(tree, where, overrides)
    return check(tree, where, catalogue, path)


_NEW = "danlu new DATA --target COLUMN writes one"


def _refuse(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise RecipeError([Problem("recipe", f"{value!r} ({type(value).__name__}) is not plain data.")])


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise RecipeError([Problem(str(path), "this is a folder; a recipe is a YAML file.", _NEW)])
        size = path.stat().st_size
        if size > LARGEST_RECIPE:
            raise RecipeError([Problem(str(path), f"the file has {size:,} bytes; a recipe has at most {LARGEST_RECIPE:,}.")])
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError([Problem(str(path), f"byte {error.start} is not UTF-8.", "save the recipe as UTF-8")]) from None
    except FileNotFoundError:
        beside = path.parent if path.parent.is_dir() else Path()
        near = nearest(path.name, [each.name for each in beside.glob("*.y*ml")])
        hint = f"did you mean {path.parent / near[0]}?" if near else _NEW
        raise RecipeError([Problem(str(path), "there is no such recipe.", hint)]) from None
    except (OSError, ValueError) as error:
        raise RecipeError([Problem(str(path), f"cannot be read: {getattr(error, 'strerror', None) or error}.")]) from None


def apply_overrides(
    tree: dict[str, Any], where: Where, overrides: Sequence[str] | Mapping[str, Any]
) -> tuple[dict[str, Any], dict[tuple[Any, ...], str]]:
    """(tree, where) with each dotted name set to its value; neither argument is changed."""
    tree = json.loads(json.dumps(tree))
    places = dict(where)
    pairs: list[tuple[str, Any, str]] = []
    problems: list[Problem] = []
    if isinstance(overrides, Mapping):
        pairs = [(name, value, name) for name, value in overrides.items()]
    else:
        for text in overrides:
            name, equals, value = text.partition("=")
            if not equals or not name.strip():
                problems.append(Problem(f"override {text!r}", "an override is name=value.", "example: optimizer.learning_rate=0.01"))
                continue
            pairs.append((name.strip(), read_yaml(value, f"override {text}")[0], f"override {text}"))
    for name, value, said in pairs:
        keys = name.split(".")
        inside: Any = tree
        for depth, key in enumerate(keys[:-1]):
            child = inside.get(key)
            if isinstance(child, str):  # optimizer: adam, then optimizer.learning_rate=0.1
                child = inside[key] = _as_mapping(tuple(keys[: depth + 1]), child)
            if child is None:
                child = inside[key] = {}
            if not isinstance(child, dict):
                problems.append(Problem(said, f"{'.'.join(keys[: depth + 1])} holds no names to set."))
                break
            inside = child
        else:
            inside[keys[-1]] = value
            for path in [path for path in places if path[: len(keys)] == tuple(keys)]:
                del places[path]
            places[tuple(keys)] = said
    if problems:
        raise RecipeError(problems)
    return tree, places


def _as_mapping(path: tuple[str, ...], text: str) -> dict[str, Any]:
    return {"path": text} if path == ("data", "source") and _is_path(text) else {"name": text}


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or "." in text


# --- checking ---------------------------------------------------------------------------------------------------------


class _Check:
    """One check of one tree: gathers problems, resolves parts, fills in defaults."""

    def __init__(self, tree: dict[str, Any], where: Where, catalogue: Catalogue, path: str) -> None:
        self.tree = tree
        self.where = where
        self.catalogue = catalogue
        self.path = path
        self.problems: list[Problem] = []

    def at(self, path: tuple[Any, ...]) -> str:
        while path and path not in self.where:
            path = path[:-1]
        return self.where.get(path, "recipe")

    def add(self, path: tuple[Any, ...], message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.at(path), message, hint))

    # parts

    def part(self, shelf: str, value: Any, path: tuple[Any, ...], default: Any = None, fixed: str = "") -> Part | None:
        """The Part that `value` means, or None after its problems were noted."""
        dotted = ".".join(map(str, path))
        if fixed:
            value = {} if value is True else {"patience": value} if type(value) is int else value
            value = {"name": fixed, **value} if isinstance(value, dict) and "name" not in value else value
        if shelf == "sources" and isinstance(value, str) and value not in self.catalogue.names("sources"):
            value = {"path": value}
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict):
            self.add(path, f"{dotted} must be the name of a part or a mapping with a name, and is {_say(value)}.",
                     f"it has {', '.join(self.catalogue.names(shelf))}")  # fmt: skip
            return None
        if "name" not in value:
            value = self.named(shelf, value, path, default)
            if value is None:
                return None
        name = value["name"]
        if not isinstance(name, str):
            self.add((*path, "name"), f"{dotted}.name must be a word, and is {_say(name)}.")
            return None
        try:
            config = self.catalogue.config(shelf, name)
        except PartError as error:
            hint = error.problem.hint
            if not hint:
                elsewhere = [other for other in PARTS.values() if other != shelf and name in self.catalogue.names(other)]
                hint = f"{name} stands among {elsewhere[0]}" if elsewhere else "danlu list " + shelf
            self.add((*path, "name"), f"{dotted}: {error.problem.message}", hint)
            return None
        options = {key: each for key, each in value.items() if key != "name"}
        checked = self.options(config, options, path, f"{name}")
        return None if checked is None else Part(name, checked)

    def named(self, shelf: str, value: dict[str, Any], path: tuple[Any, ...], default: Any) -> dict[str, Any] | None:
        dotted = ".".join(map(str, path))
        misspelt = [key for key in value if nearest(key, ["name"], 1) == ["name"] and key.lower() in ("nam", "naem", "nmae", "names", "anme", "nme", "ame")]
        if misspelt:
            self.add((*path, misspelt[0]), f"{dotted}.{misspelt[0]} is no option.", "did you mean name?")
            return None
        if shelf == "sources":
            given = value.get("path")
            found = self.catalogue.source_for(given) if isinstance(given, str) else None
            if found is None:
                said = f"no source is known for {given!r}" if isinstance(given, str) else f"{dotted} names no source"
                self.add(path, f"{said}.", f"say which with name: {', '.join(self.catalogue.names('sources'))}")
                return None
            return {"name": found, **value}
        if default is not None:
            base = {"name": default} if isinstance(default, str) else dict(default)
            return {**base, **value}
        self.add(path, f"{dotted} names no part.", f"say which with name: {', '.join(self.catalogue.names(shelf))}")
        return None

    # options

    def options(self, config: type[Options], values: Any, path: tuple[Any, ...], owner: str) -> Any:
        """An instance of `config`, its part fields resolved; None after its problems were noted."""
        before = len(self.problems)
        dotted = ".".join(map(str, path))
        if not isinstance(values, dict):
            self.add(path, f"{dotted} must be a mapping of options, and is {_say(values)}.",
                     f"its options are {', '.join(config.model_fields)}")  # fmt: skip
            return None
        known = list(config.model_fields)
        plainly: dict[str, Any] = {}
        for key, value in values.items():
            if key not in config.model_fields:
                self.unknown(key, known, (*path, key), owner)
                continue
            shelf = on_shelf(config, key)
            plainly[key] = value if shelf is None or value is None else self.parts(shelf, value, (*path, key))
            if isinstance(plainly[key], dict) and key == "columns" and config is Data:
                plainly[key] = {
                    name: self.options(ColumnOptions, self.column(each), (*path, key, name), f"column {name}")
                    for name, each in plainly[key].items()
                }
        plainly = {key: value for key, value in plainly.items() if not _failed(value)}
        try:
            made = config.model_validate(plainly)
        except ValidationError as error:
            failed_parts = {key for key in values if key in config.model_fields and key not in plainly}
            for each in error.errors(include_url=False):
                if each["loc"] and each["loc"][0] in failed_parts:
                    continue  # its own problem is noted already
                self.refused(config, each, path, owner)
            return None
        return made if len(self.problems) == before else None

    def column(self, value: Any) -> Any:
        """A column may be written short: `age: number`, `id: drop`."""
        if isinstance(value, str):
            return {"use": False} if value in ("drop", "ignore") else {"kind": value}
        return {"use": False} if value is False else value

    def parts(self, mark: OnShelf, value: Any, path: tuple[Any, ...]) -> Any:
        if mark.fixed:
            return None if value is False else self.part(mark.shelf, value, path, fixed=mark.fixed) or _FAILED
        if path[-1] == "transforms" and isinstance(value, dict) and path[:2] == ("data", "transforms"):
            result: dict[str, Any] = {}
            for kind, each in value.items():
                if kind not in KINDS:
                    self.unknown(kind, list(KINDS), (*path, kind), "data.transforms")
                    continue
                result[kind] = self.many(mark.shelf, each, (*path, kind))
            return _FAILED if any(_failed(each) for each in result.values()) else result
        if path[-1] in ("transforms", "augmentations"):
            return self.many(mark.shelf, value, path)
        return self.part(mark.shelf, value, path) or _FAILED

    def many(self, shelf: str, value: Any, path: tuple[Any, ...]) -> Any:
        value = [value] if isinstance(value, str | dict) else value
        if not isinstance(value, list):
            self.add(path, f"{'.'.join(map(str, path))} must be a list of parts, and is {_say(value)}.")
            return _FAILED
        made = [self.part(shelf, each, (*path, number)) for number, each in enumerate(value)]
        return _FAILED if any(each is None for each in made) else made

    def unknown(self, key: Any, known: list[str], path: tuple[Any, ...], owner: str) -> None:
        guess = nearest(str(key), known, 1)
        prefix = ".".join(map(str, path))
        message = f"{prefix} is no option of {owner}. Its options are {', '.join(known) or 'none'}."
        if guess:
            self.add(path, message, f"did you mean {guess[0]}?")
            return
        elsewhere = [place for place in self.known_places() if place.rpartition(".")[2] == key]
        if not elsewhere:
            near = nearest(str(key), [place.rpartition(".")[2] for place in self.known_places()], 1)
            elsewhere = [place for place in self.known_places() if near and place.rpartition(".")[2] == near[0]]
        self.add(path, message, f"did you mean {elsewhere[0]}?" if elsewhere else "leave it out, or see danlu show")

    def known_places(self) -> Iterator[str]:
        """Every dotted name that this recipe could hold."""
        yield from KEYS
        for section, config in SECTIONS.items():
            yield from (f"{section}.{name}" for name in config.model_fields)
        for key, shelf in PARTS.items():
            given = self.tree.get(key, DEFAULTS.get(key))
            name = given if isinstance(given, str) else given.get("name") if isinstance(given, dict) else None
            if isinstance(name, str) and name in self.catalogue.names(shelf):
                yield from (f"{key}.{option}" for option in self.catalogue.config(shelf, name).model_fields)

    def refused(self, config: type[Options], error: Any, path: tuple[Any, ...], owner: str) -> None:
        loc = tuple(each for each in error["loc"])
        place = (*path, *_steps(loc))
        dotted = ".".join(map(str, (*path, *_steps(loc))))
        if error["type"] == "missing":
            self.add(path, f"{dotted} is missing.", _field_hint(config, loc))
            return
        if error["type"] == "extra_forbidden":
            self.add(place, f"{dotted} is no option of {owner}.")
            return
        rule = _rule(error)
        self.add(place, f"{dotted} {rule}, and is {_say(error.get('input'))}.", _field_hint(config, loc))


_FAILED = object()


def _failed(value: Any) -> bool:
    return value is _FAILED or (isinstance(value, list) and _FAILED in [each if each is _FAILED else None for each in value]) or (
        isinstance(value, dict) and any(each is None or each is _FAILED for each in value.values())
    )


def on_shelf(config: type[BaseModel], name: str) -> OnShelf | None:
    """The shelf whose parts a field holds, or None."""
    return next((mark for mark in config.model_fields[name].metadata if isinstance(mark, OnShelf)), None)


def _steps(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where in the recipe a pydantic location is: the names of union members and literals are left out."""
    kept: list[Any] = []
    for each in loc:
        if isinstance(each, str) and (each in _UNION_MEMBERS or each.startswith(("literal[", "list[", "dict[", "constrained", "function-", "nullable"))):
            continue
        kept.append(each)
    return tuple(kept)


_UNION_MEMBERS = {"int", "float", "str", "bool", "none", "[key]"}


def _rule(error: Any) -> str:
    """The broken rule in plain words."""
    context = error.get("ctx", {})
    kind = error["type"]
    simple = {
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "finite_number": "must be a finite number",
        "string_type": "must be text",
        "bool_type": "must be true or false",
        "list_type": "must be a list",
        "dict_type": "must be a mapping",
    }
    if kind in simple:
        return simple[kind]
    if kind == "literal_error":
        return f"must be one of {context['expected'].replace(chr(39), '')}"
    bounds = {
        "greater_than": ("gt", "must be greater than"),
        "greater_than_equal": ("ge", "must be at least"),
        "less_than": ("lt", "must be less than"),
        "less_than_equal": ("le", "must be at most"),
        "too_short": ("min_length", "must have at least this many entries:"),
        "too_long": ("max_length", "must have at most this many entries:"),
        "string_too_short": ("min_length", "must have at least this many letters:"),
        "string_pattern_mismatch": ("pattern", "must match"),
        "multiple_of": ("multiple_of", "must be a multiple of"),
    }
    if kind in bounds:
        key, words = bounds[kind]
        return f"{words} {context[key]}"
    message = str(error["msg"])
    return message[len("Value error, ") :].rstrip(".") if kind == "value_error" else message[0].lower() + message[1:]


def _field_hint(config: type[BaseModel], loc: tuple[Any, ...]) -> str:
    info = config.model_fields.get(str(loc[0])) if loc else None
    return info.description.rstrip(".") if info is not None and info.description else ""


def _say(value: Any) -> str:
    if value is None:
        return "null"
    text = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, Part) else value.name
    text = text if len(text) <= 80 else text[:77] + "..."
    kind = {bool: "true or false", str: "text", int: "a whole number", float: "a number", list: "a list", dict: "a mapping"}
    named = kind.get(type(value))
    return f"{text} ({named})" if named and isinstance(value, str | bool) else text


def check(tree: dict[str, Any], where: Where, catalogue: Catalogue, path: str = "") -> Recipe:
    """The Recipe of a tree, every default filled in. Raises RecipeError with all problems at once."""
    checking = _Check(tree, where, catalogue, path)
    add = checking.add
    for key in tree:
        if key not in KEYS and key != "resolved":  # what a lock file adds
            checking.unknown(key, list(KEYS), (key,), "a recipe")
    for key in ("task", "data", "model"):
        if tree.get(key) is None and not any(nearest(str(other), KEYS, 1) == [key] for other in tree if other not in KEYS):
            add((), f"{key} is missing: a recipe needs task, data and model.", _NEW)
    name = tree.get("name")
    if name is not None and (not isinstance(name, str) or not re.fullmatch(r"[\w.\- ]{1,100}", name) or name.strip(". ") == ""):
        add(("name",), f"name must be letters, digits, '-', '_' or '.', and is {_say(name)}.")
    name = name if isinstance(name, str) else Path(path).name.removesuffix(".yaml").removesuffix(".yml").removesuffix(".json").removesuffix(".lock") if path else "recipe"

    parts: dict[str, Any] = {}
    if tree.get("task") is not None:
        parts["task"] = checking.part("tasks", tree["task"], ("task",))
    if tree.get("model") is not None:
        parts["model"] = checking.part("models", tree["model"], ("model",))
    filled = dict(DEFAULTS)
    for key, shelf in (("task", "tasks"), ("model", "models")):
        part = parts.get(key)
        if part is not None:
            filled |= dict(catalogue.defaults(shelf, part.name))
    optimizer = checking.part("optimizers", tree.get("optimizer", filled["optimizer"]), ("optimizer",), default=filled["optimizer"])
    parts["optimizer"] = optimizer
    if optimizer is not None:
        filled |= dict(catalogue.defaults("optimizers", optimizer.name))
        if getattr(catalogue.facts("optimizers", optimizer.name), "FULL_BATCH", False):
            filled["train.batch_size"] = "all"
    for key in ("loss", "schedule"):
        value = tree.get(key, filled.get(key))
        if value is not None:
            parts[key] = checking.part(PARTS[key], value, (key,), default=filled.get(key))
    for key in LISTS:
        value = tree.get(key)
        value = filled[key] if value is None else value
        made = checking.many(PARTS[key], value, (key,))
        parts[key] = None if made is _FAILED else made

    sections: dict[str, Any] = {}
    for key, config in SECTIONS.items():
        given = tree.get(key)
        if given is None and key == "data":
            continue
        given = {} if given is None else given
        if isinstance(given, dict):
            given = dict(given)
            for dotted, value in filled.items():
                section, _, option = dotted.partition(".")
                if section == key and given.get(option) is None and not (option == "epochs" and given.get("steps") is not None):
                    given[option] = value
        sections[key] = checking.options(config, given, (key,), key)

    _contradictions(checking, parts, sections)
    if checking.problems:
        raise RecipeError(_in_file_order(checking.problems))
    data: Data = sections["data"]
    model = parts["model"]
    dropout = sections["regularization"].dropout
    if dropout is not None:
        model = Part(model.name, model.options.model_copy(update={"dropout": dropout}))
    return Recipe(
        name=name,
        task=parts["task"],
        data=data,
        model=model,
        loss=parts["loss"],
        metrics=tuple(parts["metrics"]),
        optimizer=parts["optimizer"],
        schedule=parts["schedule"],
        regularization=sections["regularization"],
        train=sections["train"],
        watchers=tuple(parts["watchers"]),
        raw={key: value for key, value in tree.items() if key != "resolved"},
        path=path,
    )


def _in_file_order(problems: list[Problem]) -> list[Problem]:
    def line(problem: Problem) -> int:
        tail = problem.where.rpartition(":")[2]
        return int(tail) if tail.isdigit() else 0

    unique = list(dict.fromkeys(problems))
    return sorted(unique, key=line)


def _contradictions(checking: _Check, parts: dict[str, Any], sections: dict[str, Any]) -> None:
    """Options that are each right and wrong together."""
    add, catalogue, tree = checking.add, checking.catalogue, checking.tree
    train, data, regularization = sections.get("train"), sections.get("data"), sections.get("regularization")
    task, loss, model, optimizer = (parts.get(key) for key in ("task", "loss", "model", "optimizer"))
    if task is not None:
        promise = catalogue.facts("tasks", task.name)
        losses, metrics = getattr(promise, "LOSSES", ()), getattr(promise, "METRICS", ())
        if loss is not None and losses and loss.name not in losses:
            add(("loss",), f"the loss {loss.name} does not fit the task {task.name}.", f"it takes {', '.join(losses)}")
        if loss is None and "loss" not in tree and not checking.problems:
            add((), f"the task {task.name} needs a loss.", f"it takes {', '.join(losses)}")
        for number, metric in enumerate(parts.get("metrics") or ()):
            if metrics and metric.name not in metrics:
                add(("metrics", number), f"the metric {metric.name} does not fit the task {task.name}.", f"it takes {', '.join(metrics)}")
        least, most = getattr(promise, "TARGETS", (1, 1))
        if data is not None and not least <= len(data.targets) <= (most or 10**9):
            wanted = f"exactly {least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
            add(("data", "target"), f"the task {task.name} takes {wanted} target column(s), and data.target names {len(data.targets)}.",
                "name the column to predict as data.target")  # fmt: skip
    if data is not None:
        for target in data.targets:
            if target in data.columns and not data.columns[target].use:
                add(("data", "columns", target), f"{target} is the target and is dropped as well.", "keep one of the two")
        if len(set(data.targets)) < len(data.targets):
            add(("data", "target"), "data.target names a column twice.")
        if data.source is not None and getattr(data.source.options, "allow_code", None) is False:
            add(("data", "source"), "this source runs code.", "add --allow-code")
    if train is not None:
        raw = tree.get("train") if isinstance(tree.get("train"), dict) else {}
        if raw.get("epochs") is not None and raw.get("steps") is not None:
            add(("train", "steps"), "train.epochs and train.steps are both given.", "keep one of the two")
        if isinstance(train.batch_size, int) and train.batch_size < 1:
            add(("train", "batch_size"), f"train.batch_size must be at least 1, and is {train.batch_size}.")
        if isinstance(train.batch_size, int) and train.micro_batch and train.micro_batch > train.batch_size:
            add(("train", "micro_batch"), f"train.micro_batch ({train.micro_batch}) is larger than train.batch_size ({train.batch_size}).",
                "a batch is made of micro batches")  # fmt: skip
        if optimizer is not None and getattr(catalogue.facts("optimizers", optimizer.name), "FULL_BATCH", False) and train.batch_size != "all":
            add(("train", "batch_size"), f"{optimizer.name} takes all training rows in one update, and train.batch_size is {train.batch_size}.",
                "leave batch_size out (micro_batch limits memory), or choose sgd")  # fmt: skip
        schedule = parts.get("schedule")
        if schedule is not None and train.steps is not None and schedule.options.warmup >= max(train.steps, 2):
            add(("schedule", "warmup"), f"the warm-up ({schedule.options.warmup:g} steps) is as long as training ({train.steps} steps).")
    if regularization is not None and model is not None:
        if regularization.dropout is not None and "dropout" not in type(model.options).model_fields:
            add(("regularization", "dropout"), f"the model {model.name} takes no dropout.", "leave it out, or choose another model")
        given = tree.get("model")
        if regularization.dropout is not None and isinstance(given, dict) and given.get("dropout") is not None:
            add(("regularization", "dropout"), "dropout is given twice: in regularization and in model.", "keep one of the two")


# --- writing ----------------------------------------------------------------------------------------------------------


def plain(options: Any) -> Any:
    """Options as plain data (dicts, lists, numbers, words), parts written with their name."""
    if isinstance(options, Part):
        return options.as_dict()
    if isinstance(options, BaseModel):
        return {name: plain(getattr(options, name)) for name in type(options).model_fields}
    if isinstance(options, Mapping):
        return {str(key): plain(value) for key, value in options.items()}
    if isinstance(options, list | tuple):
        return [plain(value) for value in options]
    return options


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What differs between two plain recipes, one line a value: 'train.seed: 0 -> 1'."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in old:
                lines.append(f"{inner}: (not there) -> {_say(new[key])}")
            elif key not in new:
                lines.append(f"{inner}: {_say(old[key])} -> (not there)")
            else:
                lines += differences(old[key], new[key], inner)
        return lines
    return [] if old == new and type(old) is type(new) else [] if old == new else [f"{path}: {_say(old)} -> {_say(new)}"]


def describe_options(config: type[Options]) -> list[str]:
    """One line an option: name, type, default, range, meaning."""
    lines = []
    for name, info in config.model_fields.items():
        mark = on_shelf(config, name)
        kind = f"a part of {mark.shelf}" if mark else _type_name(info.annotation)
        limits = [_limit(each) for each in info.metadata]
        default = "required" if info.is_required() else f"default {_say(plain(info.get_default(call_default_factory=True)))}"
        detail = ", ".join(filter(None, [kind, *limits, default]))
        lines.append(f"  {name} ({detail})\n      {info.description or ''}".rstrip())
    return lines


def _limit(mark: Any) -> str:
    words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
    return ", ".join(f"{words[key]} {getattr(mark, key)}" for key in words if getattr(mark, key, None) is not None)


def _type_name(annotation: Any) -> str:
    simple = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
    if annotation in simple:
        return simple[annotation]
    members = get_args(annotation)
    if getattr(annotation, "__origin__", None) is Literal:
        return " | ".join(map(str, members))
    if getattr(annotation, "__origin__", None) is list:
        return f"list of {_type_name(members[0])}"
    if getattr(annotation, "__origin__", None) is dict:
        return f"mapping of {_type_name(members[1])}"
    return " | ".join(_type_name(member) for member in members) if members else getattr(annotation, "__name__", str(annotation))


def schema(catalogue: Catalogue) -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of recipes, made from the parts, for completion and checking in editors."""
    definitions: dict[str, Any] = {}

    def shelf_schema(shelf: str) -> dict[str, Any]:
        if shelf not in definitions:
            definitions[shelf] = {}  # stands while its parts are read, so that shelves may refer to each other
            choices: list[Any] = [{"enum": catalogue.names(shelf)}]
            for name in catalogue.names(shelf):
                config = catalogue.config(shelf, name)
                body = section_schema(config)
                body["properties"] = {"name": {"const": name}, **body["properties"]}
                body["required"] = ["name", *body.get("required", [])]
                choices.append(body)
            if shelf == "sources":
                choices.append({"type": "string"})
            definitions[shelf] = {"anyOf": choices}
        return {"$ref": f"#/$defs/{shelf}"}

    def section_schema(config: type[Options]) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        for name, info in config.model_fields.items():
            mark = on_shelf(config, name)
            if mark is not None:
                inner: Any = shelf_schema(mark.shelf)
                if name == "transforms" and config is Data:
                    inner = {"type": "object", "properties": {kind: {"type": "array", "items": inner} for kind in KINDS}}
                elif name in ("transforms", "augmentations"):
                    inner = {"type": "array", "items": inner}
                elif mark.fixed:
                    inner = {"anyOf": [{"type": ["boolean", "integer", "null"]}, section_schema(catalogue.config(mark.shelf, mark.fixed))]}
                properties[name] = {**inner, "description": info.description or ""}
            elif name == "columns" and config is Data:
                column = section_schema(ColumnOptions)
                properties[name] = {"type": "object", "additionalProperties": {"anyOf": [{"enum": [*KINDS, "drop"]}, column]}}
            else:
                plain_field = config.model_json_schema()["properties"][name] if not _holds_parts(config) else _field_schema(config, name)
                properties[name] = plain_field
        required = [name for name, info in config.model_fields.items() if info.is_required()]
        return {"type": "object", "additionalProperties": False, "properties": properties, **({"required": required} if required else {})}

    def _field_schema(config: type[Options], name: str) -> dict[str, Any]:
        from pydantic import create_model

        info = config.model_fields[name]
        return create_model("One", __config__=Options.model_config, **{name: (info.annotation, info)}).model_json_schema()["properties"][name]  # type: ignore[call-overload]

    top: dict[str, Any] = {"name": {"type": "string"}}
    for key, shelf in PARTS.items():
        one = shelf_schema(shelf)
        top[key] = {"type": "array", "items": one} if key in LISTS else one
        if key not in LISTS and key in ("optimizer", "schedule", "loss"):  # a mapping without a name changes the default part
            top[key] = {"anyOf": [one, {"type": "object", "not": {"required": ["name"]}}]}
    for key, config in SECTIONS.items():
        top[key] = section_schema(config)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "danlu recipe",
        "type": "object",
        "additionalProperties": False,
        "required": ["task", "data", "model"],
        "properties": {key: top[key] for key in KEYS} | {"resolved": {"type": "object"}},
        "$defs": definitions,
    }


def _holds_parts(config: type[Options]) -> bool:
    return any(on_shelf(config, name) is not None for name in config.model_fields) or config is Data


def with_changes(recipe: Recipe, catalogue: Catalogue, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with dotted names set to new values, checked again."""
    tree, where = apply_overrides(dict(recipe.raw), {(): recipe.path or "recipe"}, changes)
    return check(tree, where, catalogue, recipe.path)


Maker = Callable[..., Any]
__all__ = [
    "Catalogue",
    "ColumnOptions",
    "DanluError",
    "Data",
    "Options",
    "Part",
    "Recipe",
    "Regularization",
    "ScheduleOptions",
    "Train",
    "check",
    "describe_options",
    "differences",
    "plain",
    "read",
    "read_yaml",
    "schema",
    "with_changes",
    "write_yaml",
]
