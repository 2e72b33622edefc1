"""Search a recipe's options: many trainings, told by a sampler what to change."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu import recipe as recipes
from danlu import registry
from danlu.data.dataset import keep_in_memory
from danlu.errors import DanluError, Interrupted, RunError
from danlu.recipe import Recipe
from danlu.search.context import SearchContext
from danlu.search.progress import Progress
from danlu.search.report import note_study, report
from danlu.search.study import Study, TrialRecord
from danlu.system.signals import Interruption


@dataclass(frozen=True)
class StudyResult:
    """What a search found: its trials by number, the best one (None where none was completed), and
    the recipe that it leads to."""

    folder: Path
    objectives: list[tuple[str, str]]
    trials: list[TrialRecord]
    best: TrialRecord | None
    recipe: Path | None
    executor: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        states = [record.state for record in self.trials]
        return {
            "study": str(self.folder),
            "objectives": [
                {"metric": metric, "direction": direction} for metric, direction in self.objectives
            ],
            "executor": self.executor,
            "states": {
                state: states.count(state) for state in ("complete", "pruned", "failed", "running")
            },
            "best": None if self.best is None else self.best.as_dict(),
            "recipe": None if self.recipe is None else str(self.recipe),
            "trials": [record.as_dict() for record in self.trials],
        }


def tune(
    recipe: Recipe | str | Path | Mapping[str, Any],
    study: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    output: Any = "quiet",
    plots: bool | None = False,
) -> StudyResult:
    """Run the search that a recipe's section tune describes, in the folder `study` (default
    studies/<recipe name>).

    The same call continues a study that was cut off, and gives the result of one that is complete.
    A trial that fails is marked with its cause and the study goes on. best.yaml in the folder is
    kept up to date; at the end come trials.csv, trials.parquet and report.html, and with `plots`
    (None: where matplotlib is installed) PNGs. `output`: "display", "lines", "quiet" or "json".
    Raises DanluError: a wrong recipe or data, the folder of another study, Interrupted (everything
    saved).

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> recipe["tune"] = {"space": {"optimizer.learning_rate": [0.01, 0.1]}, "sampler": "random",
    ...                   "trials": 2, "on": "one_by_one"}
    >>> study = danlu.tune(recipe, "studies/iris")
    >>> [trial.state for trial in study.trials]
    ['complete', 'complete']
    """
    if not isinstance(recipe, Recipe):
        recipe = recipes.read(recipe, registry, overrides)
    elif overrides:
        recipe = recipes.with_changes(recipe, registry, overrides)
    folder = Path(study) if study is not None else Path("studies") / recipe.name
    with Interruption() as interruption, keep_in_memory(), Study(recipe, folder) as opened:
        executor, why = _choose_executor(opened)
        with _optional_report():
            note_study(opened, executor)
        with Progress(opened, f"{executor.replace('_', ' ')} ({why})", output) as progress:
            try:
                setting = SearchContext(
                    opened.tune, interruption, opened.plan, output, progress.tell
                )
                importlib.import_module(f"danlu.search.executors.{executor}").run(opened, setting)
            except KeyboardInterrupt:
                raise Interrupted(
                    f"{interruption.name or 'interrupted'}: the study is saved.",
                    exit_code=interruption.exit_code or 130,
                    hint="run the same command again: it goes on from there",
                ) from None
            finally:
                opened.write_best()
        with _optional_report():
            report(folder, storage=opened.tune.storage, plots=plots)
        return StudyResult(
            folder, opened.objectives, opened.trials(), opened.best(), opened.write_best(), executor
        )


@contextlib.contextmanager
def _optional_report() -> Iterator[None]:
    """What is written for readers alone: a full disk there must not take the result of a search
    with it."""
    try:
        yield
    except (DanluError, OSError) as error:
        if isinstance(error, Interrupted):
            raise
        print(
            f"warning: the report of the study was not written: {error}",
            file=sys.stderr,
            flush=True,
        )


def _choose_executor(study: Study) -> tuple[str, str]:
    """(how trials are run, why): as the recipe says, else as was decided when the study began."""
    name, why = (
        (study.tune.on, "as asked")
        if study.tune.on != "auto"
        else study.decide("executor", lambda: _measured_choice(study))
    )
    pruner = study.tune.pruner
    if (
        pruner is not None
        and getattr(registry.facts("pruners", pruner.name), "EXPLOITS", False)
        and name != "vectorised"
    ):
        raise RunError(
            f"tune.pruner {pruner.name} runs where many trials are one program, and these run {name.replace('_', ' ')}.",
            hint="set tune.on to vectorised, or choose another pruner",
        )
    return name, why


def _measured_choice(study: Study) -> list[str]:
    """[how trials are run, why], by what danlu.search.executors.vectorised measures."""
    if importlib.util.find_spec("danlu.search.executors.vectorised") is None:
        return ["one_by_one", "the only way there is"]
    chosen = importlib.import_module("danlu.search.executors.vectorised").choose(study)
    return [chosen, "by rule"] if isinstance(chosen, str) else [str(word) for word in chosen]
