"""A folder is a registry: the files on it are its parts.

`names` lists a shelf without importing anything; `take` imports one part; `build_*` are the typed
doors the floors above use. A package outside danlu adds a part with an entry point in the group
"danlu.SHELF", name = the part's name, value = its module."""

from __future__ import annotations

import ast
import collections
import dataclasses
import functools
import importlib
import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from danlu.errors import PartError, did_you_mean, nearest
from danlu.system.trust import remote_is_allowed as remote_is_allowed

# Nothing here imports danlu.recipe (and so pydantic) before a part's options are asked for: a
# listing answers at once.
if TYPE_CHECKING:
    import numpy as np
    from optuna.samplers import BaseSampler
    from torch import nn
    from torch.optim import Optimizer

    from danlu.compression.compressors._base import Compressor
    from danlu.parts.augmentations._base import Augmentation, AugmentationFacts
    from danlu.parts.losses._base import AdversarialLoss, Loss, LossFacts
    from danlu.parts.metrics._base import Metric, MetricFacts, TextMetric
    from danlu.parts.models._base import ModelFacts
    from danlu.parts.optimizers._base import OptimizerFacts
    from danlu.parts.schedules._base import Schedule, ScoreSchedule
    from danlu.parts.sources._base import Source
    from danlu.parts.splits._base import Split
    from danlu.parts.tasks._base import Task, TaskFacts
    from danlu.parts.transforms._base import Transform
    from danlu.parts.watchers._base import RunInfo, Watcher
    from danlu.recipe import ColumnOptions, Options, Part, Space
    from danlu.search.pruners._base import Pruner
    from danlu.search.samplers._base import SamplerFacts
    from danlu.terms import Column, InputSpec, OutputSpec, Table

_HOME = Path(__file__).parent
_PACKAGES = ("parts", "search", "compression", "exporting")  # the packages that hold shelves


@functools.cache
def _folders() -> dict[str, Path]:
    """The folder of every shelf: one that says what its parts offer."""
    inner = (folder for package in _PACKAGES for folder in (_HOME / package).iterdir())
    return {
        folder.name: folder
        for folder in sorted(inner)
        if (folder / "__init__.py").is_file() and _offers_parts(folder)
    }


def shelves() -> list[str]:
    """The names of all shelves."""
    return sorted(_folders())


def folder(shelf: str) -> Path:
    """The folder of a shelf. PartError with the nearest names where there is none."""
    if shelf not in _folders():
        raise PartError(
            f"there is no shelf {shelf!r}.",
            hint=did_you_mean(shelf, shelves()) or f"shelves: {', '.join(shelves())}",
        )
    return _folders()[shelf]


def _offers_parts(folder: Path) -> bool:
    return "A part offers" in (
        ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or ""
    )


@functools.cache
def _built_in(shelf: str) -> dict[str, Path]:
    parts = {
        path.stem: path for path in folder(shelf).glob("*.py") if not path.stem.startswith("_")
    }
    parts |= {
        path.parent.name: path
        for path in folder(shelf).glob("*/__init__.py")
        if not path.parent.name.startswith("_")
    }
    return dict(sorted(parts.items()))


@functools.cache
def _outside(shelf: str) -> dict[str, str]:
    from importlib.metadata import entry_points

    return {
        entry.name: entry.module
        for entry in entry_points(group=f"danlu.{shelf}")
        if entry.name not in _built_in(shelf)
    }


def names(shelf: str) -> list[str]:
    """The parts of a shelf, sorted; imports none of them."""
    return sorted([*_built_in(shelf), *_outside(shelf)])


@functools.cache
def take(shelf: str, name: str) -> ModuleType:
    """The module of one part. PartError with the nearest names where there is none."""
    if name in _built_in(shelf):
        return importlib.import_module(f"danlu.{folder(shelf).parent.name}.{shelf}.{name}")
    if name in _outside(shelf):
        module = _outside(shelf)[name]
        try:
            return importlib.import_module(module)
        except Exception as error:  # whatever stands in somebody else's file
            reason = f"{type(error).__name__}: {error}"
            raise PartError(
                f"the part {name} of {shelf} is {module}, which cannot be imported ({reason}).",
                hint=_MEND,
            ) from error
    choices = names(shelf)
    guess = did_you_mean(name, choices)
    message = f"there is no {name!r} among {shelf}. It has {', '.join(choices)}."
    raise PartError(message, hint=guess)


_MEND = "mend or remove the package that offers it"


def config(shelf: str, name: str) -> type[Options]:
    """The options class of one part."""
    from danlu.recipe import Options

    options = vars(take(shelf, name)).get("Config")
    if not (isinstance(options, type) and issubclass(options, Options)):
        hint = _MEND if name in _outside(shelf) else ""
        raise PartError(
            f"{shelf}/{name} offers no Config (a class derived from danlu.recipe.Options).",
            hint=hint,
        )
    return options


def defaults(shelf: str, name: str) -> Mapping[str, Any]:
    """What a part recommends for the rest of the recipe: dotted keys to values; {} for most."""
    return vars(take(shelf, name)).get("DEFAULTS", {})


def recommended(shelf: str, part: Part) -> Mapping[str, Any]:
    """What a part recommends further for its options, as `defaults`; {} for most."""
    recommends = vars(take(shelf, part.name)).get("recommends")
    return {} if recommends is None else recommends(part.options)


def facts(shelf: str, name: str) -> ModuleType:
    """The part's module, for its constants (LOSSES, METRICS, FULL_BATCH, BETTER, SUFFIXES,
    TAKES)."""
    return take(shelf, name)


FactsT = TypeVar("FactsT")


def contract(shelf: str) -> ModuleType:
    """The file `_base` of a shelf, which holds the contract of its parts; imported like a part."""
    return importlib.import_module(f"danlu.{folder(shelf).parent.name}.{shelf}._base")


def read_facts(facts: type[FactsT], shelf: str, name: str) -> FactsT:
    """What a part's module says of itself, as the dataclass `facts` of its shelf.

    Each field is read from the module-level name in its metadata ("name"), else from the field's
    own name. PartError where the part lacks one that has no default.
    """
    module = take(shelf, name)
    offered = vars(module)
    values: dict[str, object] = {}
    for field in dataclasses.fields(facts):  # type: ignore[arg-type]
        key = field.metadata.get("name", field.name)
        if key in offered:
            values[field.name] = offered[key]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise PartError(
                f"{shelf}/{name} ({module.__name__}) has no {key}, which its shelf asks for.",
                hint=_MEND if name in _outside(shelf) else "",
            )
    return facts(**values)


def task_facts(name: str) -> TaskFacts:
    """What a task says of itself, with the losses and metrics that fit it."""
    facts = read_facts(contract("tasks").TaskFacts, "tasks", name)
    return dataclasses.replace(
        facts,
        losses=facts.losses or tuple(fitting("losses", facts.asks)),
        metrics=facts.metrics or tuple(fitting("metrics", facts.asks)),
    )


def fitting(shelf: str, asks: str) -> list[str]:
    """The losses or metrics (`shelf`) that fit tasks of these ASKS, sorted.

    >>> fitting("losses", "labels")
    ['binary_cross_entropy', 'focal']
    """
    facts = loss_facts if shelf == "losses" else metric_facts
    return [name for name in names(shelf) if asks in facts(name).fits]


def loss_facts(name: str) -> LossFacts:
    """Which tasks a loss fits, and whether it can score."""
    return read_facts(contract("losses").LossFacts, "losses", name)


def metric_facts(name: str) -> MetricFacts:
    """Which tasks a metric fits, and which way it improves."""
    return read_facts(contract("metrics").MetricFacts, "metrics", name)


def model_facts(name: str) -> ModelFacts:
    """What a model family takes and gives, and what else its module offers."""
    return read_facts(contract("models").ModelFacts, "models", name)


def weights_of(part: Part) -> str | None:
    """The artifact or run that a model starts from (its option `weights`); None for none."""
    return contract("models").weights_of(part.options)


def optimizer_facts(name: str) -> OptimizerFacts:
    """The update rule of an optimizer, and what it says of its updates."""
    return read_facts(contract("optimizers").OptimizerFacts, "optimizers", name)


def sampler_facts(name: str) -> SamplerFacts:
    """What a sampler of studies says of itself."""
    return read_facts(contract("samplers").SamplerFacts, "samplers", name)


def augmentation_facts(name: str) -> AugmentationFacts:
    """The kinds of input that an augmentation changes."""
    return read_facts(contract("augmentations").AugmentationFacts, "augmentations", name)


def transform(name: str) -> Transform:
    """The functions of a transform."""
    return read_facts(contract("transforms").Transform, "transforms", name)


def source(name: str) -> Source:
    """The functions of a source, and which paths mean it."""
    return read_facts(contract("sources").Source, "sources", name)


def split(name: str) -> Split:
    """The function of a split."""
    return read_facts(contract("splits").Split, "splits", name)


def compressor(name: str) -> Compressor:
    """The functions of a compressor, and what it does to a model."""
    return read_facts(contract("compressors").Compressor, "compressors", name)


def split_column(part: Part | None) -> str | None:
    """The column that decides a split and is therefore no input; None where there is none."""
    decided_by = split(part.name).decided_by if part is not None else None
    return decided_by(part.options) if part is not None and decided_by is not None else None


def find(name: str) -> list[tuple[str, str]]:
    """(shelf, name) of every part called `name`; accepts 'shelf/name' as well."""
    if "/" in name:
        shelf, _, name = name.partition("/")
        return [(shelf, name)] if name in names(shelf) else []
    return [(shelf, name) for shelf in shelves() if name in names(shelf)]


def summary(shelf: str, name: str) -> str:
    """The first line of a part's docstring, read as text: the part is not imported."""
    path = _built_in(shelf).get(name) or _outside_file(shelf, name)
    try:
        document = ast.get_docstring(ast.parse(path.read_text("utf-8"))) if path else None
    except (OSError, ValueError, SyntaxError):
        document = None
    return (document or "").split("\n", 1)[0]


def _outside_file(shelf: str, name: str) -> Path | None:
    """The file of a part from another package; finding it imports the packages around it, not the
    part."""
    try:
        spec = importlib.util.find_spec(_outside(shelf)[name])
    except Exception:  # whatever stands in somebody else's __init__.py, and a name that is none
        return None
    return Path(spec.origin) if spec and spec.origin else None


def describe(shelf: str, name: str) -> str:
    """The whole page of a part: its docstring, its options with type, default, range and
    meaning."""
    from danlu.recipe import describe_options

    module = take(shelf, name)
    lines = [f"{shelf}/{name}", "", (module.__doc__ or "").strip(), ""]
    options = describe_options(config(shelf, name))
    lines += ["Options", *options] if options else ["It has no options."]
    recommended = defaults(shelf, name)
    if recommended:
        lines += [
            "",
            "Defaults it brings to the rest of the recipe",
            *(f"  {key}: {value}" for key, value in recommended.items()),
        ]
    return "\n".join(lines)


def source_for(path: str) -> str | None:
    """The source that a bare path means: by its ending, or by what stands in a folder; None where
    no source claims it."""
    if _is_folder(path):
        return _source_of_folder(Path(path))
    lowered = path.lower()
    best: tuple[int, str] | None = None
    for name in names("sources"):
        for suffix in source(name).suffixes:
            if lowered.endswith(suffix) and (best is None or len(suffix) > best[0]):
                best = (len(suffix), name)
    return best[1] if best else None


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _source_of_folder(folder: Path) -> str | None:
    """The source that claims a folder, else the one most of its first thousand files have the
    ending of."""
    try:
        for name in names("sources"):
            claims = source(name).claims
            if claims is not None and claims(folder):
                return name
        sources = [
            source_for(entry.name)
            for entry in itertools.islice(sorted(folder.iterdir()), 1000)
            if entry.is_file()
        ]
    except OSError:
        return None
    counts = collections.Counter(name for name in sources if name)
    return counts.most_common(1)[0][0] if counts else None


def build_source(part: Part, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table that a source reads; `columns` as the recipe's data.columns."""
    return source(part.name).build(part.options, columns)


def build_task(part: Part, targets: Mapping[str, Column]) -> Task:
    """The task, fitted to the target columns of the training rows."""
    return _checked_task(part, take("tasks", part.name).build(part.options, targets))


def restore_task(part: Part, state: Mapping[str, Any]) -> Task:
    """The task as an artifact holds it."""
    return _checked_task(part, take("tasks", part.name).restore(part.options, state))


def _checked_task(part: Part, task: Any) -> Task:
    """The task, once it derives from the classes that the rest of danlu relies on. PartError."""
    base = contract("tasks")
    asks = vars(take("tasks", part.name)).get("ASKS", "")
    required = (base.Task, base.REQUIRED_BY_ASKS.get(asks, base.Task))
    _check_class("tasks", part.name, task, required)
    if not isinstance(task, base.AnswersOutputs | base.Responds):
        _refuse_class("tasks", part.name, task, "AnswersOutputs or Responds")
    if not isinstance(task, base.EncodesTargets | base.CutsExamples):
        _refuse_class("tasks", part.name, task, "EncodesTargets or CutsExamples")
    for name in ("output", "target_names", "score_order"):
        if not hasattr(task, name):  # annotations of Task, which another package may forget to set
            raise PartError(
                f"the task that tasks/{part.name} builds has no attribute {name}.",
                hint=f"set self.{name}: see danlu.parts.tasks._base.Task",
            )
    return task


def _check_class(shelf: str, name: str, built: object, required: Sequence[type]) -> None:
    """PartError where what a part built does not derive from the classes of its shelf."""
    for kind in required:
        if not isinstance(built, kind):
            _refuse_class(shelf, name, built, kind.__name__)


def _refuse_class(shelf: str, name: str, built: object, wanted: str) -> NoReturn:
    raise PartError(
        f"{shelf}/{name} builds a {type(built).__name__}, which is no {wanted}.",
        hint=f"derive its class from {wanted} of danlu.parts.{shelf}._base",
    )


def build_model(part: Part, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module of a model family, its weights drawn from torch's default generator."""
    return take("models", part.name).build(part.options, inputs, output)


def build_loss(part: Part, task: Task) -> Loss:
    """The loss of a supervised training: loss(outputs, batch) -> (sum, count)."""
    loss = take("losses", part.name).build(part.options, task)
    _check_class("losses", part.name, loss, [contract("losses").Loss])
    return loss


def build_adversarial_loss(part: Part, task: Task) -> AdversarialLoss:
    """The losses of a generator and a discriminator."""
    loss = take("losses", part.name).build(part.options, task)
    _check_class("losses", part.name, loss, [contract("losses").AdversarialLoss])
    return loss


def build_metric(part: Part, task: Task) -> Metric | TextMetric:
    """The metric; a TextMetric where its part says READS_TEXT."""
    base = contract("metrics")
    metric = take("metrics", part.name).build(part.options, task)
    reads_text = metric_facts(part.name).reads_text
    _check_class("metrics", part.name, metric, [base.TextMetric if reads_text else base.Metric])
    return metric


def build_optimizer(part: Part, groups: list[dict[str, Any]]) -> Optimizer:
    """The torch optimizer over parameter groups (dicts as torch.optim takes them).

    A group may hold "weight_decay" and "learning_rate_scale", which `build` leaves alone.
    """
    return take("optimizers", part.name).build(part.options, groups)


def build_augmentation(
    part: Part, inputs: Mapping[str, InputSpec], output: OutputSpec
) -> Augmentation:
    """augment(batch, generator) -> Batch, for a model with these inputs and output."""
    return take("augmentations", part.name).build(part.options, inputs, output)


def build_watcher(part: Part, run: RunInfo) -> Watcher:
    """A watcher of the run. PartError where the part's `build` returns something else."""
    watcher = take("watchers", part.name).build(part.options, run)
    if not isinstance(watcher, contract("watchers").Watcher):
        raise PartError(
            f"watchers/{part.name} builds an object of type {type(watcher).__name__}, "
            "which is no Watcher.",
            hint="derive its class from danlu.parts.watchers._base.Watcher",
        )
    return watcher


def build_split(
    part: Part, table: Table, target: Column | None, seed: int
) -> dict[str, np.ndarray]:
    """Row numbers by split ("train", "validation", "test"): int64, sorted ascending, disjoint."""
    return split(part.name).build(part.options, table, target, seed)


def build_sampler(
    part: Part, space: Space, directions: Sequence[str], seed: int, study_seed: int
) -> BaseSampler:
    """Optuna's sampler for one suggestion (danlu.search.samplers._base.BuildSampler)."""
    return take("samplers", part.name).build(part.options, space, directions, seed, study_seed)


def build_pruner(part: Part, direction: str, seed: int) -> Pruner:
    """The pruner of one objective, of which `direction` ("higher" | "lower") is better."""
    return take("pruners", part.name).build(part.options, direction, seed)


def build_schedule(part: Part, total_steps: int) -> Schedule | ScoreSchedule:
    """schedule(step) -> factor on the learning rate in [0, 1].

    `step` counts from 0 and includes the linear warm-up (option `warmup`) before the schedule.
    """
    from danlu.recipe import ScheduleOptions

    options = part.options
    assert isinstance(options, ScheduleOptions)
    warmup = options.warmup
    steps = round(warmup * total_steps) if warmup < 1 else int(warmup)
    steps = min(steps, max(total_steps - 1, 0))
    schedule = take("schedules", part.name).build(options, max(total_steps - steps, 1))
    return contract("schedules").with_warmup(schedule, steps)


__all__ = [
    "augmentation_facts",
    "build_adversarial_loss",
    "build_augmentation",
    "build_loss",
    "build_metric",
    "build_model",
    "build_optimizer",
    "build_pruner",
    "build_sampler",
    "build_schedule",
    "build_source",
    "build_split",
    "build_task",
    "build_watcher",
    "config",
    "contract",
    "defaults",
    "describe",
    "facts",
    "find",
    "fitting",
    "loss_facts",
    "metric_facts",
    "model_facts",
    "names",
    "nearest",
    "optimizer_facts",
    "read_facts",
    "recommended",
    "restore_task",
    "sampler_facts",
    "shelves",
    "source",
    "source_for",
    "split",
    "split_column",
    "summary",
    "take",
    "task_facts",
    "transform",
    "weights_of",
]
