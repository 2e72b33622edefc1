"""What to do, as frozen data: read (YAML 1.2 with line numbers, JSON, or a dict), check, override, write. No torch.

A recipe is checked whole before any data is read, and every problem is reported at once. The options of a part are declared in the
part's own file; this module reaches them through a `Catalogue` (danlu.shelf is one), so that it knows no part by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from danlu.errors import PartError, Problem, RecipeError, did_you_mean, edit_distance, nearest
from danlu.terms import KINDS, Kind

LARGEST_RECIPE = 100_000  # bytes; a recipe is a page, not data, and reading takes about 10 microseconds a byte
MOST_NODES = 20_000  # YAML nodes after aliases are followed: an alias bomb stops here
DEEPEST = 50  # nested levels

Where = Mapping[tuple[Any, ...], str]  # path of keys -> "file:line"


class Options(BaseModel):
    """The base of every part's Config: frozen, no unknown key, no silent conversion ("0.1" is not a number, 1 is not true)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


class ScheduleOptions(Options):
    """The base of every schedule's Config."""

    warmup: float = Field(
        default=0.0, ge=0, description="Steps of linear warm-up before the schedule; below 1 it is a share of all steps."
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

    kind: Kind | None = Field(default=None, description="What the column holds; inferred when null.")
    on_error: Literal["error", "missing"] = Field(
        default="error", description="A value that is not of the kind: stop and name the row, or count it as missing."
    )
    use: bool = Field(
        default=True, description="Whether the column is an input (false for names, keys, anything that must not be learnt from)."
    )
    transforms: Annotated[list[Part] | None, OnShelf("transforms")] = Field(
        default=None, description="The transforms of this column instead of those of its kind."
    )


class Data(Options):
    """Which rows, which columns, and how they become tensors."""

    source: Annotated[Part, OnShelf("sources")] = Field(description="Where rows come from: a path, or a source with its options.")
    target: str | list[str] | None = Field(default=None, description="The column to predict, or several.")
    columns: dict[str, ColumnOptions] = Field(default={}, description="What to know of single columns, by name.")
    split: Annotated[Part | None, OnShelf("splits")] = Field(
        default=None, description="How rows are divided into train, validation and test; rows the source itself assigns stay there."
    )
    transforms: Annotated[dict[Kind, list[Part]], OnShelf("transforms")] = Field(
        default={}, description="Transforms by kind of column; a kind not named keeps its defaults."
    )
    augmentations: Annotated[list[Part], OnShelf("augmentations")] = Field(
        default=[], description="Random changes of training batches."
    )
    duplicates: Literal["keep", "drop"] = Field(default="keep", description="What to do with rows that repeat another one exactly.")
    missing_rows: Literal["keep", "drop"] = Field(
        default="keep", description="drop leaves out rows with a missing input value; keep imputes."
    )
    missing_target: Literal["error", "drop"] = Field(default="error", description="What to do with rows whose target is missing.")
    checks: Literal["warn", "error", "off"] = Field(
        default="warn", description="What a suspicion (leak, duplicates across splits) does."
    )
    cache: bool = Field(default=True, description="Keep the table memory-mapped on disk for the next start.")

    @property
    def targets(self) -> tuple[str, ...]:
        """The target columns, in the order given."""
        return () if self.target is None else (self.target,) if isinstance(self.target, str) else tuple(self.target)


class Regularization(Options):
    """What keeps a model from learning its training rows by heart."""

    l1: float = Field(default=0.0, ge=0, description="Weight of the sum of absolute weights, added to the loss (matrices only).")
    l2: float = Field(
        default=0.0, ge=0, description="Weight of half the sum of squared weights, added to the loss (matrices only)."
    )
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Share of activations dropped; null leaves the model's own option."
    )
    early_stopping: Annotated[Part | None, OnShelf("watchers", fixed="early_stopping")] = Field(
        default=None, description="Stop when the validation score no longer improves; true takes the defaults."
    )
    restore_best: bool = Field(
        default=True, description="Release the weights of the best evaluation, not the last; needs a validation split."
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay a step of the exponential moving average of weights that is evaluated and released.",
    )


class Train(Options):
    """How long, how large, how exactly."""

    epochs: float | None = Field(default=None, gt=0, le=1_000_000, description="Passes over the training rows; this or steps.")
    steps: int | None = Field(default=None, gt=0, description="Optimizer updates; this or epochs.")
    least_steps: int = Field(
        default=0,
        ge=0,
        description="Updates made at least, however few an epoch has; a default where neither epochs nor steps are given.",
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        default=64, description="Examples of one update; all: every training row."
    )
    micro_batch: int | None = Field(
        default=None,
        gt=0,
        description="Examples of one forward pass; gradients of a batch are accumulated exactly over several. Null: the batch.",
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="Largest norm of the gradient; longer ones are shortened to it."
    )
    clip_value: float | None = Field(default=None, gt=0, description="Largest size of each entry of the gradient.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Number format of the forward pass; weights stay float32. auto: by rule over hardware and work per step.",
    )
    compile: bool | Literal["auto"] = Field(default="auto", description="Whether torch.compile is used; auto: by rule.")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda, cuda:N or mps.")
    threads: int | None = Field(
        default=None,
        gt=0,
        le=4096,
        description="CPU threads; null: by rule, one or one a core. Recorded, since it changes the last bits.",
    )
    report_every: int | None = Field(
        default=None, gt=0, description="Steps between reports of the training loss; null: about 100 a run."
    )
    evaluate_every: int | None = Field(
        default=None, gt=0, description="Steps between evaluations on the validation split; null: once an epoch."
    )
    save_every: int | None = Field(
        default=None, gt=0, description="Steps between checkpoints; null: with every evaluation, at most 20 a run."
    )
    keep: int = Field(default=2, ge=1, le=1000, description="Newest checkpoints kept.")
    on_nan: Literal["stop", "skip", "roll_back"] = Field(
        default="stop",
        description="A NaN or infinity in loss or gradient: stop before the update, skip the update, or go back to the last "
        "checkpoint and skip the batch.",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="All randomness is a function of it and the step.")
    folds: int | None = Field(
        default=None, ge=2, le=100, description="k-fold cross-validation over the rows outside the test split."
    )


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
LISTS = ("metrics", "watchers")
_SHELVES_OF_DATA = ("sources", "splits", "transforms", "augmentations")
# What every recipe has unless a task, a model, an optimizer or the user says otherwise, in that order.
DEFAULTS: dict[str, Any] = {
    "optimizer": "adamw",
    "schedule": "constant",
    "metrics": [],
    "train.epochs": 20,
    "train.least_steps": 1000,
    "data.split": "random",
    "watchers": ["console", "jsonl", "tensorboard", "sanity", "divergence"],
}


# --- reading ----------------------------------------------------------------------------------------------------------


class _Yaml12(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's scalars: 1e-3 is a number, `no` is a word, 12:30 is no number."""


_TAG = "tag:yaml.org,2002:"
_SCALARS: list[tuple[str, str, str]] = [
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
]
_FORMS = {kind: re.compile(pattern) for kind, pattern, _ in _SCALARS}
_OLD_READER = yaml.resolver.Resolver()  # YAML 1.1, as most other tools read it


class _Writer(yaml.SafeDumper):
    """Quotes what YAML 1.2, or 1.1, would not read back as the same string."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        tag = super().resolve(kind, value, implicit)
        return _OLD_READER.resolve(kind, value, implicit) if tag == _TAG + "str" and kind is yaml.ScalarNode else tag

    def text(self, value: str) -> yaml.Node:
        # PyYAML folds these line breaks away unless they are written as escapes
        return self.represent_scalar(_TAG + "str", value, style='"' if re.search("[\x85\u2028\u2029\ufeff]", value) else None)


for _class in (_Yaml12, _Writer):
    _class.yaml_implicit_resolvers = {}
    for _kind, _pattern, _first in _SCALARS:
        _class.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), ["" if letter == "\0" else letter for letter in _first])
_Writer.add_representer(str, _Writer.text)


def write_yaml(value: Any) -> str:
    """Plain data as YAML 1.2 text, keys in their order."""
    return yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=120)


def read_yaml(text: str, name: str) -> tuple[Any, dict[tuple[Any, ...], str]]:
    """(value, where) of a YAML 1.2 (or JSON) text; `where` maps each path of keys to "name:line".

    Raises RecipeError for what is not YAML, duplicate keys, tags, alias bombs and documents too deep.
    """
    tree = _Tree(name)
    node = _compose(_without_tabs(text), name)
    value = None if node is None else tree.value(node, ())
    if tree.problems:
        raise RecipeError(tree.problems)
    return value, tree.where


def _without_tabs(text: str) -> str:
    """JSON may be indented with tabs, YAML may not: every tab of a valid JSON text stands between its words."""
    if "\t" in text and text.lstrip()[:1] in ("{", "["):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return text
        return text.replace("\t", " ")
    return text


def _compose(text: str, name: str) -> yaml.Node | None:
    """The YAML nodes of a text, or its first mistake with its line."""
    try:
        loader = _Yaml12(text)
        try:
            return loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark else 0
        said = ", ".join(filter(None, [error.context, error.problem])) or str(error)
        raise RecipeError([Problem(f"{name}:{line + 1}", f"this is not YAML: {said.strip()}.", _yaml_hint(text, line))]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        sign = error.character if isinstance(error.character, int) else ord(str(error.character)[:1] or "\0")
        raise RecipeError(
            [Problem(f"{name}:{line}", f"the character U+{sign:04X} has no place in a recipe.", "delete it")]
        ) from None
    except yaml.YAMLError as error:
        raise RecipeError([Problem(f"{name}:1", f"this is not YAML: {str(error).splitlines()[0]}.")]) from None
    except RecursionError:
        raise RecipeError([Problem(f"{name}:1", f"the recipe is nested deeper than {DEEPEST} levels.")]) from None


def _yaml_hint(text: str, line: int) -> str:
    lines = text.splitlines()
    near = lines[max(line - 1, 0) : line + 1]
    if any("\t" in each[: len(each) - len(each.lstrip())] for each in near):
        return "YAML is indented with spaces, not tabs"
    if lines[line : line + 1] and re.search(r"(^|[:\s-])[@`%*&!]", lines[line]):
        return "put text that begins with a special character in quotes"
    return "look at the colon, the indentation and the brackets of this line and the one before"


class _Tree:
    """Turns YAML nodes into plain data; gathers where each value stands and every problem."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.where: dict[tuple[Any, ...], str] = {(): f"{name}:1"}
        self.problems: list[Problem] = []
        self.count = 0

    def value(self, node: yaml.Node, path: tuple[Any, ...]) -> Any:
        """The plain data of a node."""
        self.count += 1
        line = self.line(node)
        if len(path) > DEEPEST:
            raise RecipeError([Problem(line, f"the recipe is nested deeper than {DEEPEST} levels.")])
        if self.count > MOST_NODES:
            raise RecipeError([Problem(line, f"the recipe holds more than {MOST_NODES:,} values.")])
        self.where.setdefault(path, line)
        if isinstance(node, yaml.MappingNode):
            self.refuse_tag(node, "map")
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self.refuse_tag(node, "seq")
            return [self.value(child, (*path, number)) for number, child in enumerate(node.value)]
        return self.scalar(node)

    def line(self, node: yaml.Node) -> str:
        return f"{self.name}:{node.start_mark.line + 1}"

    def mapping(self, node: yaml.MappingNode, path: tuple[Any, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, child in node.value:
            line = self.line(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(line, "a key must be a word.", "put text with brackets in quotes"))
                continue
            self.scalar(key_node)  # for its tag; the key itself is always the text as it is written
            key = self.text(key_node)
            dotted = ".".join(map(str, (*path, key)))
            if key in result:
                first = self.where[(*path, key)].rpartition(":")[2]
                self.problems.append(Problem(line, f"{dotted} is given twice (first on line {first}).", "keep one of the two"))
                self.value(child, (*path, key))  # its own problems are told as well
                continue
            if key == "<<" and key_node.style is None:
                self.problems.append(Problem(line, "merge keys (<<) are no part of YAML 1.2.", "write the keys out"))
            self.where[(*path, key)] = line
            result[key] = self.value(child, (*path, key))
        return result

    def refuse_tag(self, node: yaml.Node, expected: str) -> None:
        if node.tag != _TAG + expected:
            self.problems.append(
                Problem(self.line(node), f"the tag {_short_tag(node.tag)} is not allowed.", "a recipe is plain data")
            )

    def text(self, node: yaml.Node) -> str:
        """The text of a scalar; JSON's pairs of surrogates become the one character they mean."""
        text = str(node.value)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            try:
                return text.encode("utf-16", "surrogatepass").decode("utf-16")
            except UnicodeDecodeError:
                self.problems.append(Problem(self.line(node), "this text holds half a character (a lone surrogate)."))
                return ""
        return text

    def scalar(self, node: yaml.Node) -> Any:
        """null, true, a number or a text."""
        text, kind = self.text(node), node.tag.removeprefix(_TAG)
        if kind == "str":
            return text
        if kind not in _FORMS:
            self.refuse_tag(node, "str")
            return None
        if not _FORMS[kind].match(text):  # an explicit tag on something else: !!int twelve
            self.problems.append(Problem(self.line(node), f"{_say(text)} is no {kind}, as its tag says.", "leave the tag out"))
            return None
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if len(text) > 400:
            self.problems.append(Problem(self.line(node), f"a number of {len(text):,} digits is too long."))
            return None
        if kind == "int":
            return int(text, 0) if text.lower().startswith(("0x", "0o")) else int(text)
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _short_tag(tag: str) -> str:
    return "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag


def read(
    source: str | Path | Mapping[str, Any],
    catalogue: Catalogue,
    overrides: Sequence[str] | Mapping[str, Any] = (),
) -> Recipe:
    """The checked recipe of a file or dict, with `overrides` ("optimizer.learning_rate=0.1", or a dict of dotted names) applied.

    Raises RecipeError with every problem at once; reads no data.
    """
    if isinstance(source, Mapping):
        tree, where, path = plain_data(source, "recipe"), {(): "recipe"}, ""
    else:
        path = str(source)
        tree, where = read_yaml(_read_text(Path(source)), Path(source).name)
    if not isinstance(tree, dict):
        raise RecipeError([Problem(where.get((), path), "a recipe is a mapping with the keys task, data and model.", _NEW)])
    tree, where = apply_overrides(tree, where, overrides, catalogue)
    return check(tree, where, catalogue, path)


_NEW = "danlu new DATA --target COLUMN writes one"


def plain_data(value: Any, name: str) -> Any:
    """A copy of `value` made of dicts with text keys, lists, text, numbers, true, false and null; numpy's numbers become Python's.

    Raises RecipeError, which calls the value `name`, for anything else.
    """
    problems: list[Problem] = []

    def copy(value: Any, path: tuple[str, ...]) -> Any:
        if len(path) > DEEPEST:
            raise RecipeError([Problem(name, f"the recipe is nested deeper than {DEEPEST} levels, or holds itself.")])
        if value is None or type(value) in (str, int, float, bool):
            return value
        if isinstance(value, Mapping):
            result: dict[str, Any] = {}
            for key, each in value.items():
                if str(key) in result:
                    problems.append(Problem(name, f"{'.'.join((*path, str(key)))} is given twice.", "keep one of the two"))
                result[str(key)] = copy(each, (*path, str(key)))
            return result
        if isinstance(value, list | tuple):
            return [copy(each, (*path, str(number))) for number, each in enumerate(value)]
        if isinstance(value, Path):
            return str(value)
        if hasattr(value, "tolist") and getattr(value, "ndim", None) in (0, 1):  # numpy numbers and vectors
            return copy(value.tolist(), path)
        for base in (str, bool, int, float):
            if isinstance(value, base):
                return base(value)
        dotted = ".".join(path) or "the recipe"
        problems.append(
            Problem(name, f"{dotted} is a {type(value).__name__}; a recipe is plain data (text, numbers, lists, mappings).")
        )
        return None

    copied = copy(value, ())
    if problems:
        raise RecipeError(problems)
    return copied


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
    tree: dict[str, Any], where: Where, overrides: Sequence[str] | Mapping[str, Any], catalogue: Catalogue
) -> tuple[dict[str, Any], dict[tuple[Any, ...], str]]:
    """(tree, where) with each dotted name set to its value; neither argument is changed."""
    tree = plain_data(tree, "recipe")
    places = dict(where)
    problems: list[Problem] = []
    for name, value, said in _pairs(overrides, problems):
        path = _set(tree, name.split("."), value, catalogue)
        if path is None:
            problems.append(Problem(said, f"{name} cannot be set: {name.rpartition('.')[0]} holds no such names."))
            continue
        for inner in [inner for inner in places if inner[: len(path)] == path]:
            del places[inner]
        places[path] = said
    if problems:
        raise RecipeError(problems)
    return tree, places


def _pairs(overrides: Sequence[str] | Mapping[str, Any], problems: list[Problem]) -> Iterator[tuple[str, Any, str]]:
    """(dotted name, value, what a message calls it) of each override."""
    if isinstance(overrides, Mapping):
        for name, value in overrides.items():
            yield name, plain_data(value, name), name
        return
    for text in [overrides] if isinstance(overrides, str) else overrides:
        name, equals, value = text.partition("=")
        if not equals or not all(key.strip() for key in name.split(".")):
            problems.append(Problem(f"override {text!r}", "an override is name=value.", "example: optimizer.learning_rate=0.01"))
            continue
        yield name.strip(), _override_value(value.strip(), f"override {text}"), f"override {text}"


def _override_value(text: str, said: str) -> Any:
    """The value of an override: YAML, and what is not YAML and has no brackets or quotes is the text itself (#5, *.csv, @home)."""
    if text.startswith("#"):
        return text
    try:
        return read_yaml(text, said)[0]
    except RecipeError:
        if text[:1] in ("[", "{", "'", '"'):
            raise
        return text


def _set(tree: dict[str, Any], keys: list[str], value: Any, catalogue: Catalogue) -> tuple[Any, ...] | None:
    """Put `value` under the keys (a number means the entry of a list), and tell its path; None where there is no such place."""
    inside: Any = tree
    path: tuple[Any, ...] = ()
    for key in keys:
        if path and not isinstance(inside[path[-1]], dict | list):
            inside[path[-1]] = _opened(path, inside[path[-1]], catalogue)
        inside = inside[path[-1]] if path else inside
        if isinstance(inside, dict):
            path = (*path, key)
            inside.setdefault(key, None)
        elif isinstance(inside, list) and key.isdigit() and int(key) < len(inside):
            path = (*path, int(key))
        else:
            return None
    inside[path[-1]] = value
    return path


def _opened(path: tuple[Any, ...], value: Any, catalogue: Catalogue) -> dict[str, Any] | None:
    """The mapping that a short form means (`optimizer: adam`, `age: number`, `early_stopping: 5`); None where there is none."""
    if value is None:
        return {}
    if path[:2] == ("data", "columns") and len(path) == 3:
        opened = _column(value)
        return opened if isinstance(opened, dict) else None
    if path == ("regularization", "early_stopping"):
        return _early_stopping(value)
    if path == ("data", "source") and isinstance(value, str):
        return {"name": value} if value in catalogue.names("sources") else {"path": value}
    return {"name": value} if isinstance(value, str) and path[0] not in ("train", "regularization", "name") else None


def _column(value: Any) -> Any:
    """A column may be written short: `age: number`, `id: drop`."""
    if isinstance(value, str):
        return {"use": False} if value in ("drop", "ignore") else {"kind": value}
    return {"use": False} if value is False else value


def _early_stopping(value: Any) -> Any:
    """Early stopping may be written short: true, or its patience."""
    return {} if value is True or value is False else {"patience": value} if type(value) is int else value


# --- checking ---------------------------------------------------------------------------------------------------------


class _Check:
    """One check of one tree: gathers problems, resolves parts, fills in defaults.

    What is wrong is noted and left out, and the rest is checked on: one mistake hides no other.
    """

    def __init__(self, tree: dict[str, Any], where: Where, catalogue: Catalogue) -> None:
        self.tree = tree
        self.where = where
        self.catalogue = catalogue
        self.problems: list[Problem] = []
        self.wrong: set[tuple[Any, ...]] = set()  # the options that were refused: nothing is concluded from them
        self.filled: dict[str, Any] = dict(DEFAULTS)  # what is recommended where the user says nothing

    def at(self, path: tuple[Any, ...]) -> str:
        while path and path not in self.where:
            path = path[:-1]
        return self.where.get(path, "recipe")

    def add(self, path: tuple[Any, ...], message: str, hint: str = "") -> None:
        self.problems.append(Problem(self.at(path), message, hint))

    # parts

    def part(self, shelf: str, value: Any, path: tuple[Any, ...], default: Any = None) -> Part | None:
        """The Part that `value` means, without the options that are wrong; None where it names no part. Problems are noted."""
        dotted = ".".join(map(str, path))
        given = self.named(shelf, value, path, default)
        if given is None:
            return None
        name = given["name"]
        if not isinstance(name, str):
            self.add((*path, "name"), f"{dotted}.name must be a word, and is {_say(name)}.", self.choices(shelf))
            return None
        if name not in self.catalogue.names(shelf):
            self.no_part(shelf, name, path)
            return None
        try:
            config = self.catalogue.config(shelf, name)
        except PartError as error:  # a part from outside that cannot be imported
            self.add((*path, "name"), f"{dotted}: {error.problem.message}", error.problem.hint)
            return None
        return Part(name, self.options(config, {key: each for key, each in given.items() if key != "name"}, path, name))

    def no_part(self, shelf: str, name: str, path: tuple[Any, ...]) -> None:
        known = self.catalogue.names(shelf)
        guess = did_you_mean(name, known)
        elsewhere = [
            f"{other}/{name}"
            for other in dict.fromkeys([*PARTS.values(), *_SHELVES_OF_DATA])
            if name in self.catalogue.names(other)
        ]
        hint = (
            guess if guess and not elsewhere else f"{elsewhere[0]} stands on another shelf" if elsewhere else f"danlu list {shelf}"
        )
        dotted = ".".join(map(str, path))
        self.add((*path, "name"), f"{dotted}: there is no {name!r} among {shelf}. It has {', '.join(known)}.", hint)

    def choices(self, shelf: str) -> str:
        return f"{shelf}: {', '.join(self.catalogue.names(shelf))}"

    def named(self, shelf: str, value: Any, path: tuple[Any, ...], default: Any) -> dict[str, Any] | None:
        """The value as a mapping with a name, or None after its problem was noted."""
        dotted = ".".join(map(str, path))
        if isinstance(value, str):
            if shelf == "sources" and value not in self.catalogue.names("sources"):
                return self.source({"path": value}, path)
            return {"name": value}
        if not isinstance(value, dict):
            self.add(
                path, f"{dotted} must be the name of a part or a mapping with a name, and is {_say(value)}.", self.choices(shelf)
            )
            return None
        if "name" in value:
            return value
        misspelt = [key for key, each in value.items() if each in self.catalogue.names(shelf) and nearest(key, ["name"], 1)]
        if misspelt:
            self.add((*path, misspelt[0]), f"{dotted}.{misspelt[0]} is no option.", "did you mean name?")
            return {**{key: each for key, each in value.items() if key != misspelt[0]}, "name": value[misspelt[0]]}
        if shelf == "sources":
            return self.source(value, path)
        if default is not None:
            return {**({"name": default} if isinstance(default, str) else default), **value}
        slip = [key for key in value if nearest(key, ["name"], 1)]
        hint = "did you mean name?" if slip else f"say which with name: {', '.join(self.catalogue.names(shelf))}"
        self.add((*path, slip[0]) if slip else path, f"{dotted} names no part.", hint)
        return None

    def source(self, value: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any] | None:
        """The source that a path means."""
        given = value.get("path")
        given = given[0] if isinstance(given, list) and given else given
        found = self.catalogue.source_for(given) if isinstance(given, str) else None
        if found is not None:
            return {"name": found, **value}
        names = self.catalogue.names("sources")
        if isinstance(given, str):
            guess = "" if re.search(r"[/\\.]", given) else did_you_mean(given, names)
            lost = "" if _exists(given) else " (there is no such file or folder)"
            self.add(
                (*path, "path"), f"no source is known for {given!r}{lost}.", guess or f"say which with name: {', '.join(names)}"
            )
            return None
        slip = [key for key in value if nearest(key, ["name", "path"], 1)]
        hint = did_you_mean(slip[0], ["name", "path"]) if slip else f"say which with name: {', '.join(names)}"
        self.add((*path, slip[0]) if slip else path, f"{'.'.join(map(str, path))} names no source.", hint)
        return None

    def many(self, shelf: str, value: Any, path: tuple[Any, ...]) -> list[Part | None]:
        """The parts of a list, None for those that are wrong; one part may stand without brackets."""
        value = [value] if isinstance(value, str | dict) else value
        if not isinstance(value, list):
            self.add(path, f"{'.'.join(map(str, path))} must be a list of parts, and is {_say(value)}.", self.choices(shelf))
            return []
        return [self.part(shelf, each, (*path, number)) for number, each in enumerate(value)]

    # options

    def options(self, config: type[Options], values: Any, path: tuple[Any, ...], owner: str) -> Any:
        """An instance of `config`; where problems were noted, one with defaults (None where there is none) for what is wrong."""
        if not isinstance(values, dict):
            dotted = ".".join(map(str, path))
            self.add(
                path, f"{dotted} must be a mapping of options, and is {_say(values)}.", f"options: {', '.join(config.model_fields)}"
            )
            values = {}
        known = list(config.model_fields)
        sound: dict[str, Any] = {}
        wrong: set[str] = set()
        for key, value in values.items():
            if key not in config.model_fields:
                self.unknown(key, known, (*path, key), owner)
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
            made = config.model_validate(sound)
        except ValidationError as error:
            refused = error.errors(include_url=False)
            self.refused(config, [each for each in refused if not each["loc"] or each["loc"][0] not in wrong], values, path, owner)
            wrong |= {str(each["loc"][0]) for each in refused if each["loc"]}
            self.wrong |= {(*path, key) for key in wrong}
            required = {name: None for name, info in config.model_fields.items() if info.is_required()}
            made = config.model_construct(**required | {key: value for key, value in sound.items() if key not in wrong})
        return made

    def resolved(self, config: type[Options], key: str, value: Any, path: tuple[Any, ...]) -> Any:
        """The value with its parts made; None where it names none."""
        if config is Data and key == "columns" and isinstance(value, dict):
            return {
                name: self.options(ColumnOptions, _column(each), (*path, name), f"column {name}") for name, each in value.items()
            }
        mark = on_shelf(config, key)
        if mark is None or value is None:
            return value
        if mark.fixed:
            return self.fixed(mark, value, path)
        if key == "transforms" and config is Data:
            return self.by_kind(mark.shelf, value, path)
        if key in ("transforms", "augmentations"):
            return self.many(mark.shelf, value, path)
        return self.part(mark.shelf, value, path, self.filled.get(".".join(map(str, path))))

    def fixed(self, mark: OnShelf, value: Any, path: tuple[Any, ...]) -> Part | None:
        """The one part that may stand here: true for its defaults, a number for its patience, or its options."""
        if value is False:
            return None
        value = _early_stopping(value)
        if not isinstance(value, dict):
            self.add(path, f"{'.'.join(map(str, path))} must be true, false, a whole number or a mapping, and is {_say(value)}.")
            return None
        if value.get("name", mark.fixed) != mark.fixed:
            self.add(
                (*path, "name"),
                f"{'.'.join(map(str, path))} can only be {mark.fixed}, and is {_say(value['name'])}.",
                "leave name out",
            )
            return None
        return self.part(mark.shelf, {**value, "name": mark.fixed}, path)

    def by_kind(self, shelf: str, value: Any, path: tuple[Any, ...]) -> Any:
        """Lists of transforms by kind of column."""
        if not isinstance(value, dict):
            dotted = ".".join(map(str, path))
            self.add(path, f"{dotted} must be a mapping by kind of column, and is {_say(value)}.", f"kinds: {', '.join(KINDS)}")
            return {}
        for kind in value:
            if kind not in KINDS:
                self.unknown(kind, list(KINDS), (*path, kind), "data.transforms", "kinds")
        return {kind: self.many(shelf, each, (*path, kind)) for kind, each in value.items() if kind in KINDS}

    # what is wrong

    def unknown(self, key: str, known: Sequence[str], path: tuple[Any, ...], owner: str, what: str = "options") -> None:
        """Note a name that is none: with the same word from here, or from elsewhere in the recipe, or with the nearest."""
        message = (
            f"{'.'.join(map(str, path))} is no {what.removesuffix('s')} of {owner}. Its {what} are {', '.join(known) or 'none'}."
        )
        places = list(dict.fromkeys(self.known_places()))
        slips = nearest(key, [name for name in known if is_slip(key, name)], 1)
        same = [place for place in places if place.rpartition(".")[2] == key]
        near = slips or same or nearest(key, known, 1)
        if not near:
            word = nearest(key, [place.rpartition(".")[2] for place in places], 1)
            near = [place for place in places if word and place.rpartition(".")[2] == word[0]]
        self.add(path, message, f"did you mean {near[0]}?" if near else "leave it out, or see danlu show")

    def known_places(self) -> Iterator[str]:
        """Every dotted name that this recipe could hold."""
        yield from KEYS
        for section, config in SECTIONS.items():
            yield from (f"{section}.{name}" for name in config.model_fields)
        data = _mapping(self.tree.get("data"))
        places = [(key, shelf, self.tree.get(key) or DEFAULTS.get(key)) for key, shelf in PARTS.items()]
        places += [("data.source", "sources", data.get("source")), ("data.split", "splits", data.get("split"))]
        for key, shelf, given in places:
            name = given if isinstance(given, str) else given.get("name") if isinstance(given, dict) else None
            if isinstance(name, str) and name in self.catalogue.names(shelf):
                yield from (f"{key}.{option}" for option in self.catalogue.config(shelf, name).model_fields)
        yield from (f"data.columns.NAME.{name}" for name in ColumnOptions.model_fields)

    def refused(self, config: type[Options], errors: Sequence[Any], values: Any, path: tuple[Any, ...], owner: str) -> None:
        """Note what pydantic refused; the members of a union speak as one."""
        grouped: dict[tuple[Any, ...], list[Any]] = {}
        for error in errors:
            grouped.setdefault(_steps(error["loc"]), []).append(error)
        for steps, each in grouped.items():
            if any(len(other) > len(steps) and other[: len(steps)] == steps for other in grouped):
                continue  # another member of the union took it apart further, and tells more exactly what is wrong
            self.refuse(config, steps, each, values, path, owner)

    def refuse(
        self, config: type[Options], steps: tuple[Any, ...], errors: Sequence[Any], values: Any, path: tuple[Any, ...], owner: str
    ) -> None:
        """Note one value that pydantic refused."""
        place = (*path, *steps)
        dotted = ".".join(map(str, place))
        kind = errors[0]["type"]
        if not steps:
            sentence = _rule(errors[0])
            named = [word for word in re.findall(r"\w+", sentence) if word in values]
            self.add((*path, *named[:1]), f"{dotted}: {sentence}.")
        elif kind == "missing":
            self.add(place, f"{dotted} is missing.", _field_hint(config, steps))
        elif kind == "extra_forbidden":
            inner = _owner(config, steps)
            self.unknown(str(steps[-1]), list(inner.model_fields), place, ".".join(map(str, place[:-1])) or owner)
        else:
            value = errors[0].get("input")
            rules = [_rule(error) for error in errors]
            rule = " or ".join([rules[0], *(each.removeprefix("must be ").removeprefix("one of ") for each in rules[1:])])
            said = f"{dotted} {rule}, and is {_say(value)}." if rule.startswith(("must ", "is ", "has ")) else f"{dotted}: {rule}."
            self.add(place, said, _value_hint(value, errors) or _field_hint(config, steps))


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _mapping(value: Any) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def is_slip(written: str, meant: str) -> bool:
    """Whether `written` is `meant` but for case, hyphens, or one letter added, left out, changed or swapped with its neighbour."""
    written, meant = (each.lower().replace("-", "_").replace(" ", "_") for each in (written, meant))
    return written == meant or (len(meant) > 2 and edit_distance(written, meant) == 1)


def on_shelf(config: type[BaseModel], name: str) -> OnShelf | None:
    """The shelf whose parts a field holds, or None."""
    return next((mark for mark in config.model_fields[name].metadata if isinstance(mark, OnShelf)), None)


_UNION_MEMBERS = {"int", "float", "str", "bool", "none", "[key]"}
_UNION_PREFIXES = (
    "literal[",
    "list[",
    "dict[",
    "constrained",
    "function-",
    "nullable",
    "is-instance",
    "lax-or-strict",
    "json-or-python",
)


def _steps(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """Where in the recipe a pydantic location is: the names of union members and validators are left out."""
    return tuple(
        each
        for number, each in enumerate(loc)
        if number == 0 or not (isinstance(each, str) and (each in _UNION_MEMBERS or each.startswith(_UNION_PREFIXES)))
    )


def _rule(error: Any) -> str:
    """The broken rule in plain words."""
    context, kind = error.get("ctx", {}), error["type"]
    simple = {
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "finite_number": "must be a finite number",
        "string_type": "must be text",
        "bool_type": "must be true or false",
        "list_type": "must be a list",
        "dict_type": "must be a mapping",
        "model_type": "must be a mapping of options",
        "none_required": "must be null",
    }
    bounds = {
        "greater_than": ("gt", "must be greater than"),
        "greater_than_equal": ("ge", "must be at least"),
        "less_than": ("lt", "must be less than"),
        "less_than_equal": ("le", "must be at most"),
        "too_short": ("min_length", "must have at least this many entries:"),
        "too_long": ("max_length", "must have at most this many entries:"),
        "string_too_short": ("min_length", "must have at least this many letters:"),
        "string_too_long": ("max_length", "must have at most this many letters:"),
        "string_pattern_mismatch": ("pattern", "must match"),
        "multiple_of": ("multiple_of", "must be a multiple of"),
    }
    if kind in simple:
        return simple[kind]
    if kind == "literal_error":
        return (
            f"must be one of {', '.join(_words(context['expected']))}"
            if len(_words(context["expected"])) > 1
            else f"must be {_words(context['expected'])[0]}"
        )
    if kind in bounds:
        key, words = bounds[kind]
        return f"{words} {context[key]:g}" if isinstance(context[key], float) else f"{words} {context[key]}"
    message = str(error["msg"]).removeprefix("Value error, ").rstrip(".")
    return message if kind == "value_error" else message[:1].lower() + message[1:]


def _words(expected: str) -> list[str]:
    """The choices in pydantic's "'keep' or 'drop'"."""
    return re.findall(r"'([^']*)'", expected) or [expected]


def _value_hint(value: Any, errors: Sequence[Any]) -> str:
    """What was probably meant by a refused value, or ''."""
    kinds = {error["type"] for error in errors}
    choices = [word for error in errors if error["type"] == "literal_error" for word in _words(error["ctx"]["expected"])]
    choices += ["true", "false"] if "bool_type" in kinds else []
    for error in errors:
        if error["type"] == "string_pattern_mismatch":  # the words of a pattern such as ^(auto|cpu|mps)$
            choices += re.findall(r"(?<![A-Za-z\\])[a-z]{2,}(?![A-Za-z*+?\[])", error["ctx"]["pattern"])
    if isinstance(value, str):
        if "bool_type" in kinds and value.lower() in ("yes", "on", "y", "no", "off", "n"):
            return f"write {'true' if value.lower() in ('yes', 'on', 'y') else 'false'}"
        if kinds & {"int_type", "float_type"} and re.fullmatch(r"[-+]?[\d_,]*\.?\d+([eE][-+]?\d+)?", value):
            return f"write {value.replace('_', '').replace(',', '')} without quotes"
        return did_you_mean(value, choices)
    if "int_type" in kinds and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    return ""


def _owner(config: type[BaseModel], steps: tuple[Any, ...]) -> type[BaseModel]:
    """The options class that holds the last of `steps`."""
    for step in steps[:-1]:
        info = config.model_fields.get(str(step))
        config = next(_classes(info.annotation), config) if info is not None else config
    return config


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    """The options classes inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for member in get_args(annotation):
        yield from _classes(member)


def _field_hint(config: type[BaseModel], steps: tuple[Any, ...]) -> str:
    """What the option means, from its description."""
    info = _owner(config, steps).model_fields.get(str(steps[-1])) or config.model_fields.get(str(steps[0]))
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
    tree = {key: value for key, value in tree.items() if value is not None and key != "resolved"}  # what a lock file adds
    checking = _Check(tree, where, catalogue)
    for key in tree:
        if key not in KEYS:
            checking.unknown(key, KEYS, (key,), "a recipe", "keys")
    for key in ("task", "data", "model"):
        if key not in tree and not any(is_slip(other, key) for other in tree if other not in KEYS):
            checking.add((), f"{key} is missing: a recipe needs task, data and model.", _NEW)
    name = _name(checking, path)
    parts = _parts(checking)
    sections = {
        key: checking.options(config, _with_defaults(tree.get(key, {}), key, checking.filled), (key,), key)
        for key, config in SECTIONS.items()
        if key in tree or key != "data"
    }
    _contradictions(checking, parts, sections)
    if checking.problems:
        raise RecipeError(_in_file_order(checking.problems))
    dropout = sections["regularization"].dropout
    if dropout is not None:
        parts["model"] = Part(parts["model"].name, parts["model"].options.model_copy(update={"dropout": dropout}))
    lists = {key: tuple(parts.pop(key)) for key in LISTS}
    return Recipe(name=name, **parts, **lists, **sections, raw=tree, path=path)


def _name(checking: _Check, path: str) -> str:
    """The recipe's name: as given, or the file's."""
    name = checking.tree.get("name")
    if name is not None:
        if not isinstance(name, str) or not re.fullmatch(_NAME, name) or not name.strip(". "):
            hint = "put it in quotes" if not isinstance(name, str) else "it names the run's folder"
            checking.add(("name",), f"name must be up to 100 letters, digits, spaces, '-', '_' or '.', and is {_say(name)}.", hint)
        return str(name)
    stem = re.sub(r"(\.lock)?\.(ya?ml|json)$", "", Path(path).name) if path else ""
    return re.sub(r"[^\w.\- ]", "_", stem)[:100] if stem.strip(". ") else "recipe"


_NAME = r"[\w.\- ]{1,100}"


def _parts(checking: _Check) -> dict[str, Any]:
    """The parts by key; what task, model and optimizer recommend, in that order, is added to the defaults on the way."""
    tree, catalogue, filled = checking.tree, checking.catalogue, checking.filled
    parts: dict[str, Any] = {}
    for key in ("task", "model", "optimizer", "loss", "schedule"):
        value, default = tree.get(key, filled.get(key)), filled.get(key)
        part = None if value is None else checking.part(PARTS[key], value, (key,), default)
        parts[key] = part
        if part is not None and key in ("task", "model", "optimizer"):
            _recommend(filled, catalogue.defaults(PARTS[key], part.name))
    if parts["optimizer"] is not None and getattr(catalogue.facts("optimizers", parts["optimizer"].name), "FULL_BATCH", False):
        filled["train.batch_size"] = "all"
    for key in LISTS:
        parts[key] = checking.many(PARTS[key], tree.get(key, filled[key]), (key,))
    return parts


_EITHER = {"train.epochs": "train.steps", "train.steps": "train.epochs"}


def _recommend(filled: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add a part's recommendations: the later one wins, and epochs replace steps."""
    for key, value in more.items():
        filled.pop(_EITHER.get(key, ""), None)
        filled[key] = value


def _with_defaults(given: Any, section: str, filled: Mapping[str, Any]) -> Any:
    """A section with what is recommended for it, where the user says nothing."""
    if not isinstance(given, dict):
        return given
    result = dict(given)
    for dotted, value in filled.items():
        head, _, option = dotted.partition(".")
        if head != section:
            continue
        other = _EITHER.get(dotted, "").partition(".")[2]
        unsaid = given.get(option) is None if option == "split" or other else option not in given
        if option == "least_steps" and (given.get("epochs") is not None or given.get("steps") is not None):
            continue  # whoever says how long means it
        if unsaid and given.get(other) is None:
            result[option] = value
    return result


def _in_file_order(problems: list[Problem]) -> list[Problem]:
    def line(problem: Problem) -> int:
        tail = problem.where.rpartition(":")[2]
        return int(tail) if tail.isdigit() else 0

    unique = list(dict.fromkeys(problems))
    return sorted(unique, key=line)


def _contradictions(checking: _Check, parts: dict[str, Any], sections: dict[str, Any]) -> None:
    """Options that are each right and wrong together."""
    catalogue, tree = checking.catalogue, checking.tree

    def add(path: tuple[Any, ...], message: str, hint: str = "") -> None:
        if path not in checking.wrong:
            checking.add(path, message, hint)

    train, data, regularization = (sections.get(key) for key in ("train", "data", "regularization"))
    task, loss, model, optimizer = (parts.get(key) for key in ("task", "loss", "model", "optimizer"))
    if task is not None:
        promise = catalogue.facts("tasks", task.name)
        losses, metrics = getattr(promise, "LOSSES", ()), getattr(promise, "METRICS", ())
        if loss is not None and losses and loss.name not in losses:
            add(("loss",), f"the loss {loss.name} does not fit the task {task.name}.", f"it takes {', '.join(losses)}")
        if loss is None and "loss" not in tree:
            add((), f"the task {task.name} needs a loss.", f"it takes {', '.join(losses)}")
        for number, metric in enumerate(parts["metrics"]):
            if metrics and metric is not None and metric.name not in metrics:
                add(
                    ("metrics", number),
                    f"the metric {metric.name} does not fit the task {task.name}.",
                    f"it takes {', '.join(metrics)}",
                )
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
    if train is not None:
        raw = _mapping(tree.get("train"))
        if raw.get("epochs") is not None and raw.get("steps") is not None:
            add(("train", "steps"), "train.epochs and train.steps are both given.", "keep one of the two, or set the other to null")
        sound = ("train", "batch_size") not in checking.wrong
        if sound and isinstance(train.batch_size, int) and train.micro_batch and train.micro_batch > train.batch_size:
            add(("train", "micro_batch"), f"train.micro_batch ({train.micro_batch}) is larger than train.batch_size ({train.batch_size}).",
                "a batch is made of micro batches")  # fmt: skip
        if (
            optimizer is not None
            and getattr(catalogue.facts("optimizers", optimizer.name), "FULL_BATCH", False)
            and train.batch_size != "all"
        ):
            add(("train", "batch_size"), f"{optimizer.name} takes all training rows in one update, and train.batch_size is {train.batch_size}.",
                "leave batch_size out (micro_batch limits memory), or choose sgd")  # fmt: skip
        schedule = parts.get("schedule")
        if schedule is not None and train.steps is not None and schedule.options.warmup >= max(train.steps, 2):
            add(
                ("schedule", "warmup"),
                f"the warm-up ({schedule.options.warmup:g} steps) is as long as training ({train.steps} steps).",
            )
    if regularization is not None and model is not None:
        if regularization.dropout is not None and "dropout" not in type(model.options).model_fields:
            add(("regularization", "dropout"), f"the model {model.name} takes no dropout.", "leave it out, or choose another model")
        other = _mapping(tree.get("model")).get("dropout")
        if regularization.dropout is not None and other is not None and other != regularization.dropout:
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
    same = old == new and isinstance(old, bool) == isinstance(new, bool)  # true is not 1
    return [] if same else [f"{path}: {_say(old)} -> {_say(new)}"]


def describe_options(config: type[Options]) -> list[str]:
    """One line an option: name, type, default, range, meaning."""
    lines = []
    for name, info in config.model_fields.items():
        mark = on_shelf(config, name)
        kind = f"a part of {mark.shelf}" if mark else _type_name(info.annotation)
        limits = [_limit(each) for each in info.metadata]
        default = "required" if info.is_required() else f"default {_short(info.get_default(call_default_factory=True))}"
        detail = ", ".join(filter(None, [kind, *limits, default]))
        lines.append(f"  {name} ({detail})\n      {info.description or ''}".rstrip())
    return lines


def _short(default: Any) -> str:
    text = default if isinstance(default, str) and default else json.dumps(plain(default), ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _limit(mark: Any) -> str:
    words = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
    return ", ".join(f"{words[key]} {getattr(mark, key)}" for key in words if getattr(mark, key, None) is not None)


def _type_name(annotation: Any) -> str:
    simple = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
    if hasattr(annotation, "__metadata__"):  # Annotated, inside a list or mapping: the type without its limits
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
    return " | ".join(_type_name(member) for member in members) if members else getattr(annotation, "__name__", str(annotation))


def schema(catalogue: Catalogue) -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) of recipes, made from the parts, for completion and checking in editors."""
    return _Schema(catalogue).whole()


class _Schema:
    """Writes the schema; each shelf is written once, under $defs."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.definitions: dict[str, Any] = {}

    def whole(self) -> dict[str, Any]:
        """The schema of a recipe."""
        properties: dict[str, Any] = {
            "name": {"type": "string", "pattern": f"^{_NAME}$", "description": "What the run folder is called."}
        }
        for key, shelf in PARTS.items():
            one = self.shelf(shelf)
            if key in LISTS:
                properties[key] = {"anyOf": [one, {"type": "array", "items": one}, _NULL]}
            else:  # a mapping without a name changes the options of the part that is the default
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
            self.definitions[shelf] = {}  # stands while its parts are read, so that shelves may refer to each other
            names = self.catalogue.names(shelf)
            choices: list[Any] = [{"enum": names}, *(self.part(shelf, name) for name in names)]
            if shelf == "sources":  # a path, alone or with the options of the source that its ending means
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
            inner: dict[str, Any] = {"anyOf": [{"enum": [*KINDS, "drop", "ignore", False]}, self.section(ColumnOptions)]}
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
                inner = {"type": "object", "additionalProperties": False, "properties": dict.fromkeys(KINDS, inner)}
            if config is Data and name == "split":
                inner = {"anyOf": [inner, _UNNAMED]}
            if type(None) in get_args(info.annotation):
                inner = {"anyOf": [inner, _NULL]}
        return {**inner, "description": info.description or ""}


_NULL = {"type": "null"}
_UNNAMED = {"type": "object", "not": {"required": ["name"]}}


def _inlined(value: Any, definitions: Mapping[str, Any]) -> Any:
    """A piece of pydantic's schema with its references replaced by what they refer to."""
    if isinstance(value, dict):
        if "$ref" in value:
            rest = {key: each for key, each in value.items() if key != "$ref"}
            return {**_inlined(definitions[value["$ref"].rpartition("/")[2]], definitions), **rest}
        return {key: _inlined(each, definitions) for key, each in value.items()}
    return [_inlined(each, definitions) for each in value] if isinstance(value, list) else value


def with_changes(recipe: Recipe, catalogue: Catalogue, changes: Sequence[str] | Mapping[str, Any]) -> Recipe:
    """The recipe with dotted names set to new values, checked again."""
    tree, where = apply_overrides(dict(recipe.raw), {(): recipe.path or "recipe"}, changes, catalogue)
    return check(tree, where, catalogue, recipe.path)


__all__ = [
    "Catalogue",
    "ColumnOptions",
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
