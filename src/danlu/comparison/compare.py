"""Compare contestants: search each one's learning rate, train it with several seeds, rank them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from danlu.comparison.charts import write_files
from danlu.comparison.contestants import (
    Among,
    Contestant,
    Overrides,
    RecipeSource,
    contestants,
)
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
# what a comparison writes
NAMES = (_QUESTION_FILE, "sizes.json", "results", "runs", "comparison.*", "curves.*", "*.svg")


def compare(
    recipes: RecipeSource | Sequence[RecipeSource],
    among: Among | None = None,
    overrides: Overrides = (),
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
    """Train every contestant at its own learning rate over several seeds; the Comparison, with its
    files in the folder `run`.

    `recipes` is a recipe (a Recipe, a file, a dict) or a list of them; `among` maps dotted names to
    the values compared, as {"optimizer": ["sgd", "adam"]}. For each contestant, `rates` trainings
    with the recipe's seed search the learning rate, by the deciding validation score (1: the
    contestant's own rate). Then `seeds` trainings with the seeds that follow are compared; a seed
    determines the split, the weights and the order of rows. `metric` is the score compared (None:
    the deciding one); `target` is its value up to which steps and seconds are counted (None: the
    best score of the weakest contestant). The same call resumes a comparison that was killed.
    Raises DanluError.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> comparison = danlu.compare(recipe, {"optimizer": ["sgd", "adam"]}, run="runs/sgd-or-adam",
    ...                            rates=1, seeds=2, on="one_by_one")
    >>> sorted(standing.name for standing in comparison.standings)
    ['adam', 'sgd']
    """
    sources: Sequence[RecipeSource] = recipes if isinstance(recipes, list | tuple) else [recipes]  # type: ignore[list-item]
    entrants = contestants(sources, among or {}, overrides)
    home = Path(run) if run is not None else Path("runs") / f"compare-{entrants[0].recipe.name}"
    try:
        with (
            Interruption(),
            keep_in_memory(),
            RunFolder(home, NAMES),
            disk_errors_as(home, RunError),
        ):
            facts = _begin(
                home, entrants, {"rates": rates, "seeds": seeds, "on": on, "metric": metric}
            )
            return _Stages(TrainingRunner(home, entrants, facts, on, say), rates, seeds).run(
                target, confidence
            )
    except (KeyboardInterrupt, Interrupted) as error:
        code = error.exit_code if isinstance(error, Interrupted) else 130
        raise Interrupted(
            "stopped; every training that ended is kept.",
            exit_code=code,
            hint="run the same command again: it goes on from there",
        ) from None


def _begin(
    folder: Path, entrants: Sequence[Contestant], settings: dict[str, Any]
) -> list[ContestantFacts]:
    """The facts of the contestants: measured when the comparison begins, read when it is resumed.
    Raises RunError for the folder of another comparison, or changed data."""
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
    """The options of a recipe that change a number."""
    return {
        name: value for name, value in recipe.as_dict().items() if name not in ("name", "watchers")
    }


def _check_same_metric(entrants: Sequence[Contestant], facts: Sequence[ContestantFacts]) -> None:
    for contestant, fact in zip(entrants, facts):
        if (fact.metric, fact.better) != (facts[0].metric, facts[0].better):
            raise RunError(
                f"{entrants[0].name} is judged by {facts[0].metric} and {contestant.name} by "
                f"{fact.metric}, so they cannot be compared.",
                hint="give them the same task and metrics",
            )


class _Stages:
    """The stages of a comparison: a wide grid of learning rates, a closer one, then the seeds."""

    def __init__(self, trainings: TrainingRunner, rates: int, seeds: int) -> None:
        self.trainings, self.rates, self.seeds = trainings, rates, seeds
        self.contestants, self.facts = trainings.contestants, trainings.facts
        self.sign = 1.0 if self.facts[0].better == "higher" else -1.0
        self.results: list[TrainingResult] = []

    def run(self, target: float | None, confidence: float) -> Comparison:
        """Run all stages, write the files, and return the result."""
        own_rates = [
            learning_rate_of(contestant.recipe.optimizer.options) for contestant in self.contestants
        ]
        tried: list[list[tuple[float, float | None]]] = [[] for _ in self.contestants]
        if self.rates > 1:
            self._search(
                "learning rates", [first_rates(rate, self.rates) for rate in own_rates], tried
            )
            self._search(
                "closer learning rates",
                [second_rates(points, self.rates, self.sign) for points in tried],
                tried,
            )
        rates = [best_rate(points, self.sign) or rate for points, rate in zip(tried, own_rates)]
        first = [contestant.recipe.train.seed for contestant in self.contestants]
        trainings = [
            Training(index, rates[index], first[index] + 1 + number)
            for number in range(self.seeds)
            for index in range(len(self.contestants))
        ]
        results = self._run("seeds", trainings)
        finals = [
            [result for result in results if result.training.contestant == index]
            for index in range(len(self.contestants))
        ]
        names = [contestant.name for contestant in self.contestants]
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
        trainings = [
            Training(index, rate, contestant.recipe.train.seed)
            for index, contestant in enumerate(self.contestants)
            if contestant.searched
            for rate in rates[index]
        ]
        for result in self._run(stage, trainings):
            tried[result.training.contestant].append((result.training.rate, result.score))

    def _run(self, stage: str, trainings: Sequence[Training]) -> list[TrainingResult]:
        results = self.trainings.run(stage.replace(" ", "-"), trainings)
        self.results += results
        return results
