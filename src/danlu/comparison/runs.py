"""Trainings of a comparison: run in the order planned, many as one program where that pays, each result kept as soon as it is there.

A training is a function of its recipe alone, and trainings that share a program are decided by the
plan, not by what is still missing. So a comparison that was killed goes on where it was and ends as
one never killed."""

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
from danlu.comparison.contestants import RATE, Contestant
from danlu.errors import RunError, nearest
from danlu.recipe import Part, Recipe
from danlu.search.executors.failure import cause_of
from danlu.system.atomic_files import read_checked_json, replace_file, with_checksum
from danlu.training.evaluation import Evaluator, deciding_score, without_nonfinite
from danlu.training.loop import train
from danlu.training.population import (
    Decision,
    Event,
    measure_pace,
    shape_key,
    train_population,
    why_not,
)
from danlu.training.setup import build_training
from danlu.training.step import NotFinite

EVALUATIONS = (
    20  # of a training at least, where the recipe does not say how often: they are the curve
)
_PROBES, _PROBE_SECONDS = 5, 0.5
_SET_UP = 0.2  # seconds that a training by itself takes beside its updates: its folder, its checkpoints, its artifact
On = Literal["auto", "vectorised", "one_by_one"]


@dataclass(frozen=True)
class Facts:
    """What is known of a contestant before it is trained.

    `metric` and `better` are what is compared, `deciding` and `decides` the score by which a
    training chooses what it releases; `seconds` are of one update by itself; `precision` and
    `evaluate_every` are decided once."""

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
    """One training: a contestant (its place), a learning rate, a seed."""

    contestant: int
    rate: float
    seed: int


@dataclass(frozen=True)
class Result:
    """What a training came to: `score` is the validation score of what it releases, None where it
    failed, with its cause; `curve` holds the validation scores by step, `losses` the training
    losses."""

    training: Training
    score: float | None
    cause: str
    curve: list[tuple[int, float]]
    losses: list[tuple[int, float]]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def of(cls, told: dict[str, Any]) -> Result:
        """The result that `as_dict` told."""
        curve, losses = (
            [(int(step), float(value)) for step, value in told[name]]
            for name in ("curve", "losses")
        )
        return cls(Training(**told["training"]), told["score"], told["cause"], curve, losses)


def look(contestant: Contestant, metric: str | None = None) -> Facts:
    """The Facts of a contestant, by building it once and timing a few updates; `metric` is what is
    compared (None: the deciding score).

    Raises DanluError where it cannot be trained, or does not measure that.
    """
    built = build_training(
        recipes.with_changes(contestant.recipe, registry, {RATE: 0.0})
    )  # nothing moves while it is timed
    if not built.plan.evaluate_every:
        raise RunError(
            "a comparison needs a validation split, and it has no row.",
            hint="give data.split a share for validation",
        )
    asked = contestant.recipe.train.evaluate_every
    every = asked or min(built.plan.evaluate_every, max(1, built.plan.total_steps // EVALUATIONS))
    evaluator = built.evaluator
    compared, better = (
        _compared(contestant, evaluator, metric) if metric else (evaluator.metric, evaluator.better)
    )
    return Facts(
        compared, better, evaluator.metric, evaluator.better, built.plan.total_steps, every, built.trainable,
        built.placement.precision, _seconds(built.update), built.data.digest,
    )  # fmt: skip


def _seconds(update: Callable[[int], None]) -> float:
    """Of one update: the median of a few, the first left out."""
    took: list[float] = []
    while len(took) < _PROBES + 1 or (sum(took) < _PROBE_SECONDS and len(took) < 50):
        began = time.perf_counter()
        try:
            update(len(took))
        except NotFinite:  # its trainings will say so
            break
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:]) if len(took) > 1 else 0.0


def _compared(contestant: Contestant, evaluator: Evaluator, metric: str) -> tuple[str, str]:
    """(metric, which is better) of a score asked for by name."""
    labels = {
        label: part.name for (label, _), part in zip(evaluator.metrics, contestant.recipe.metrics)
    }
    if metric not in (*labels, "loss"):
        near = nearest(metric, [*labels, "loss"])
        raise RunError(
            f"{contestant.name} does not measure {metric}; what is measured is {', '.join([*labels, 'loss'])}.",
            hint=f"did you mean {near[0]}?" if near else "add it to metrics",
        )
    return metric, "lower" if metric == "loss" else registry.facts("metrics", labels[metric]).BETTER


class Trainings:
    """Runs trainings and remembers them in `folder`."""

    def __init__(
        self,
        folder: Path,
        contestants: Sequence[Contestant],
        facts: Sequence[Facts],
        on: On,
        say: Callable[[str], None],
    ) -> None:
        self.folder, self.contestants, self.facts, self.on, self.say = (
            folder,
            contestants,
            facts,
            on,
            say,
        )

    def run(self, stage: str, wanted: Sequence[Training]) -> list[Result]:
        """The results of all wanted, in their order; those that are there already are read."""
        found: dict[Training, Result] = {}
        stacks = self._stacks(wanted)
        for number, stack in enumerate(stacks):
            path = self.folder / "results" / f"{stage}-{number:03d}.json"
            for result in self._kept(path, stack) or self._made(
                path, stack, f"{stage}: {number + 1} of {len(stacks)}"
            ):
                found[result.training] = result
        return [found[each] for each in wanted]

    def recipe(self, training: Training) -> Recipe:
        """The contestant's recipe with this rate and seed."""
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
            changes[RATE] = training.rate
        watchers = [
            Part(name, registry.config("watchers", name)()) for name in ("jsonl", "divergence")
        ]
        return replace(recipes.with_changes(recipe, registry, changes), watchers=tuple(watchers))

    # --- one program of many

    def _stacks(self, wanted: Sequence[Training]) -> list[list[Training]]:
        """Trainings that are one program: of one shape and one seed, which draws data and order for
        all of them."""
        alike: dict[tuple[str, int], list[Training]] = {}
        for each in wanted:
            key = "" if self.on == "one_by_one" else shape_key(self.recipe(each))
            alike.setdefault((key, each.seed), []).append(each)
        stacks = []
        for (key, _), members in alike.items():
            size = 1 if self.on == "one_by_one" else self._size(key, members)
            stacks += [members[place : place + size] for place in range(0, len(members), size)]
        return stacks

    def _size(self, key: str, members: Sequence[Training]) -> int:
        """How many of a shape to train at a time; measured once, then remembered."""
        path = self.folder / "sizes.json"
        sizes = read_checked_json(path) if path.is_file() else {}
        if key not in sizes:
            sizes[key] = self._measured(members)
            replace_file(path, with_checksum(sizes))
        return int(sizes[key])

    def _measured(self, members: Sequence[Training]) -> int:
        made = [self.recipe(each) for each in members]
        reason = next((why for why in map(why_not, made) if why), "")
        if not reason and len(made) > 1:
            pace = measure_pace(made, most=len(made))
            reason = pace.reason
            if pace.curve:
                size, _, stacked = min(pace.curve, key=lambda each: each[2])
                steps = self.facts[members[0].contestant].total_steps
                if self.on == "vectorised" or steps * stacked < steps * pace.alone + _SET_UP:
                    why = (
                        reason
                        if stacked < pace.alone
                        else "to start each by itself would take longer"
                    )
                    self.say(f"up to {size} trainings as one program: {why}")
                    return size
        if self.on == "vectorised":
            raise RunError(
                f"these trainings cannot be one program: {reason or 'there is one alone'}.",
                hint="--on one_by_one",
            )
        self.say(f"trainings one by one{': ' + reason if reason else ''}")
        return 1

    # --- results

    def _kept(self, path: Path, stack: Sequence[Training]) -> list[Result]:
        """The results that were kept of exactly these trainings; [] where there are none."""
        try:
            told = read_checked_json(path)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise RunError(
                f"a kept result cannot be used: {error}.",
                where=str(path),
                hint="remove this file: it is made anew",
            ) from None
        results = [Result.of(each) for each in told["results"]]
        return results if [each.training for each in results] == list(stack) else []

    def _made(self, path: Path, stack: Sequence[Training], what: str) -> list[Result]:
        began = time.perf_counter()
        results = [self._alone(stack[0])] if len(stack) == 1 else self._together(stack)
        path.parent.mkdir(exist_ok=True)
        replace_file(
            path, with_checksum({"results": [json.loads(json.dumps(each.as_dict())) for each in results]})
        )
        names = {self.contestants[each.contestant].name for each in stack}
        who = names.pop() if len(names) == 1 else f"{len(stack)} trainings"
        scores = [each.score for each in results if each.score is not None]
        sign = 1 if self.facts[0].better == "higher" else -1
        best = (
            f"best {self.facts[0].metric} {sign * max(sign * score for score in scores):.4g}"
            if scores
            else "none came to a score"
        )
        self.say(f"{what}  {who}: {best}  ({time.perf_counter() - began:.1f} s)")
        return results

    def _together(self, stack: Sequence[Training]) -> list[Result]:
        told: list[list[tuple[int, Any]]] = [[] for _ in stack]

        def hear(events: list[Event]) -> Decision:
            for each in events:
                told[each.number].append((each.step, without_nonfinite(dict(each.scores))))
            return Decision()

        outcomes = train_population([self.recipe(each) for each in stack], hear)
        return [
            self._result(
                training, outcome.cause if outcome.state == "failed" else "", scores, outcome.losses
            )
            for training, outcome, scores in zip(stack, outcomes, told)
        ]

    def _alone(self, training: Training) -> Result:
        """Train as `danlu train` does, in a folder that is removed when the result is kept; going
        on where a killed one left off."""
        recipe = self.recipe(training)
        folder = (
            self.folder / "runs" / f"{training.contestant + 1}-{training.rate:g}-{training.seed}"
        )
        cause = ""
        try:
            train(recipe, folder)
        except Exception as error:
            found = cause_of(error)
            if found.kind in ("interrupted", "disk", "held"):
                raise
            cause = found.sentence
        entries = _logged(folder / "metrics.jsonl")
        scores = [(each["step"], each) for each in entries if each["split"] == "validation"]
        losses = [(each["step"], each.get("loss")) for each in entries if each["split"] == "train"]
        result = self._result(training, cause, scores, losses)
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def _result(
        self,
        training: Training,
        cause: str,
        told: Sequence[tuple[int, Any]],
        losses: Sequence[tuple[int, Any]],
    ) -> Result:
        """The Result of a training that told the scores of each evaluation: (step, score by
        name)."""
        facts, recipe = (
            self.facts[training.contestant],
            self.contestants[training.contestant].recipe,
        )
        curve = [
            (int(step), deciding_score(scores, facts.metric), deciding_score(scores, facts.deciding))
            for step, scores in told
        ]
        score = None if cause or not curve else curve[-1][1]
        deciding = [
            (1 if facts.decides == "higher" else -1) * each
            for _, _, each in curve
            if each is not None
        ]
        if score is not None and deciding and recipe.regularization.restore_best:
            sign = 1 if facts.decides == "higher" else -1
            score = next(
                value
                for _, value, each in curve
                if each is not None and sign * each == max(deciding)
            )
        known = [(step, float(value)) for step, value, _ in curve if value is not None]
        return Result(
            training,
            score,
            cause,
            known,
            [(int(step), float(value)) for step, value in losses if value is not None],
        )


def _logged(path: Path) -> list[dict[str, Any]]:
    return (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        if path.is_file()
        else []
    )
