"""A folder is a registry: the files on it are its parts.

`names` lists a shelf without importing anything; `take` imports one part; `build_*` are the typed
doors the floors above use. A package outside danlu adds a part with an entry point in the group
"danlu.SHELF", name = the part's name, value = its module."""

from __future__ import annotations

import ast
import collections
import functools
import importlib
import importlib.util
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from danlu.errors import PartError, did_you_mean, nearest

# Nothing here imports danlu.recipe (and so pydantic) before a part's options are asked for: a
# listing answers at once.
if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from danlu.recipe import Options, Part
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
            said = f"{type(error).__name__}: {error}"
            raise PartError(
                f"the part {name} of {shelf} is {module}, which cannot be imported ({said}).",
                hint=_MEND,
            ) from error
    known = names(shelf)
    guess = did_you_mean(name, known)
    message = f"there is no {name!r} among {shelf}. It has {', '.join(known)}."
    raise PartError(message, hint=guess)


_MEND = "mend or remove the package that offers it"


def config(shelf: str, name: str) -> type[Options]:
    """The options class of one part."""
    from danlu.recipe import Options

    found = getattr(take(shelf, name), "Config", None)
    if not (isinstance(found, type) and issubclass(found, Options)):
        hint = _MEND if name in _outside(shelf) else ""
        raise PartError(
            f"{shelf}/{name} offers no Config (a class derived from danlu.recipe.Options).",
            hint=hint,
        )
    return found


def defaults(shelf: str, name: str) -> Mapping[str, Any]:
    """What a part recommends for the rest of the recipe: dotted keys to values; {} for most."""
    return getattr(take(shelf, name), "DEFAULTS", {})


def facts(shelf: str, name: str) -> ModuleType:
    """The part's module, for its constants (LOSSES, METRICS, FULL_BATCH, BETTER, SUFFIXES,
    TAKES)."""
    return take(shelf, name)


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
        for suffix in getattr(take("sources", name), "SUFFIXES", ()):
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
            claims = getattr(take("sources", name), "claims", None)
            if claims is not None and claims(folder):
                return name
        found = [
            source_for(entry.name)
            for entry in itertools.islice(sorted(folder.iterdir()), 1000)
            if entry.is_file()
        ]
    except OSError:
        return None
    counts = collections.Counter(name for name in found if name)
    return counts.most_common(1)[0][0] if counts else None


def build_source(part: Part, columns: Mapping[str, Any]) -> Table:
    """The table that a source reads."""
    return take("sources", part.name).build(part.options, columns)


def build_task(part: Part, targets: Mapping[str, Column]) -> Any:
    """The task, fitted to the target columns of the training rows."""
    return take("tasks", part.name).build(part.options, targets)


def restore_task(part: Part, state: Mapping[str, Any]) -> Any:
    """The task as an artifact holds it."""
    return take("tasks", part.name).restore(part.options, state)


def build_model(part: Part, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The module of a model family, its weights drawn from torch's default generator."""
    return take("models", part.name).build(part.options, inputs, output)


def build_loss(part: Part, task: Any) -> Any:
    """The loss object: loss(outputs, batch) -> (sum, count)."""
    return take("losses", part.name).build(part.options, task)


def build_metric(part: Part, task: Any) -> Any:
    """The metric object: count and score."""
    return take("metrics", part.name).build(part.options, task)


def build_optimizer(part: Part, groups: list[dict[str, Any]]) -> Optimizer:
    """The torch optimizer over parameter groups."""
    return take("optimizers", part.name).build(part.options, groups)


def build_augmentation(part: Part, inputs: Mapping[str, InputSpec], output: OutputSpec) -> Any:
    """augment(batch, generator) -> Batch."""
    return take("augmentations", part.name).build(part.options, inputs, output)


def build_watcher(part: Part, setting: Any) -> Any:
    """A watcher: hear(report)."""
    return take("watchers", part.name).build(part.options, setting)


def build_sampler(
    part: Part, space: Any, directions: Sequence[str], seed: int, study_seed: int
) -> Any:
    """An optuna.samplers.BaseSampler for one suggestion."""
    return take("samplers", part.name).build(part.options, space, directions, seed, study_seed)


def build_pruner(part: Part, direction: str, seed: int) -> Any:
    """A pruner: prune(number, curve, others)."""
    return take("pruners", part.name).build(part.options, direction, seed)


class WarmUp:
    """A schedule with a linear warm-up before it; the wrapped schedule sees the steps that
    remain."""

    def __init__(self, warmup_steps: int, inner: Any) -> None:
        self.warmup_steps = warmup_steps
        self.inner = inner
        for name in ("observe", "state", "load"):  # only a schedule that keeps state offers them
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1) * self.inner(0)
        return self.inner(step - self.warmup_steps)


def build_schedule(part: Part, total_steps: int) -> Any:
    """schedule(step) -> scale in [0, 1]; step counts from 0 and includes the warm-up."""
    from danlu.recipe import ScheduleOptions

    options = part.options
    assert isinstance(options, ScheduleOptions)
    warmup = options.warmup
    steps = round(warmup * total_steps) if warmup < 1 else int(warmup)
    steps = min(steps, max(total_steps - 1, 0))
    return WarmUp(steps, take("schedules", part.name).build(options, max(total_steps - steps, 1)))


__all__ = [
    "WarmUp",
    "build_augmentation",
    "build_loss",
    "build_metric",
    "build_model",
    "build_optimizer",
    "build_pruner",
    "build_sampler",
    "build_schedule",
    "build_source",
    "build_task",
    "build_watcher",
    "config",
    "defaults",
    "describe",
    "facts",
    "find",
    "names",
    "nearest",
    "restore_task",
    "shelves",
    "source_for",
    "summary",
    "take",
]
