"""Search a recipe's options: many trainings, with the values that a sampler suggests."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from danlu import recipe as recipes
from danlu import registry
from danlu.data.dataset import keep_in_memory
from danlu.errors import DanluError, Interrupted, RunError
from danlu.recipe import Recipe
from danlu.search.context import Executor, SearchContext
from danlu.search.progress import Progress
from danlu.search.pruners._base import PrunerFacts
from danlu.search.report import note_study, report
from danlu.search.study import Study, TrialRecord
from danlu.system.signals import Interruption
from danlu.system.standard_streams import print_line
from danlu.training.loop import Output


@dataclass(frozen=True)
class StudyResult:
    """The result of a search: its trials by number, the best one (None where no trial is complete),
    the file of the best recipe, and how trials were run."""

    folder: Path
    objectives: list[tuple[str, str]]
    trials: list[TrialRecord]
    best: TrialRecord | None
    recipe: Path | None
    executor: str

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
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
    output: Output = "quiet",
    plots: bool | None = False,
) -> StudyResult:
    """Run the search that a recipe's section tune describes, in the folder `study` (default
    studies/<recipe name>).

    The same call resumes a study that was interrupted, and returns the result of a finished one. A
    failing trial is stored with its cause, and the study goes on. FOLDER/best.yaml is kept up to
    date; at the end come trials.csv, trials.parquet and report.html, and with `plots` PNG files
    (None: where matplotlib is installed). `output` is "display", "lines", "quiet" or "json".

    Raises DanluError for a wrong recipe, wrong data, or the folder of another study; Interrupted
    after a signal, with everything saved.

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
        recipe = recipes.read(recipe, registry, overrides, study)
    elif overrides:
        recipe = recipes.with_changes(recipe, registry, overrides)
    folder = Path(study) if study is not None else Path("studies") / recipe.name
    with Interruption() as interruption, keep_in_memory(), Study(recipe, folder) as opened:

        def is_interrupted() -> bool:
            return interruption.exit_code != 0

        opened.storage.is_interrupted = is_interrupted
        executor, why = _choose_executor(opened)
        with _optional_report():
            note_study(opened, executor)
        with Progress(opened, f"{executor.replace('_', ' ')} ({why})", output) as progress:
            try:
                context = SearchContext(
                    opened.tune, interruption, opened.plan, output, progress.tell
                )

                def show(sentence: str) -> None:
                    context.notify(message=sentence)

                run = _import_executor(executor).run
                run(opened, context)
                # What another process began is a part of the study: its end is waited for, and
                # what it lost is done here.
                while opened.wait_for_others(is_interrupted, show):
                    run(opened, context)
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
    """Only warn where the report cannot be written: a full disk must not lose the result of a
    search."""
    try:
        yield
    except (DanluError, OSError) as error:
        if isinstance(error, Interrupted):
            raise
        print_line(f"warning: the report of the study was not written: {error}")


def _import_executor(name: str) -> Executor:
    """The module of an executor."""
    return importlib.import_module(f"danlu.search.executors.{name}")  # type: ignore[return-value]


def _choose_executor(study: Study) -> tuple[str, str]:
    """(the executor's name, why): from the recipe, else as it was decided when the study began.
    Raises RunError for a pruner that this executor cannot apply."""
    name, why = (
        (study.tune.on, "as asked")
        if study.tune.on != "auto"
        else study.decide("executor", lambda: _measured_choice(study))
    )
    pruner = study.tune.pruner
    if (
        pruner is not None
        and name != "vectorised"
        and registry.read_facts(PrunerFacts, "pruners", pruner.name).exploits
    ):
        raise RunError(
            f"tune.pruner {pruner.name} runs where many trials are one program, and these run "
            f"{name.replace('_', ' ')}.",
            hint="set tune.on to vectorised, or choose another pruner",
        )
    return name, why


def _measured_choice(study: Study) -> list[str]:
    """[the executor's name, why], by what danlu.search.executors.vectorised measures."""
    from danlu.search.executors.vectorised import choose

    return [choose(study), "by rule"]
