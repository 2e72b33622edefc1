"""A study: the trials of one recipe's search, stored on disk and resumable.

FOLDER/study.sqlite    every trial: values, state, objectives, curve, cause of a failure
                       (or the database that tune.storage names)
FOLDER/trials/0007/    the run folder of a trial; its checkpoints are deleted when it ends,
                       and only the best trial keeps its artifact
FOLDER/best.yaml       the recipe of the best trial

Every decision (which trial comes next, with which values, how trials are run) is stored before it
is acted on. A suggestion depends on the seed, the trial's number, and the trials told before its
batch was suggested; a batch is stored as a whole. So a study that was killed goes on exactly as it
would have without the kill. Trials that a dead process left running are resumed, with their values,
before new ones are suggested.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from danlu import recipe as recipes
from danlu import registry
from danlu.compat.optuna_storage import StoredTrial
from danlu.errors import RecipeError, RunError, escape_controls, nearest
from danlu.recipe import (
    DatabaseAddress,
    Recipe,
    Space,
    Tune,
    as_plain,
    differences,
    write_yaml,
)
from danlu.recipe.permissions import PERMIT, cluster_elsewhere, file_elsewhere, server_elsewhere
from danlu.search.pruners._base import Pruner
from danlu.search.storage import TrialStorage, refuse_address
from danlu.search.suggest import PRUNING, PastTrial, Suggester, import_optuna
from danlu.system.atomic_files import make_folder, replace_file
from danlu.system.locks import ProcessLease
from danlu.system.own_folder import claim_folder
from danlu.system.placement import draw_seed
from danlu.system.trust import remote_is_allowed
from danlu.training.run_folder import comparable
from danlu.training.setup import build_training

State = Literal["running", "complete", "pruned", "failed"]
COMMON_OBJECTIVES = {
    "loss": "lower",
    "seconds": "lower",
    "parameters": "lower",
}  # objectives of every recipe, and which is better
_FLUSH_SECONDS = 1.0  # seconds between two writings of curves
_WAIT_SECONDS = 1.0  # between two looks at the trials of other processes


@dataclass(frozen=True)
class Trial:
    """A trial to run: `values` by dotted name, the recipe with these values, and the trial's own
    run folder (it may not exist yet)."""

    number: int
    values: Mapping[str, Any]
    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class TrialRecord:
    """What a study knows of a trial.

    `scores` has one value per objective, in the study's order (None unless the trial is complete).
    `curve` is the first objective by evaluation (1, 2, ...). `facts` holds what else was measured:
    validation scores by name, seconds, steps, parameters, best_step.
    """

    number: int
    values: Mapping[str, Any]
    state: State
    scores: tuple[float, ...] | None = None
    cause: str = ""
    seconds: float = 0.0
    steps: int = 0
    curve: tuple[tuple[int, float], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {
            **vars(self),
            "values": dict(self.values),
            "curve": [list(point) for point in self.curve],
            "facts": dict(self.facts),
        }


class Study:
    """The study of a recipe with a section tune, in a folder; opened where it exists, else begun. A
    context manager.

    `objectives` is [(metric, "higher" | "lower")], `folds` and `space` are the recipe's, `plan`
    holds what was decided once. Raises RunError where the folder has the study of another search or
    the data has changed; MissingExtra.
    """

    def __init__(self, recipe: Recipe, folder: str | Path) -> None:
        if recipe.tune is None:
            raise RunError(
                "this recipe has no section tune, so there is nothing to search.",
                where=recipe.path,
                hint=_EXAMPLE,
            )
        import_optuna()
        self.recipe = recipe
        self.tune: Tune = recipe.tune
        self.space: Space = recipe.space
        self.folds = self.tune.folds
        self.folder = Path(folder)
        self.started_at = time.monotonic()
        self.objectives, digest = _objectives(recipe)
        self.directions = [direction for _, direction in self.objectives]
        _refuse_unpermitted(self.tune, self.folder, recipe.path)
        try:
            make_folder(self.folder)
            is_ours = any((self.folder / name).exists() for name in ("study.sqlite", ".owners"))
            claim_folder(self.folder, NAMES, is_ours=is_ours, option="--study")
        except OSError as error:
            reason = error.strerror or error
            raise RunError(
                f"the study's folder cannot be written: {reason}.",
                where=str(folder),
                hint="choose another --study",
            ) from None
        self.address = (
            DatabaseAddress("sqlite", self.folder / "study.sqlite")
            if self.tune.storage is None
            else refuse_address(self.tune.storage)
        )
        self.storage = TrialStorage(
            self.address,
            self.folder.resolve().name,
            self.directions,
            self.space,
            self.folder,
            {"danlu": {"identity": self._identity(), "data": digest}},
        )
        home = self.folder if self.storage.file is None else self.storage.file.parent
        self.owner = ProcessLease(home / ".owners")
        self.owner.__enter__()
        self.stored: dict[int, StoredTrial] = {}
        self.running_here: dict[int, StoredTrial] = {}  # those that this process runs
        self.unsaved_scores: dict[int, dict[int, float]] = {}  # of the curves, by number
        self.flushed_at = time.monotonic()
        self.suggester: Suggester | None = None
        self.advanced_suggester: Suggester | None = None  # once its suggestions are stored
        self.pruner = self._pruner()
        try:
            self.plan = self._check_identity(digest)
            self.storage.exclusively(self._refresh)
            self._delete_leftovers()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the storage. Trials still running here are free for the next process."""
        self.storage.patience = 0.0  # whoever ends does not wait for a lost server
        try:
            self.flush()
            self.storage.release(list(self.running_here.values()))
        except RunError:
            self.owner.abandon()  # the next process finds by the lease that this one is gone
        self.running_here = {}
        self.storage.close()
        self.owner.__exit__(None, None, None)

    @property
    def budget(self) -> int | None:
        """How many trials there are in all; None where only `tune.minutes` limits them."""
        assert self.tune.sampler is not None
        facts = registry.sampler_facts(self.tune.sampler.name)
        size = facts.size
        limits = [
            self.tune.budget,
            size(self.tune.sampler.options, self.space) if size is not None else None,
        ]
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def seconds(self) -> float:
        """How many seconds the study has run, over all its processes."""
        return self.seconds_before + time.monotonic() - self.started_at

    # --- trials

    def take(self, count: int = 1) -> list[Trial]:
        """Up to `count` trials to run at the same time; [] when the budget is used up.

        First come those that a dead process left running, by number: always whole batches, so it
        can be fewer or more than `count`. Then come new ones, all suggested before any of them
        runs.
        """
        while True:
            self.flush()
            entries = self.storage.exclusively(lambda: self._assign(count))
            self.suggester = self.advanced_suggester or self.suggester
            for entry in entries:
                self.stored[entry.number] = self.running_here[entry.number] = entry
            self.storage.start_heartbeat(list(self.running_here.values()))
            if not entries:
                return []
            trials = [trial for entry in entries if (trial := self._trial(entry)) is not None]
            if trials:
                return trials

    def batches(self, trials: Sequence[Trial]) -> list[list[Trial]]:
        """The batches in which these trials were suggested, in order and as a whole: with their
        trials that have ended."""
        batches = []
        for first, count in sorted(
            {tuple(self.stored[trial.number].attributes["batch"]) for trial in trials}
        ):
            stored_batch = [self.stored[number] for number in range(first, first + count)]
            batches.append(
                [
                    trial
                    for entry in stored_batch
                    if (trial := self._trial_or_none(entry)) is not None
                ]
            )
        return batches

    def report(self, trial: Trial, evaluations: int, value: float) -> None:
        """Report the first objective of a trial at evaluation number `evaluations` (1, 2, ...).
        Reporting it again changes nothing."""
        entry = self.running_here[trial.number]
        if entry.curve.get(evaluations) != value:
            entry.curve[evaluations] = float(value)
            self.unsaved_scores.setdefault(trial.number, {})[evaluations] = float(value)
        if time.monotonic() - self.flushed_at > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Store every reported score. Call it before saving a checkpoint after which scores are not
        reported again."""
        if self.unsaved_scores:
            self.storage.store_curves(
                {
                    self.running_here[number].key: curve
                    for number, curve in self.unsaved_scores.items()
                    if number in self.running_here
                }
            )
            self.unsaved_scores = {}
        self.flushed_at = time.monotonic()

    def should_prune(self, trial: Trial) -> bool:
        """Whether a trial ends at its last reported evaluation. Report the other trials at the same
        evaluation first."""
        if self.pruner is None:
            return False
        own = self.running_here[trial.number].curve
        curve = [own[evaluation] for evaluation in sorted(own)]
        if any(
            entry.state == "running" and number not in self.running_here
            for number, entry in self.stored.items()
        ):
            self._refresh()
        others = {
            number: [entry.curve[evaluation] for evaluation in sorted(entry.curve)][: len(curve)]
            for number, entry in self.stored.items()
            if number != trial.number and entry.curve
        }
        return bool(curve) and bool(self.pruner.prune(trial.number, curve, others))

    def tell(
        self,
        trial: Trial,
        values: list[float] | None,
        state: Literal["complete", "pruned", "failed"],
        cause: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Store how a trial ended: its objectives where it is complete (one value per objective),
        the cause where it failed. A score that is not finite makes the trial a failed one."""
        if state == "complete" and (
            values is None or len(values) != len(self.objectives) or not all(map(_finite, values))
        ):
            state, cause = "failed", f"the score it ended with is no finite number: {values}"
        scores = (
            [float(value) for value in values]
            if state == "complete" and values is not None
            else None
        )
        self._end(
            self.running_here[trial.number],
            state,
            scores,
            {"cause": cause, "facts": dict(facts or {})},
        )

    def decide(self, name: str, choose: Callable[[], Any]) -> Any:
        """What was decided under `name` when the study began. The first time `choose()` decides
        (JSON values), and the decision is stored."""
        if name not in self.plan:
            chosen = choose()  # may take its time, and may decide other things on the way

            def store() -> dict[str, Any]:
                plan = dict(self.storage.study_attributes().get("plan") or {})
                if name not in plan:  # else another process was first
                    plan[name] = chosen
                    self.storage.set_study_attribute("plan", plan)
                return plan

            self.plan = self.storage.exclusively(store)
        return self.plan[name]

    def trials(self) -> list[TrialRecord]:
        """Every trial so far, by number."""
        if any(
            entry.state == "running" and number not in self.running_here
            for number, entry in self.stored.items()
        ):
            self._refresh()
        return [to_record(entry) for _, entry in sorted(self.stored.items())]

    def record(self, number: int) -> TrialRecord:
        """What is known of the trial with a number."""
        return to_record(self.stored[number])

    def best(self) -> TrialRecord | None:
        """The best complete trial by the first objective; of equal ones the earliest. None while no
        trial is complete."""
        entry = self._best()
        return None if entry is None else to_record(entry)

    def write_best(self) -> Path | None:
        """Write FOLDER/best.yaml, the recipe of the best trial with its score in comments; None
        while no trial is complete."""
        entry = self._best()
        if entry is None:
            return None
        recipe = recipes.trial_recipe(self.recipe, entry.attributes["values"], registry)
        scores = ", ".join(
            f"{metric} {score:.6g}"
            for (metric, _), score in zip(self.objectives, entry.scores or ())
        )
        over = f"the mean over {self.folds} folds" if self.folds else "on the validation split"
        ended = sum(stored.state != "running" for stored in self.stored.values())
        folder = escape_controls(str(self.folder), one_line=True)
        text = (
            f"# Trial {entry.number}, the best of {ended:,}: {scores} ({over}).\n"
            f"# Found in the study {folder}.\n"
            f"#\n#     danlu train {folder}/best.yaml\n\n"
        )
        path = self.folder / "best.yaml"
        replace_file(
            path,
            (
                text
                + write_yaml(
                    {"name": f"{self.recipe.name}_best"[:100], **_without_name(recipe.raw)}
                )
            ).encode(),
        )
        return path

    # --- beginning

    def _check_identity(self, digest: str) -> dict[str, Any]:
        """The plan of the study in the folder. Raises RunError where it is the study of another
        search, or of another program."""
        notes = self.storage.study_attributes()
        noted = notes.get("danlu")
        if not isinstance(noted, dict) or not {"identity", "data"} <= noted.keys():
            raise RunError(
                f"the study {self.folder.resolve().name} in this database was not begun by danlu.",
                where=str(self.address),
                hint="choose another --study folder (a study bears its name), or another "
                "tune.storage",
            )
        changed = differences(noted["identity"], self._identity())
        if changed:
            shown = "\n  ".join(changed[:20]) + (
                f"\n  and {len(changed) - 20} more" if len(changed) > 20 else ""
            )
            raise RunError(
                f"this is the study of another search. What differs (study -> now):\n  {shown}",
                where=str(self.folder),
                hint="choose another --study folder; trials, minutes, on, workers and address may "
                "change",
            )
        if noted["data"] != digest:
            raise RunError(
                "the data has changed since this study began, so its trials could not be compared.",
                where=str(self.folder),
                hint="choose another --study folder, or put the data back",
            )
        self.seconds_before = float(notes.get("seconds") or 0.0)
        return dict(notes.get("plan") or {})

    def _identity(self) -> dict[str, Any]:
        """What distinguishes this search from others, as JSON values."""
        return {
            "recipe": comparable(self.recipe.as_dict()),
            "tune": {
                name: as_plain(getattr(self.tune, name))
                for name in ("space", "sampler", "pruner", "folds", "seed")
            },
            "objectives": [list(objective) for objective in self.objectives],
        }

    def _pruner(self) -> Pruner | None:
        part = self.tune.pruner
        if part is None or part.name == "none" or len(self.objectives) > 1:
            return None
        return registry.build_pruner(
            part, self.directions[0], draw_seed(self.tune.seed, PRUNING, 0)
        )

    # --- who runs what

    def _refresh(self) -> None:
        """Read what other processes have stored."""
        numbers = [
            number
            for number, entry in self.stored.items()
            if entry.state == "running" and number not in self.running_here
        ]
        for entry in self.storage.read(max(self.stored, default=-1), numbers):
            self.stored[entry.number] = entry

    def _assign(self, count: int) -> list[StoredTrial]:
        """Up to `count` trials that belong to this process now. Where a server is lost on the way,
        it is called again."""
        self.advanced_suggester = None
        self._refresh()
        return self._adopt_orphans(count) or self._suggest_new(count)

    def _running_elsewhere(self) -> list[StoredTrial]:
        """Running trials, by number, that this process does not run."""
        return [
            entry
            for number, entry in sorted(self.stored.items())
            if entry.state == "running" and number not in self.running_here
        ]

    def _orphans(self) -> list[StoredTrial]:
        """Running trials whose process is dead, by number."""
        others = self._running_elsewhere()
        if not others:
            return []
        alive = {
            name: self._is_alive(name) for name in {entry.attributes["owner"] for entry in others}
        }
        unknown = [entry for entry in others if alive[entry.attributes["owner"]] is None]
        silent = self.storage.silent(unknown) if unknown else set()
        return [
            entry
            for entry in others
            if alive[entry.attributes["owner"]] is False or entry.number in silent
        ]

    def wait_for_others(
        self, is_interrupted: Callable[[], bool], notify: Callable[[str], object]
    ) -> bool:
        """Wait until no trial runs in another process (False), or one has lost its process (True):
        then `take` gives it. Raises KeyboardInterrupt where `is_interrupted()`."""
        noted = False
        while True:
            self._refresh()
            others = self._running_elsewhere()
            if not others:
                return False
            if self._orphans():
                return True
            if not noted:
                noted = True
                notify(f"waiting for {len(others)} trial(s) that other processes run")
            if is_interrupted():
                raise KeyboardInterrupt
            time.sleep(_WAIT_SECONDS)

    def _adopt_orphans(self, count: int) -> list[StoredTrial]:
        """Running trials of dead processes, which now belong to this one: their first batch, and
        further batches while they fit into `count`."""
        dead = self._orphans()
        adopted: list[StoredTrial] = []
        for first in sorted({entry.attributes["batch"][0] for entry in dead}):
            batch = [entry for entry in dead if entry.attributes["batch"][0] == first]
            if adopted and len(adopted) + len(batch) > count:
                break
            adopted += batch
        for entry in adopted:
            before = entry.attributes["owner"]
            self.storage.set_owner(entry, self.owner.name)
            if before != self.owner.name:
                self.owner.remove(before)
        return adopted

    def _is_alive(self, owner: str) -> bool | None:
        """Whether the process of an owner lives; None where only its heartbeats can tell."""
        # Its own, when it does not run them: a server was lost while it took them.
        if owner in ("", self.owner.name):
            return False
        alive = self.owner.is_alive(owner)
        return False if alive is None and not self.storage.on_server else alive

    def _suggest_new(self, count: int) -> list[StoredTrial]:
        """New trials, suggested and stored."""
        first = len(self.stored)
        if self.budget is not None:
            count = min(count, self.budget - first)
        if count <= 0 or (self.tune.minutes is not None and self.seconds >= 60 * self.tune.minutes):
            return []
        if self.suggester is None:
            assert self.tune.sampler is not None
            self.suggester = Suggester(
                self.tune.sampler, self.space, self.directions, self.tune.seed
            )
        suggesting, self.suggester = self.suggester, None  # what fails half-way is made anew
        suggesting.update(first, lambda number: _past_trial(self.stored[number]))
        new_attributes = []
        for _ in range(count):
            suggestion = suggesting.suggest()
            new_attributes.append(
                {
                    "values": dict(suggestion.values),
                    "kept": dict(suggestion.system_attrs),
                    "batch": [first, count],
                    "owner": self.owner.name,
                }
            )
        entries = self.storage.begin(first, new_attributes)
        self.advanced_suggester = suggesting
        return entries

    def _trial(self, entry: StoredTrial) -> Trial | None:
        """The trial that is stored; None where its values do not fit together: then it is told as
        failed."""
        values = entry.attributes["values"]
        try:
            recipe = recipes.trial_recipe(self.recipe, values, registry)
        except RecipeError as error:
            messages = "; ".join(f"{problem.message}" for problem in error.problems)
            self._end(entry, "failed", None, {"cause": messages, "facts": {}})
            return None
        return Trial(entry.number, values, recipe, self.folder / "trials" / f"{entry.number:04d}")

    def _trial_or_none(self, entry: StoredTrial) -> Trial | None:
        """The trial that is stored, ended or not; None where its values do not fit together."""
        try:
            recipe = recipes.trial_recipe(self.recipe, entry.attributes["values"], registry)
        except RecipeError:
            return None
        return Trial(
            entry.number,
            entry.attributes["values"],
            recipe,
            self.folder / "trials" / f"{entry.number:04d}",
        )

    def _end(
        self, entry: StoredTrial, state: State, scores: list[float] | None, ending: dict[str, Any]
    ) -> None:
        before = self._best()
        curve = self.unsaved_scores.get(entry.number, {})
        is_stored = self.storage.finish(entry, state, scores, ending, curve)
        self.unsaved_scores.pop(entry.number, None)
        self.running_here.pop(entry.number, None)
        if not is_stored:
            # Another process took this one for dead, ran the trial and told it first: that stays.
            self._refresh()
            return
        if self.tune.minutes is not None:
            self.storage.set_study_attribute("seconds", self.seconds)
        best = self._best()
        self._delete_checkpoints(entry, keep=entry is best)
        if before is not None and before is not best:
            self._delete_checkpoints(before, keep=False)

    def _best(self) -> StoredTrial | None:
        sign = 1.0 if self.directions[0] == "higher" else -1.0
        complete = [
            stored
            for _, stored in sorted(self.stored.items())
            if stored.state == "complete" and stored.scores
        ]
        return max(complete, key=lambda entry: sign * entry.scores[0], default=None)  # type: ignore[index]

    # --- the disk

    def _delete_checkpoints(self, entry: StoredTrial, keep: bool) -> None:
        """Delete the checkpoints of a trial that ended, and its artifact unless `keep`."""
        home = self.folder / "trials" / f"{entry.number:04d}"
        for folder in [home, *home.glob("fold-*")]:
            if folder.is_symlink():
                continue
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            if not keep:
                shutil.rmtree(folder / "artifact", ignore_errors=True)

    def _delete_leftovers(self) -> None:
        """Delete what a process left that died between telling a trial and deleting its
        checkpoints."""
        best = self._best()
        for home in self.folder.glob("trials/*"):
            number = int(home.name) if home.name.isdigit() else -1
            entry = self.stored.get(number)
            if entry is not None and entry.state != "running":
                self._delete_checkpoints(entry, keep=entry is best)


# what a study writes into its folder
NAMES = (
    "study.sqlite*",
    "study.json",
    ".owners",
    "trials",
    "trials/*",
    "trials.*",
    "best.yaml",
    "report.html",
    "plots",
    "vectorised.log",
)
_EXAMPLE = (
    "tune: {space: {optimizer.learning_rate: {low: 1.0e-4, high: 0.1, log: true}}, trials: 32}"
)


def _refuse_unpermitted(tune: Tune, folder: Path, recipe: str) -> None:
    """Raise RunError for what a search would use outside of its folder without permission; the
    recipe may have been read while that was permitted."""
    if remote_is_allowed():
        return
    elsewhere = cluster_elsewhere(tune) or server_elsewhere(tune) or file_elsewhere(tune, folder)
    if elsewhere:
        raise RunError(elsewhere, where=recipe or "recipe", hint=PERMIT)


def _objectives(recipe: Recipe) -> tuple[list[tuple[str, str]], str]:
    """([(metric, direction)] of a recipe's search, the digest of its data). Raises RunError for an
    objective that the recipe does not measure."""
    tune = recipe.tune
    assert tune is not None
    setup = build_training(recipe, (0, tune.folds) if tune.folds else None)
    if not len(setup.data.splits["validation"]):
        raise RunError(
            "a search compares validation scores, and the validation split has no row.",
            hint="give data.split a share for validation, or set tune.folds",
        )
    evaluator = setup.evaluator
    if tune.objectives is None:
        return [(evaluator.metric, evaluator.better)], setup.data.digest
    better = {
        **COMMON_OBJECTIVES,
        **{name: registry.metric_facts(name).better for name in registry.names("metrics")},
    }
    labels = [label for label, _ in [*evaluator.metrics, *evaluator.readers]]
    objectives = []
    for objective in tune.objectives:
        metric = objective.metric
        stem = next(
            (part.name for part, label in zip(recipe.metrics, labels) if metric == label),
            metric.partition("/")[0],
        )
        if metric not in (*COMMON_OBJECTIVES, *labels) and "/" not in metric:
            near = nearest(metric, [*labels, *COMMON_OBJECTIVES])
            measured = ", ".join([*labels, *COMMON_OBJECTIVES])
            raise RunError(
                f"tune.objectives names {metric}, and what is measured is {measured}.",
                hint=f"did you mean {near[0]}?" if near else "add it to metrics",
            )
        direction = (
            objective.direction
            or better.get(stem)
            or better.get(metric.rpartition("/")[2])
            or evaluator.better
        )
        objectives.append((metric, direction))
    return objectives, setup.data.digest


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _past_trial(entry: StoredTrial) -> PastTrial:
    return PastTrial(
        entry.attributes["values"],
        entry.attributes.get("kept") or {},
        entry.state,
        entry.scores,
        entry.curve,
    )


def to_record(entry: StoredTrial) -> TrialRecord:
    """The record of a stored trial."""
    told_at_end = entry.attributes.get("told") or {}
    facts = dict(told_at_end.get("facts") or {})
    return TrialRecord(
        entry.number,
        entry.attributes["values"],
        entry.state,  # type: ignore[arg-type]
        entry.scores,
        str(told_at_end.get("cause") or ""),
        float(facts.get("seconds") or 0.0),
        int(facts.get("steps") or 0),
        tuple(sorted(entry.curve.items())),
        facts,
    )


def _without_name(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if name != "name"}
