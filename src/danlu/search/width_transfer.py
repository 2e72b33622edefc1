"""Tune small, train large (muTransfer): search a narrow model, then write the wide recipe.

Under muP (danlu/layers/parametrization.py) the best options of a narrow network are the best ones
of a wide network, so a trial costs the time of the narrow one. Whether that holds for a model and
its optimizers is tested before any trial, by the coordinate check.

Source: Yang et al., 2022, arXiv:2203.03466 (muTransfer).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from danlu import recipe as recipes
from danlu import registry
from danlu.errors import MissingExtra, Problem, RecipeError, RunError, TrainingStopped
from danlu.recipe import Recipe, write_yaml
from danlu.search.coordinate_check import (
    CoordinateCheck,
    check_coordinates,
    draw_check,
    widths_between,
)
from danlu.search.tune import StudyResult, tune
from danlu.search.widths import at_width, changed_options, width_of
from danlu.system.atomic_files import make_folder, replace_file
from danlu.training.loop import Output

# The paper does not promise that these transfer: the best strength of a regularization depends on
# the size of the network and on its data.
_REGULARIZATION = ("dropout", "weight_decay", "l1", "l2", "label_smoothing", "ema_decay")


@dataclass(frozen=True)
class Transfer:
    """The coordinate checks, the study at the narrow width, and the file of the wide recipe (None
    where it was not requested, or no trial is complete)."""

    width: int
    narrow: int
    checks: dict[str, CoordinateCheck]
    study: StudyResult
    recipe: Path | None

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            **self.study.as_dict(),
            "width": self.width,
            "at_width": self.narrow,
            "coordinate_checks": {name: check.as_dict() for name, check in self.checks.items()},
            "wide_recipe": None if self.recipe is None else str(self.recipe),
        }


def tune_at_width(
    recipe: Recipe | str | Path | Mapping[str, Any],
    width: int,
    study: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    transfer: bool = False,
    output: Output = "quiet",
    say: Callable[[str], None] = lambda sentence: None,
) -> Transfer:
    """Search a recipe's options on a copy whose model is `width` wide, in the folder `study`
    (default studies/<name>_at_<width>).

    A recipe without `parametrization: mup` gets it, with `width` as its base width. The coordinate
    check comes first; its data and plot are written into the folder. `transfer`: write
    FOLDER/wide.yaml at the end. The same call resumes an interrupted study.

    Raises DanluError as danlu.tune does, for a search space that changes the width, and
    (TrainingStopped) where the coordinate check fails.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": {"name": "mlp", "hidden": [16]},
    ...           "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> recipe["tune"] = {"space": {"optimizer.learning_rate": [0.01, 0.1]}, "sampler": "random",
    ...                   "trials": 2, "on": "one_by_one"}
    >>> transfer = danlu.tune_at_width(recipe, 8, "studies/narrow-iris")
    >>> transfer.width, transfer.narrow
    (16, 8)
    """
    if not isinstance(recipe, Recipe):
        recipe = recipes.read(recipe, registry, overrides, study or "studies")
    elif overrides:
        recipe = recipes.with_changes(recipe, registry, overrides)
    if recipe.tune is None:
        raise RunError(
            "this recipe has no section tune, so there is nothing to search.",
            where=recipe.path,
            hint="danlu show tune",
        )
    _refuse_widths(recipe)
    wide = _under_mup(recipe, width)
    narrow = replace(at_width(wide, width), name=f"{recipe.name}_at_{width}"[:100])
    folder = Path(study) if study is not None else Path("studies") / narrow.name
    if recipe.regularization.l1 or recipe.regularization.l2:
        say("regularization.l1 and l2 are not scaled by the width; optimizer.weight_decay is.")
    checks = _check_optimizers(wide, width, folder, say)
    result = tune(narrow, folder, output=output)
    wide_recipe = _write_wide(wide, width, folder, result) if transfer else None
    return Transfer(width_of(wide), width, checks, result, wide_recipe)


@runtime_checkable
class _ParametrizationOption(Protocol):
    """The options of a model that can be scaled by width ("standard" or "mup")."""

    parametrization: str


def _under_mup(recipe: Recipe, width: int) -> Recipe:
    """The recipe with `parametrization: mup`, with the base width `width` unless it sets one."""
    options = recipe.model.options
    if not isinstance(options, _ParametrizationOption) or options.parametrization == "mup":
        return recipe
    return recipes.with_changes(
        recipe, registry, {"model.parametrization": "mup", "model.base_width": width}
    )


def _refuse_widths(recipe: Recipe) -> None:
    """Raise RecipeError where the search space has the width itself, or an option that determines
    it."""
    options = recipe.model.options
    resize = registry.model_facts(recipe.model.name).at_width
    assert resize is not None  # width_of has refused models without it
    other = resize(options, 2 * width_of(recipe))
    fixed = {
        "model",
        "model.size",
        "model.design",
        "model.parametrization",
        "model.base_width",
        *changed_options(options, other),
    }
    named = [dimension.name for dimension in recipe.space if dimension.name in fixed]
    if named:
        raise RecipeError(
            [
                Problem(
                    recipe.path or "recipe",
                    f"tune.space: {name} changes the width, and this search is at one width.",
                    f"leave {name} out, or tune without --at-width",
                )
                for name in named
            ]
        )


def _check_optimizers(
    wide: Recipe, width: int, folder: Path, say: Callable[[str], None]
) -> dict[str, CoordinateCheck]:
    """The coordinate check of the recipe with each optimizer of the search, stored in the folder.
    Raises TrainingStopped where one fails."""
    widths = widths_between(wide, width)
    choices = next(
        (
            dimension.choices
            for dimension in wide.space
            if dimension.name == "optimizer" and dimension.kind == "choice"
        ),
        (),
    )
    variants = [
        recipes.trial_recipe(wide, {"optimizer": choice}, registry) for choice in choices
    ] or [recipes.trial_recipe(wide, {}, registry)]
    make_folder(folder)
    file = folder / "coordinate_check.json"
    before = _read(file)
    checks: dict[str, CoordinateCheck] = {}
    digests: dict[str, str] = {}
    for variant in variants:
        name = variant.optimizer.name
        digests[name] = hashlib.sha256(
            json.dumps([variant.as_dict(), widths], sort_keys=True).encode()
        ).hexdigest()
        old = before.get(name, {})
        if old.get("of") == digests[name]:
            checks[name] = CoordinateCheck(old["widths"], old["sizes"], old["changes"])
            continue
        checks[name] = check_coordinates(variant, widths)
        say(f"{name}: {checks[name].sentence()}")
        _draw(checks[name], folder / f"coordinate_check_{name}.png", say)
    stored = {name: {"of": digests[name], **check.as_dict()} for name, check in checks.items()}
    replace_file(file, json.dumps(stored, indent=1).encode())
    for name, check in checks.items():
        if not check.passed:
            raise TrainingStopped(
                f"{name}: {check.sentence()} The best options at width {width:,} would not be the "
                f"best at {width_of(wide):,}.",
                where=str(file),
                hint=f"look at coordinate_check_{name}.png; tune at the full width (without "
                "--at-width), or try another optimizer",
            )
    return checks


def _read(path: Path) -> dict[str, Any]:
    """The checks that an earlier start stored; {} where there is no readable file."""
    try:
        stored = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _draw(check: CoordinateCheck, path: Path, say: Callable[[str], None]) -> None:
    try:
        draw_check(check, path)
    except MissingExtra as error:
        say(f"no plot: {error.problem.message} {error.problem.hint}")


def _write_wide(wide: Recipe, narrow: int, folder: Path, result: StudyResult) -> Path | None:
    """Write FOLDER/wide.yaml: the wide recipe with the values of the best trial."""
    best = result.best
    if best is None or best.scores is None:
        return None
    recipe = recipes.trial_recipe(wide, best.values, registry)
    scores = ", ".join(
        f"{metric} {score:.6g}" for (metric, _), score in zip(result.objectives, best.scores)
    )
    less_certain = [name for name in best.values if name.rpartition(".")[2] in _REGULARIZATION]
    lines = [
        f"Width {width_of(wide):,}, with the values of trial {best.number} of "
        f"{len(result.trials):,} at width {narrow:,} ({scores}).",
        f"Found in the study {folder}:",
        *(f"    {name}: {_format(value)}" for name, value in best.values.items()),
        "They hold at other widths by model.parametrization: mup; do not change model.base_width.",
    ]
    if less_certain:
        lines.append(
            f"Regularization ({', '.join(less_certain)}) is the least certain to be right for the "
            "wide network: it may need more."
        )
    lines += ["", f"    danlu train {folder / 'wide.yaml'}"]
    head = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    rest = {name: value for name, value in recipe.raw.items() if name not in ("name", "tune")}
    path = folder / "wide.yaml"
    replace_file(
        path, (head + "\n" + write_yaml({"name": f"{wide.name}_wide"[:100], **rest})).encode()
    )
    return path


def _format(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
