"""The verb: contestants in, a table out. Each contestant gets the same number of trainings to find its learning rate."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from danlu.comparison.charts import write_files
from danlu.comparison.contestants import Among, Contestant, contestants
from danlu.comparison.learning_rates import best_rate, first_rates, second_rates
from danlu.comparison.runs import (
    ContestantFacts,
    RunMode,
    Training,
    TrainingResult,
    TrainingRunner,
    measure_contestant,
)
from danlu.comparison.statistics import Comparison, summarize
from danlu.data.dataset import keep_in_memory, prepare
from danlu.errors import Interrupted, RunError
from danlu.parts.optimizers._base import learning_rate_of
from danlu.recipe import Recipe, differences
from danlu.system.atomic_files import read_checked_json, replace_file, with_checksum
from danlu.system.signals import Interruption
from danlu.training.run_folder import RunFolder, disk_errors_as

_QUESTION_FILE = "question.json"


def compare(
    recipes: Any,
    among: Among | None = None,
    overrides: Any = (),
    *,
    run: str | Path | None = None,
    rates: int = 7,
    seeds: int = 5,
    metric: str | None = None,
    target: float | None = None,
    confidence: float = 0.95,
    on: RunMode = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Train every contestant at its own learning rate over several seeds; the Comparison, whose
    files lie in `run`.

    `recipes` is a recipe (a Recipe, a file, a dict) or a list of them, `among` maps dotted names to
    the values compared, as {"optimizer": ["sgd", "adam"]}. Of each contestant `rates` trainings
    with the recipe's seed look for the learning rate, by the deciding score of the validation split
    (1: the contestant's own rate); then `seeds` trainings with the seeds that follow, which draw
    split, weights and order of rows, are what is compared. `metric` is the score compared (None:
    the deciding one), `target` the value of it that steps and seconds are counted to (None: what
    the weakest comes to). The same call goes on after a kill. Raises DanluError."""
    sources = recipes if isinstance(recipes, list | tuple) else [recipes]
    entrants = contestants(sources, among or {}, overrides)
    home = Path(run) if run is not None else Path("runs") / f"compare-{entrants[0].recipe.name}"
    try:
        with Interruption(), keep_in_memory(), RunFolder(home), disk_errors_as(home, RunError):
            facts = _begin(
                home, entrants, {"rates": rates, "seeds": seeds, "on": on, "metric": metric}
            )
            return _Stages(TrainingRunner(home, entrants, facts, on, say), rates, seeds).run(
                target, confidence
            )
    except (KeyboardInterrupt, Interrupted) as error:
        code = getattr(error, "exit_code", 130)
        raise Interrupted(
            "stopped; every training that ended is kept.",
            exit_code=code,
            hint="run the same command again: it goes on from there",
        ) from None


def _begin(
    folder: Path, entrants: Sequence[Contestant], settings: dict[str, Any]
) -> list[ContestantFacts]:
    """What is known of the contestants: found when the comparison began, read when it goes on."""
    question = {
        **settings,
        "contestants": {
            contestant_or_fact.name: _relevant_options(contestant_or_fact.recipe)
            for contestant_or_fact in entrants
        },
    }
    path = folder / _QUESTION_FILE
    if not path.is_file():
        facts = [
            measure_contestant(contestant_or_fact, settings["metric"])
            for contestant_or_fact in entrants
        ]
        _check_same_metric(entrants, facts)
        replace_file(
            path,
            with_checksum(
                {
                    "question": question,
                    "facts": [asdict(contestant_or_fact) for contestant_or_fact in facts],
                }
            ),
        )
        return facts
    try:
        stored = read_checked_json(path)
    except (OSError, ValueError) as error:
        raise RunError(
            f"what was asked cannot be read: {error}.",
            where=str(path),
            hint="choose another --run folder",
        ) from None
    changed = differences(stored["question"], json.loads(json.dumps(question)))
    if changed:
        shown = "\n  ".join(changed[:10])
        raise RunError(
            f"this folder belongs to another comparison. What differs (folder -> now):\n  {shown}",
            where=str(folder),
            hint="choose another --run folder, or remove this one to start over",
        )
    facts = [ContestantFacts(**contestant_or_fact) for contestant_or_fact in stored["facts"]]
    for contestant, fact in zip(entrants, facts):
        if prepare(contestant.recipe).digest != fact.data:
            raise RunError(
                f"the data of {contestant.name} has changed since this comparison began.",
                where=str(folder),
                hint="choose another --run folder, or put the data back",
            )
    return facts


def _relevant_options(recipe: Recipe) -> dict[str, Any]:
    """A recipe without what changes no number."""
    return {
        name: value for name, value in recipe.as_dict().items() if name not in ("name", "watchers")
    }


def _check_same_metric(entrants: Sequence[Contestant], facts: Sequence[ContestantFacts]) -> None:
    for contestant, fact in zip(entrants, facts):
        if (fact.metric, fact.better) != (facts[0].metric, facts[0].better):
            raise RunError(
                f"{entrants[0].name} is judged by {facts[0].metric} and {contestant.name} by {fact.metric}, so they cannot be compared.",
                hint="give them the same task and metrics",
            )


class _Stages:
    """The stages: a net of learning rates, closer ones, then the seeds."""

    def __init__(self, trainings: TrainingRunner, rates: int, seeds: int) -> None:
        self.trainings, self.rates, self.seeds = trainings, rates, seeds
        self.contestants, self.facts = trainings.contestants, trainings.facts
        self.sign = 1.0 if self.facts[0].better == "higher" else -1.0
        self.results: list[TrainingResult] = []

    def run(self, target: float | None, confidence: float) -> Comparison:
        """All of it."""
        own = [learning_rate_of(each.recipe.optimizer.options) for each in self.contestants]
        tried: list[list[tuple[float, float | None]]] = [[] for _ in self.contestants]
        if self.rates > 1:
            self._search("learning rates", [first_rates(rate, self.rates) for rate in own], tried)
            self._search(
                "closer learning rates",
                [second_rates(each, self.rates, self.sign) for each in tried],
                tried,
            )
        rates = [best_rate(each, self.sign) or rate for each, rate in zip(tried, own)]
        first = [each.recipe.train.seed for each in self.contestants]
        wanted = [
            Training(index, rates[index], first[index] + 1 + number)
            for number in range(self.seeds)
            for index in range(len(self.contestants))
        ]
        results = self._run("seeds", wanted)
        finals = [
            [each for each in results if each.training.contestant == index]
            for index in range(len(self.contestants))
        ]
        names = [each.name for each in self.contestants]
        comparison = summarize(
            names, self.facts, tried, rates, finals, confidence, target, self.trainings.folder
        )
        write_files(comparison, self.results, names)
        return comparison

    def _search(
        self,
        stage: str,
        rates: Sequence[Sequence[float]],
        tried: list[list[tuple[float, float | None]]],
    ) -> None:
        wanted = [
            Training(index, rate, contestant.recipe.train.seed)
            for index, contestant in enumerate(self.contestants)
            if contestant.searched
            for rate in rates[index]
        ]
        for result in self._run(stage, wanted):
            tried[result.training.contestant].append((result.training.rate, result.score))

    def _run(self, stage: str, wanted: Sequence[Training]) -> list[TrainingResult]:
        results = self.trainings.run(stage.replace(" ", "-"), wanted)
        self.results += results
        return results
