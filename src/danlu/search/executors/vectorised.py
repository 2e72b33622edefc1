"""Run trials as one program: stacks of trials with one architecture (danlu.training.population).

A batch of trials is cut into groups of one architecture, and each group is trained as one stack.
The stack size, the number of stacks side by side and the number format are measured once, when the
study begins, and stored with it. A group is a function of its batch: after a kill, a group with
unfinished trials is trained again as a whole, finished trials included, so that every sum is taken
in the same order and each trial ends as it would have without the kill.
"""

from __future__ import annotations

import math
import select
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from danlu import recipe as recipes
from danlu import registry
from danlu.data.dataset import prepare
from danlu.errors import Interrupted, RunError
from danlu.recipe import Part, Recipe
from danlu.reporting.importance import import_libraries
from danlu.search.context import SearchContext
from danlu.search.executors.failure import RETRYABLE, describe_failure
from danlu.search.executors.forks import Exchange, Fork, can_fork
from danlu.search.executors.one_trial import run_trial
from danlu.search.executors.scheduler import describe_exit
from danlu.search.pruners._base import ExploitingPruner, PrunerFacts
from danlu.search.study import Study, Trial
from danlu.system import machine
from danlu.system.placement import draw_seed, placement_for
from danlu.training.population import (
    Decision,
    Outcome,
    StackThroughput,
    TrialEvaluation,
    measure_throughput,
    reason_not_stackable,
    seconds_per_update,
    stack_key,
    train_population,
)

MIN_STACK = 4  # trials of a stack that is worth measuring
MIN_SPEEDUP = 1.05  # over one trial after another, for stacks to be chosen
EXPLOITING = 31  # purpose of a random draw (danlu.system.placement): whose copy a trial becomes
_HEARTBEAT_SECONDS = 5.0  # between two heartbeats of a fork
_MEASURE_SECONDS = 180.0  # that a measurement may take
_BATCHES = 8  # in which a sampler that learns from results gets its budget, at least


def choose(study: Study) -> str:
    """The executor that is faster for this study: "vectorised" or "one_by_one"."""
    return "vectorised" if _plan(study)["faster"] else "one_by_one"


def _plan(study: Study) -> dict[str, Any]:
    return study.decide("vectorised", lambda: _measure_plan(study))


def _measure_plan(study: Study) -> dict[str, Any]:
    """What is decided once for a study: the stack size, how many stacks run at once, the number
    format, and whether that is faster than one trial after another."""
    recipe = _middle_recipe(study)
    forks = can_fork() and placement_for(recipe.train).device.type == "cpu"
    trainings = (study.budget or math.inf) * (study.folds or 1)
    at_once = max(1, min(machine.cores(), math.ceil(trainings / MIN_STACK))) if forks else 1
    not_measured: dict[str, Any] = {
        "size": 1,
        "at_once": 1,
        "precision": None,
        "faster": False,
        "curve": [],
    }
    if reason := _reason_not_measured(study, recipe, trainings):
        return {**not_measured, "reason": reason}
    # The data is prepared once, for all processes that are forked from this one.
    if study.folds:
        for fold in range(study.folds):
            prepare(recipe, (fold, study.folds))
    else:
        prepare(recipe)
    largest = int(min(trainings, _batch_size(study, 1 << 20) * (study.folds or 1)) / at_once) or 1
    throughputs = (
        _measure_in_forks(recipe, study, largest, at_once)
        if forks
        else [measure_throughput([recipe], largest)]
    )
    if throughputs is None:
        reason = "the measurement of stacks was ended by the system"
        return {**not_measured, "reason": reason}
    throughput = max(throughputs, key=lambda measured: measured.stacked)
    alone = throughput.alone or seconds_per_update(recipe)
    rate = at_once / throughput.stacked if throughput.stacked < math.inf else 0.0
    return {
        "size": throughput.size,
        "at_once": at_once,
        "precision": throughput.precision,
        "faster": throughput.size > 1 and rate > MIN_SPEEDUP / alone,
        "reason": f"{rate * alone:.1f} times as fast in {at_once} stack(s) of {throughput.size}, "
        f"{throughput.precision}"
        if rate
        else throughput.reason,
        "curve": [list(point) for point in throughput.curve],
        "alone": alone,
    }


def _reason_not_measured(study: Study, recipe: Recipe, trainings: float) -> str:
    """Why stacks of a study's trials cannot pay; "" where they may."""
    if reason := reason_not_stackable(recipe):
        return reason
    if any(
        metric not in ("seconds", "parameters", "loss") and _reads_text(metric)
        for metric, _ in study.objectives
    ):
        return "an objective compares texts, which are made at the end of a training"
    return "there are too few trials" if trainings < MIN_STACK else ""


def _measure_in_forks(
    recipe: Recipe, study: Study, largest: int, at_once: int
) -> list[StackThroughput] | None:
    """The throughput that each of `at_once` processes measures while the others measure too, as
    they will train; None where one of them was lost."""
    measured: list[StackThroughput] = []

    def work(say: Exchange) -> None:
        throughput = measure_throughput([_one_thread(recipe)], largest, at_once=at_once, alone=0.0)
        say({"say": "throughput", **throughput.as_dict()})

    forks = [Fork(work, study.folder / "vectorised.log") for _ in range(at_once)]
    try:
        for fork in forks:
            message = fork.receive(_MEASURE_SECONDS)
            if message["say"] != "throughput":
                return None
            fork.answer({})
            named = {
                name: message[name] for name in ("size", "precision", "alone", "stacked", "reason")
            }
            measured.append(
                StackThroughput(
                    curve=tuple(
                        (size, precision, seconds) for size, precision, seconds in message["curve"]
                    ),
                    **named,
                )
            )
    finally:
        for fork in forks:
            fork.kill()
    return measured


def _one_thread(recipe: Recipe) -> Recipe:
    """The recipe with one thread, as a fork trains it."""
    return replace(recipe, train=recipe.train.model_copy(update={"threads": 1}))


def _middle_recipe(study: Study) -> Recipe:
    """The recipe in the middle of the search space: first choices, middles of ranges."""
    values: dict[str, Any] = {}
    for dimension in study.space:
        if any(values.get(name) not in allowed for name, allowed in dimension.when.items()):
            continue
        if dimension.kind == "choice":
            values[dimension.name] = dimension.choices[0]
        else:
            low, high = float(dimension.low), float(dimension.high)  # type: ignore[arg-type]
            middle = math.sqrt(low * high) if dimension.log else (low + high) / 2
            if dimension.step:
                middle = low + round((middle - low) / dimension.step) * dimension.step
            values[dimension.name] = round(middle) if dimension.kind == "integer" else middle
    return recipes.trial_recipe(study.recipe, values, registry)


def _reads_text(metric: str) -> bool:
    """Whether a score compares texts."""
    name = metric.partition("/")[0]
    return name in registry.names("metrics") and registry.metric_facts(name).reads_text


def _batch_size(study: Study, room: int) -> int:
    """How many trials are suggested together: up to `room`, but a sampler that learns from results
    gets its budget in several batches, and an exploiting pruner all trials at once."""
    assert study.tune.sampler is not None
    pruner = study.tune.pruner
    if pruner is not None and exploits(pruner):
        return study.budget or room
    facts = registry.sampler_facts(study.tune.sampler.name)
    if not facts.learns or study.budget is None:
        return min(room, study.budget or room)
    return max(1, min(room, math.ceil(study.budget / _BATCHES)))


def exploits(pruner: Part) -> bool:
    """Whether a pruner is an ExploitingPruner."""
    return registry.read_facts(PrunerFacts, "pruners", pruner.name).exploits


# --- running


@dataclass
class _Training:
    """One training of a group: a trial, and (fold, number of folds) where the study has folds."""

    trial: Trial
    fold: tuple[int, int] | None


@dataclass
class _Group:
    """Trainings of one architecture, the fork that trains them, and what it has reported so far.

    `curves` has the scores of each (trial number, fold) by evaluation. `outcomes` has one value per
    training once they are done; `failure_message` and `failure_kind` say why they are lost.
    """

    trainings: list[_Training]
    fork: Fork | None = None
    curves: dict[tuple[int, int], list[float | None]] = field(
        default_factory=dict
    )  # by (trial, fold)
    outcomes: list[dict[str, Any]] | None = None
    failure_message: str = ""
    failure_kind: str = ""

    @property
    def trials(self) -> list[Trial]:
        """The trials of the group, by number."""
        return list({training.trial.number: training.trial for training in self.trainings}.values())


def run(study: Study, context: SearchContext) -> None:
    """Train batch after batch until no trial is left. Raises Interrupted after a signal; running
    groups begin anew at the next start."""
    plan = _plan(study)
    context.notify(message=f"trials as one program: {plan['reason']}")
    BatchRunner(study, context, plan).run()


class BatchRunner:
    """Takes batches of trials, cuts them into groups, trains some groups at a time, and tells the
    study."""

    def __init__(self, study: Study, context: SearchContext, plan: dict[str, Any]) -> None:
        self.study, self.context = study, context
        self.size, self.at_once = max(int(plan["size"]), 1), int(plan["at_once"])
        if not plan["faster"] and self.size == 1:
            self.size = 16  # the recipe names this executor where it does not pay
        self.precision: str | None = plan["precision"]
        self.metrics = [metric for metric, _ in study.objectives]
        self.forks = can_fork() and placement_for(study.recipe.train).device.type == "cpu"
        self.exploiter = self._build_exploiter()
        self.values_taken_over: dict[int, dict[str, Any]] = {}  # by trial; of exploiting pruners
        self.finished: set[int] = set()
        self.import_thread: threading.Thread | None = None

    def _build_exploiter(self) -> ExploitingPruner | None:
        """The pruner of the study where it is an exploiting one. Raises RunError with folds."""
        part, tune = self.study.tune.pruner, self.study.tune
        if part is None or not exploits(part):
            return None
        if self.study.folds:
            raise RunError(
                f"tune.pruner {part.name} copies trainings, and those of different folds have "
                "seen different rows.",
                hint="leave out tune.folds, or choose another pruner",
            )
        seed = draw_seed(tune.seed, EXPLOITING, 0)
        pruner = registry.build_pruner(part, self.study.directions[0], seed)
        assert isinstance(pruner, ExploitingPruner)
        return pruner

    def run(self) -> None:
        """Train until no trial is left."""
        # The folds of a trial are in one stack with those of other trials.
        room = max(1, self.size * self.at_once // (self.study.folds or 1))
        while trials := self.study.take(_batch_size(self.study, room)):
            for batch in self.study.batches(trials):
                self._run_batch(batch, {trial.number for trial in trials})

    def _run_batch(self, batch: list[Trial], unfinished: set[int]) -> None:
        """Train those groups of a whole batch that have unfinished trials (by their numbers)."""
        self.finished = {trial.number for trial in batch if trial.number not in unfinished}
        groups = [
            group
            for group in self._groups(batch)
            if any(trial.number in unfinished for trial in group.trials)
        ]
        last = (
            self.study.budget is not None
            and max(trial.number for trial in batch) + 1 >= self.study.budget
        )
        while groups:
            wave, groups = groups[: self.at_once], groups[self.at_once :]
            self._run_groups(wave, last and not groups)
            for group in wave:
                groups = [*self._recover(group), *groups]

    def _groups(self, batch: list[Trial]) -> list[_Group]:
        """Groups of at most the measured size with one architecture each; all folds of a trial are
        in one group."""
        folds: Sequence[tuple[int, int] | None] = (
            [(k, self.study.folds) for k in range(self.study.folds)] if self.study.folds else [None]
        )
        by_shape: dict[str, list[Trial]] = {}
        for trial in batch:
            by_shape.setdefault(stack_key(trial.recipe), []).append(trial)
        groups = []
        for same_shape in by_shape.values():
            largest = (
                len(same_shape) if self.exploiter is not None else max(1, self.size // len(folds))
            )
            pieces = math.ceil(len(same_shape) / largest)
            if self.exploiter is None:  # equal sizes: a batch takes as long as its largest stack
                pieces = max(pieces, min(self.at_once, len(same_shape)))
            trials_per_group = math.ceil(len(same_shape) / pieces)
            for first in range(0, len(same_shape), trials_per_group):
                groups.append(
                    _Group(
                        [
                            _Training(trial, fold)
                            for trial in same_shape[first : first + trials_per_group]
                            for fold in folds
                        ]
                    )
                )
        return groups

    # --- a wave: groups side by side

    def _run_groups(self, wave: list[_Group], last: bool = False) -> None:
        """Train groups side by side until each is done or lost; beside the `last` ones the
        libraries of the report are imported."""
        in_step = self.study.pruner is not None
        if self.import_thread is not None:  # a fork would copy the locks that it holds
            self.import_thread.join()
        for group in wave:
            if self.forks:
                group.fork = Fork(self._work_for(group), self.study.folder / "vectorised.log")
        if last and self.forks:
            self.import_thread = threading.Thread(target=import_libraries, daemon=True)
            self.import_thread.start()
        try:
            if not self.forks:
                for group in wave:
                    self._run_here(group)
                return
            waiting: dict[int, dict[str, Any]] = {}
            while running := [
                index
                for index, group in enumerate(wave)
                if group.outcomes is None and not group.failure_message
            ]:
                self._receive_messages(wave, running, waiting)
                # With a pruner every decision waits for all groups, so that it does not depend on
                # which group is faster.
                if in_step and any(index not in waiting for index in running):
                    continue
                for index in sorted(waiting):
                    self._report(wave[index], waiting[index]["events"])
                for index in sorted(waiting):
                    wave[index].fork.answer(self._decide(wave[index], waiting[index]["events"]))  # type: ignore[union-attr]
                waiting.clear()
        finally:
            for group in wave:
                if group.fork is not None:
                    group.fork.kill()
                    group.fork = None

    def _receive_messages(
        self, wave: list[_Group], running: list[int], waiting: dict[int, dict[str, Any]]
    ) -> None:
        """Receive the messages that have arrived: evaluations go into `waiting`, by index of the
        group; ended groups are told to the study at once."""
        expected = {wave[index].fork.fileno(): index for index in running if index not in waiting}  # type: ignore[union-attr]
        ready, _, _ = select.select(list(expected), [], [], 0.2)
        if self.context.interruption.exit_code:
            raise Interrupted(
                f"{self.context.interruption.name}: the study is saved.",
                exit_code=self.context.interruption.exit_code,
                hint="run the same command again: it goes on from there",
            )
        for number in ready:
            index = expected[number]
            group = wave[index]
            message = group.fork.receive()  # type: ignore[union-attr]
            match message["say"]:
                case "events":
                    waiting[index] = message
                case "beat":
                    group.fork.answer({})  # type: ignore[union-attr]
                case "done":
                    group.outcomes = message["outcomes"]
                    self._tell(group)
                case "failed":
                    group.failure_message, group.failure_kind = message["cause"], message["kind"]
                case "ended":
                    group.failure_message, group.failure_kind = (
                        describe_exit(message["code"]),
                        "memory",
                    )
        for index in running:
            fork = wave[index].fork
            if (
                fork is not None
                and index not in waiting
                and time.monotonic() - fork.last_message_at > 60 * self.context.tune.hang_minutes
            ):
                wave[
                    index
                ].failure_message = f"no report for {self.context.tune.hang_minutes:g} minutes"

    def _work_for(self, group: _Group) -> Callable[[Exchange], None]:
        """What a fork does to train a group."""

        def work(exchange: Exchange) -> None:
            last_heartbeat = time.monotonic()

            def beat(step: int) -> None:
                nonlocal last_heartbeat
                if time.monotonic() - last_heartbeat > _HEARTBEAT_SECONDS:
                    last_heartbeat = time.monotonic()
                    exchange({"say": "beat"})

            def decide(events: list[TrialEvaluation]) -> Decision:
                return self._to_decision(
                    exchange(
                        {"say": "events", "events": [_event_to_json(event) for event in events]}
                    )
                )

            outcomes = self._train(group, decide, beat)
            exchange(
                {"say": "done", "outcomes": [_outcome_to_json(outcome) for outcome in outcomes]}
            )

        return work

    def _run_here(self, group: _Group) -> None:
        """Train a group in this process."""

        def decide(events: list[TrialEvaluation]) -> Decision:
            plain = [_event_to_json(event) for event in events]
            self._report(group, plain)
            return self._to_decision(self._decide(group, plain))

        try:
            group.outcomes = [
                _outcome_to_json(outcome)
                for outcome in self._train(group, decide, lambda step: None)
            ]
        except (Interrupted, KeyboardInterrupt):
            raise
        except Exception as error:
            cause = describe_failure(error)
            group.failure_message, group.failure_kind = cause.message, cause.kind
        else:
            self._tell(group)

    def _train(
        self,
        group: _Group,
        decide: Callable[[list[TrialEvaluation]], Decision],
        beat: Callable[[int], None],
    ) -> list[Outcome]:
        interruption = None if self.forks else self.context.interruption
        prepared = _one_thread if self.forks else lambda recipe: recipe
        return train_population(
            [prepared(training.trial.recipe) for training in group.trainings],
            decide,
            folds=[training.fold for training in group.trainings],
            interruption=interruption,
            tell=beat,
            precision=self.precision,
        )

    # --- evaluations of a group

    def _report(self, group: _Group, events: list[dict[str, Any]]) -> None:
        """Keep the scores of an evaluation, and report to the study those of trials all of whose
        folds have reached it."""
        for event in events:
            training = group.trainings[event["number"]]
            curve_so_far = group.curves.setdefault(
                (training.trial.number, training.fold[0] if training.fold else 0), []
            )
            curve_so_far.append(event["scores"].get(self.metrics[0], event["score"]))
        for trial in group.trials:
            curve = self._curve(group, trial)
            if curve and trial.number not in self.finished and curve[-1] is not None:
                self.study.report(trial, len(curve), curve[-1])

    def _curve(self, group: _Group, trial: Trial) -> list[float | None]:
        """The mean over folds at each evaluation that all folds have reached; None where a score is
        missing."""
        fold_curves = [
            group.curves.get((trial.number, fold), []) for fold in range(self.study.folds or 1)
        ]
        means: list[float | None] = []
        for values in zip(*fold_curves):
            scores = [value for value in values if value is not None]
            means.append(statistics.fmean(scores) if len(scores) == len(values) else None)
        return means

    def _decide(self, group: _Group, events: list[dict[str, Any]]) -> dict[str, Any]:
        """The answer to a group's evaluations, as JSON values: which trainings end, or which copy
        others."""
        reported = {group.trainings[event["number"]].trial.number for event in events}
        if self.exploiter is not None:
            return {"copies": self._exploit(group, events)}
        pruned: list[int] = []
        for trial in group.trials:
            if trial.number not in reported:
                continue
            if trial.number in self.finished:  # before a kill: it ends here as it did there
                record = self.study.record(trial.number)
                ends = record.state == "pruned" and len(self._curve(group, trial)) >= len(
                    record.curve
                )
            else:
                ends = self.study.should_prune(trial)
            if ends:
                pruned += [
                    number
                    for number, training in enumerate(group.trainings)
                    if training.trial.number == trial.number
                ]
        return {"prune": pruned}

    def _exploit(self, group: _Group, events: list[dict[str, Any]]) -> dict[str, Any]:
        """Which training each one copies and with which values, as {index: [index of the other,
        values]}; {} between the turns of the pruner."""
        turn = len(self._curve(group, group.trials[0]))
        if (
            self.exploiter is None
            or len(events) < len(group.trainings)
            or turn % self.exploiter.every
        ):
            return {}
        numeric = [dimension for dimension in self.study.space if dimension.kind != "choice"]
        current = [
            self.values_taken_over.setdefault(training.trial.number, dict(training.trial.values))
            for training in group.trainings
        ]
        scores = [event["score"] for event in sorted(events, key=lambda event: event["number"])]
        options = {
            dimension.name: [float(values[dimension.name]) for values in current]
            for dimension in numeric
            if all(dimension.name in v for v in current)
        }
        generator = np.random.default_rng(draw_seed(self.study.tune.seed, EXPLOITING, turn))
        source, adjusted = self.exploiter.exploit(scores, options, generator)
        copies: dict[str, Any] = {}
        for target, origin in enumerate(source):
            if int(origin) == target:
                continue
            values = dict(current[int(origin)])
            for dimension in numeric:
                if dimension.name in adjusted:
                    values[dimension.name] = _clip_to_range(
                        dimension, float(adjusted[dimension.name][target])
                    )
            self.values_taken_over[group.trainings[target].trial.number] = values
            copies[str(target)] = [int(origin), values]
        return copies

    def _to_decision(self, message: dict[str, Any]) -> Decision:
        copies = {
            int(target): (int(origin), recipes.trial_recipe(self.study.recipe, values, registry))
            for target, (origin, values) in message.get("copies", {}).items()
        }
        return Decision(frozenset(message.get("prune", ())), copies)

    # --- ends

    def _tell(self, group: _Group) -> None:
        """Tell the study how the trials of a group ended."""
        assert group.outcomes is not None
        for trial in group.trials:
            if trial.number in self.finished:
                continue
            outcomes = [
                outcome
                for training, outcome in zip(group.trainings, group.outcomes)
                if training.trial.number == trial.number
            ]
            self._tell_trial(trial, outcomes)
            self.finished.add(trial.number)
            self.context.notify(self.study.record(trial.number))

    def _tell_trial(self, trial: Trial, outcomes: list[dict[str, Any]]) -> None:
        """Tell the study how a trial ended, by the outcomes of its folds."""
        facts: dict[str, Any] = {
            "seconds": sum(outcome["seconds"] for outcome in outcomes),
            "steps": sum(outcome["step"] for outcome in outcomes),
            "parameters": outcomes[0]["parameters"],
            "stacked": True,
        }
        if trial.number in self.values_taken_over:
            facts["became"] = self.values_taken_over[trial.number]
        failed = next((outcome for outcome in outcomes if outcome["state"] == "failed"), None)
        if failed is not None:
            self.study.tell(trial, None, "failed", failed["cause"], facts)
            return
        if any(outcome["state"] == "pruned" for outcome in outcomes):
            self.study.tell(trial, None, "pruned", outcomes[0]["cause"], facts)
            return
        means = _mean_scores([_numbers(outcome["scores"]) for outcome in outcomes])
        facts |= {"scores": means["scores"], "best_step": outcomes[0]["best_step"], **means}
        measured = {
            **facts["scores"],
            "seconds": facts["seconds"],
            "parameters": facts["parameters"],
        }
        missing = [metric for metric in self.metrics if metric not in measured]
        if missing:
            cause = (
                f"there is no score {missing[0]} on these rows; there are {', '.join(measured)}."
            )
            self.study.tell(trial, None, "failed", cause, facts)
            return
        values = [float(measured[metric]) for metric in self.metrics]
        self.study.tell(trial, values, "complete", "", facts)

    def _recover(self, group: _Group) -> list[_Group]:
        """The groups to train in place of a lost one. Trials that cannot be stacked are trained
        here, one after another."""
        if not group.failure_message:
            return []
        unfinished = [trial for trial in group.trials if trial.number not in self.finished]
        folds = len(group.trainings) // len(group.trials)
        if group.failure_kind in RETRYABLE and len(group.trials) > 1:
            self.context.notify(
                message=f"a stack of {len(group.trainings)} was lost ({group.failure_message}); "
                "it is trained in halves"
            )
            middle = math.ceil(len(group.trials) / 2) * folds
            return [_Group(group.trainings[:middle]), _Group(group.trainings[middle:])]
        if group.failure_kind == "error":
            self.context.notify(
                message=f"{len(unfinished)} trial(s) are trained one after another: "
                f"{group.failure_message}"
            )
            for trial in unfinished:
                self._train_alone(trial)
            return []
        for trial in unfinished:
            self.study.tell(trial, None, "failed", group.failure_message)
            self.finished.add(trial.number)
            self.context.notify(self.study.record(trial.number))
        return []

    def _train_alone(self, trial: Trial) -> None:
        """Train a trial as the executor one_by_one does."""

        def report(evaluations: int, value: float) -> bool:
            self.study.report(trial, evaluations, value)
            return self.study.should_prune(trial)

        outcome = run_trial(trial.recipe, trial.folder, self.metrics, self.study.folds, report)
        self.study.tell(trial, outcome.values, outcome.state, outcome.cause, outcome.facts)
        self.finished.add(trial.number)
        self.context.notify(self.study.record(trial.number))


def _event_to_json(event: TrialEvaluation) -> dict[str, Any]:
    return {
        "number": event.number,
        "step": event.step,
        "score": event.score,
        "scores": _numbers(event.scores),
    }


def _outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "state": outcome.state,
        "cause": outcome.cause,
        "scores": _numbers(outcome.scores),
        "step": outcome.step,
        "best_step": outcome.best_step,
        "seconds": outcome.seconds,
        "parameters": outcome.parameters,
    }


def _mean_scores(of_folds: list[dict[str, float]]) -> dict[str, Any]:
    """The mean of each score over folds as {"scores"}; with several folds also "std" and
    "folds"."""
    names = [name for name in of_folds[0] if all(name in scores for scores in of_folds)]
    by_name = {name: [scores[name] for scores in of_folds] for name in names}
    facts: dict[str, Any] = {
        "scores": {name: statistics.fmean(values) for name, values in by_name.items()}
    }
    if len(of_folds) > 1:
        facts["std"] = {name: statistics.stdev(values) for name, values in by_name.items()}
        facts["folds"] = of_folds
    return facts


def _numbers(scores: Mapping[str, object]) -> dict[str, float]:
    """The scores that are finite numbers."""
    return {
        name: value
        for name, value in scores.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and name != "rows"
    }


def _clip_to_range(dimension: Any, value: float) -> float | int:
    """The value moved into the range of a dimension, onto one of its steps."""
    value = min(max(value, float(dimension.low)), float(dimension.high))
    if dimension.step:
        value = (
            float(dimension.low)
            + round((value - float(dimension.low)) / dimension.step) * dimension.step
        )
        value = min(value, float(dimension.high))
    return round(value) if dimension.kind == "integer" else value
