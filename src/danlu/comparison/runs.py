"""The trainings of a comparison: run as planned, many as one program where that is faster.

Each result is stored as soon as it exists. A training is a function of its recipe alone, and the
plan decides which trainings share a program, not what is missing. So a comparison that was killed
is resumed and ends as one without a kill.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from danlu import recipe as recipes
from danlu import registry
from danlu.comparison.contestants import LEARNING_RATE, Contestant
from danlu.errors import RunError, nearest
from danlu.recipe import Part, Recipe
from danlu.search.executors.failure import describe_failure
from danlu.system.atomic_files import read_checked_json, replace_file, with_checksum
from danlu.system.own_folder import make_subfolder
from danlu.training.evaluation import Evaluator, deciding_score, without_nonfinite
from danlu.training.loop import train
from danlu.training.population import (
    Decision,
    TrialEvaluation,
    measure_throughput,
    reason_not_stackable,
    stack_key,
    train_population,
)
from danlu.training.setup import build_training
from danlu.training.step import NonFiniteError

MIN_EVALUATIONS = 20  # the points of a curve, where the recipe does not set evaluate_every
_PROBES, _PROBE_SECONDS = 5, 0.5
# That a separate training takes beside its updates: for its folder, checkpoints and artifact.
_SETUP_SECONDS = 0.2
RunMode = Literal["auto", "vectorised", "one_by_one"]


@dataclass(frozen=True)
class ContestantFacts:
    """What is measured of a contestant before it is trained.

    `metric` and `better` say what is compared; `deciding` and `decides` are the score, and its
    direction, by which a training chooses its best weights. `seconds` is the time of one update of
    a separate training; `data` is the digest of its data.
    """

    metric: str
    better: str
    deciding: str
    decides: str
    total_steps: int
    evaluate_every: int
    parameters: int
    precision: str
    seconds: float
    data: str


@dataclass(frozen=True)
class Training:
    """One training: the index of its contestant, a learning rate, a seed."""

    contestant: int
    rate: float
    seed: int


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training. `score` is the validation score of its released weights; None where
    it failed, and then `cause` says why. `curve` has the validation scores as (step, score),
    `losses` the training losses as (step, loss)."""

    training: Training
    score: float | None
    cause: str
    curve: list[tuple[int, float]]
    losses: list[tuple[int, float]]

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> TrainingResult:
        """The result that `as_dict` wrote."""
        curve, losses = (
            [(int(step), float(value)) for step, value in stored[name]]
            for name in ("curve", "losses")
        )
        return cls(Training(**stored["training"]), stored["score"], stored["cause"], curve, losses)


def measure_contestant(contestant: Contestant, metric: str | None = None) -> ContestantFacts:
    """The facts of a contestant, by building it once and timing a few updates. `metric` is the
    score compared (None: the deciding one).

    Raises DanluError where it cannot be trained, or does not measure that score.
    """
    setup = build_training(
        recipes.with_changes(contestant.recipe, registry, {LEARNING_RATE: 0.0})
    )  # nothing moves while it is timed
    if not setup.plan.evaluate_every:
        raise RunError(
            "a comparison needs a validation split, and it has no row.",
            hint="give data.split a share for validation",
        )
    every_in_recipe = contestant.recipe.train.evaluate_every
    every = every_in_recipe or min(
        setup.plan.evaluate_every, max(1, setup.plan.total_steps // MIN_EVALUATIONS)
    )
    evaluator = setup.evaluator
    compared, better = (
        _metric_and_direction(contestant, evaluator, metric)
        if metric
        else (evaluator.metric, evaluator.better)
    )
    return ContestantFacts(
        metric=compared,
        better=better,
        deciding=evaluator.metric,
        decides=evaluator.better,
        total_steps=setup.plan.total_steps,
        evaluate_every=every,
        parameters=setup.trainable,
        precision=setup.placement.precision,
        seconds=_seconds_per_update(setup.update),
        data=setup.data.digest,
    )


def _seconds_per_update(update: Callable[[int], None]) -> float:
    """The median time of a few updates, without the first."""
    seconds: list[float] = []
    while len(seconds) < _PROBES + 1 or (sum(seconds) < _PROBE_SECONDS and len(seconds) < 50):
        started_at = time.perf_counter()
        try:
            update(len(seconds))
        except NonFiniteError:  # its trainings will say so
            break
        seconds.append(time.perf_counter() - started_at)
    return statistics.median(seconds[1:]) if len(seconds) > 1 else 0.0


def _metric_and_direction(
    contestant: Contestant, evaluator: Evaluator, metric: str
) -> tuple[str, str]:
    """(metric, "higher" | "lower") of a score that the caller names."""
    labels = {
        label: part.name for (label, _), part in zip(evaluator.metrics, contestant.recipe.metrics)
    }
    if metric not in (*labels, "loss"):
        near = nearest(metric, [*labels, "loss"])
        raise RunError(
            f"{contestant.name} does not measure {metric}; what is measured is "
            f"{', '.join([*labels, 'loss'])}.",
            hint=f"did you mean {near[0]}?" if near else "add it to metrics",
        )
    return metric, "lower" if metric == "loss" else registry.metric_facts(labels[metric]).better


class TrainingRunner:
    """Runs trainings and stores their results in `folder`."""

    def __init__(
        self,
        folder: Path,
        contestants: Sequence[Contestant],
        facts: Sequence[ContestantFacts],
        on: RunMode,
        say: Callable[[str], None],
    ) -> None:
        self.folder, self.contestants, self.facts, self.on, self.say = (
            folder,
            contestants,
            facts,
            on,
            say,
        )

    def run(self, stage: str, trainings: Sequence[Training]) -> list[TrainingResult]:
        """The results of all trainings, in their order; stored ones are read."""
        results: dict[Training, TrainingResult] = {}
        stacks = self._stacks(trainings)
        for number, stack in enumerate(stacks):
            path = self.folder / "results" / f"{stage}-{number:03d}.json"
            for result in self._read_results(path, stack) or self._train_and_store(
                path, stack, f"{stage}: {number + 1} of {len(stacks)}"
            ):
                results[result.training] = result
            for training in stack:
                # only now: a folder half deleted would pass for a training without a curve
                shutil.rmtree(self._run_folder(training), ignore_errors=True)
        return [results[training] for training in trainings]

    def _run_folder(self, training: Training) -> Path:
        name = f"{training.contestant + 1}-{training.rate:g}-{training.seed}"
        return self.folder / "runs" / name

    def recipe(self, training: Training) -> Recipe:
        """The contestant's recipe with the learning rate and seed of a training."""
        facts, recipe = (
            self.facts[training.contestant],
            self.contestants[training.contestant].recipe,
        )
        changes = {
            "train.seed": training.seed,
            "train.evaluate_every": facts.evaluate_every,
            "train.precision": facts.precision,
        }
        if self.contestants[training.contestant].searched:
            changes[LEARNING_RATE] = training.rate
        watchers = [
            Part(name, registry.config("watchers", name)()) for name in ("jsonl", "divergence")
        ]
        return replace(recipes.with_changes(recipe, registry, changes), watchers=tuple(watchers))

    # --- one program of many

    def _stacks(self, trainings: Sequence[Training]) -> list[list[Training]]:
        """Trainings that run as one program: of one architecture and one seed, which determines
        data and order for all of them."""
        same_program: dict[tuple[str, int], list[Training]] = {}
        for training in trainings:
            key = "" if self.on == "one_by_one" else stack_key(self.recipe(training))
            same_program.setdefault((key, training.seed), []).append(training)
        stacks = []
        for (key, _), members in same_program.items():
            size = 1 if self.on == "one_by_one" else self._size(key, members)
            stacks += [members[first : first + size] for first in range(0, len(members), size)]
        return stacks

    def _size(self, key: str, members: Sequence[Training]) -> int:
        """How many trainings of one architecture run at a time; measured once, then stored."""
        path = self.folder / "sizes.json"
        sizes = read_checked_json(path) if path.is_file() else {}
        if key not in sizes:
            sizes[key] = self._measure_size(members)
            replace_file(path, with_checksum(sizes))
        return int(sizes[key])

    def _measure_size(self, members: Sequence[Training]) -> int:
        trial_recipes = [self.recipe(member) for member in members]
        reason = next((why for why in map(reason_not_stackable, trial_recipes) if why), "")
        if not reason and len(trial_recipes) > 1:
            throughput = measure_throughput(trial_recipes, most=len(trial_recipes))
            reason = throughput.reason
            if throughput.curve:
                size, _, stacked = min(throughput.curve, key=lambda point: point[2])
                steps = self.facts[members[0].contestant].total_steps
                if (
                    self.on == "vectorised"
                    or steps * stacked < steps * throughput.alone + _SETUP_SECONDS
                ):
                    why = (
                        reason
                        if stacked < throughput.alone
                        else "starting each one separately would take longer"
                    )
                    self.say(f"up to {size} trainings as one program: {why}")
                    return size
        if self.on == "vectorised":
            raise RunError(
                f"these trainings cannot be one program: {reason or 'there is only one'}.",
                hint="--on one_by_one",
            )
        self.say(f"trainings one by one{': ' + reason if reason else ''}")
        return 1

    # --- results

    def _read_results(self, path: Path, stack: Sequence[Training]) -> list[TrainingResult]:
        """The stored results of exactly these trainings; [] where there are none."""
        try:
            stored = read_checked_json(path)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise RunError(
                f"a stored result cannot be used: {error}.",
                where=str(path),
                hint="remove this file; its trainings run again",
            ) from None
        results = [TrainingResult.from_dict(entry) for entry in stored["results"]]
        return results if [result.training for result in results] == list(stack) else []

    def _train_and_store(
        self, path: Path, stack: Sequence[Training], progress: str
    ) -> list[TrainingResult]:
        started_at = time.perf_counter()
        results = [self._train_alone(stack[0])] if len(stack) == 1 else self._train_stacked(stack)
        make_subfolder(path.parent)
        replace_file(
            path,
            with_checksum(
                {"results": [json.loads(json.dumps(result.as_dict())) for result in results]}
            ),
        )
        names = {self.contestants[training.contestant].name for training in stack}
        who = names.pop() if len(names) == 1 else f"{len(stack)} trainings"
        scores = [result.score for result in results if result.score is not None]
        sign = 1 if self.facts[0].better == "higher" else -1
        best = (
            f"best {self.facts[0].metric} {sign * max(sign * score for score in scores):.4g}"
            if scores
            else "no training has a score"
        )
        self.say(f"{progress}  {who}: {best}  ({time.perf_counter() - started_at:.1f} s)")
        return results

    def _train_stacked(self, stack: Sequence[Training]) -> list[TrainingResult]:
        scores_by_step: list[list[tuple[int, Any]]] = [[] for _ in stack]

        def hear(events: list[TrialEvaluation]) -> Decision:
            for event in events:
                scores_by_step[event.number].append(
                    (event.step, without_nonfinite(dict(event.scores)))
                )
            return Decision()

        outcomes = train_population([self.recipe(training) for training in stack], hear)
        return [
            self._result(
                training, outcome.cause if outcome.state == "failed" else "", scores, outcome.losses
            )
            for training, outcome, scores in zip(stack, outcomes, scores_by_step)
        ]

    def _train_alone(self, training: Training) -> TrainingResult:
        """Train as `danlu train` does, resuming what a killed process left, in a folder that `run`
        deletes once the result is stored."""
        recipe = self.recipe(training)
        folder = self._run_folder(training)
        cause = ""
        try:
            train(recipe, folder)
        except Exception as error:
            failure = describe_failure(error)
            if failure.kind in ("interrupted", "disk", "held"):
                raise
            cause = failure.message
        entries = _read_log(folder / "metrics.jsonl")
        scores = [(entry["step"], entry) for entry in entries if entry["split"] == "validation"]
        losses = [
            (entry["step"], entry.get("loss")) for entry in entries if entry["split"] == "train"
        ]
        return self._result(training, cause, scores, losses)

    def _result(
        self,
        training: Training,
        cause: str,
        evaluations: Sequence[tuple[int, Any]],
        losses: Sequence[tuple[int, Any]],
    ) -> TrainingResult:
        """The result of a training from its `evaluations`: (step, score by name)."""
        facts, recipe = (
            self.facts[training.contestant],
            self.contestants[training.contestant].recipe,
        )
        curve = [
            (
                int(step),
                deciding_score(scores, facts.metric),
                deciding_score(scores, facts.deciding),
            )
            for step, scores in evaluations
        ]
        score = None if cause or not curve else curve[-1][1]
        deciding = [
            (1 if facts.decides == "higher" else -1) * decisive
            for _, _, decisive in curve
            if decisive is not None
        ]
        if score is not None and deciding and recipe.regularization.restore_best:
            sign = 1 if facts.decides == "higher" else -1
            score = next(
                value
                for _, value, decisive in curve
                if decisive is not None and sign * decisive == max(deciding)
            )
        points = [(step, float(value)) for step, value, _ in curve if value is not None]
        return TrainingResult(
            training,
            score,
            cause,
            points,
            [(int(step), float(value)) for step, value in losses if value is not None],
        )


def _read_log(path: Path) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        if path.is_file()
        else []
    )
