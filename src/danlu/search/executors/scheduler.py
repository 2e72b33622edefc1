"""Gives trials out to workers, hears them, and decides what becomes of a trial whose worker is lost. It alone talks to the study.

A worker that was killed, ran out of memory, hung or met a full disk loses nothing but time: its
trial goes on from its checkpoint in another one. Lost LIVES times in a row without a new checkpoint
in between, the trial is told as failed, with the cause."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from danlu.errors import Interrupted
from danlu.search.executors.failure import AGAIN

if TYPE_CHECKING:
    from danlu.search.context import Setting
    from danlu.search.study import Study, Trial

LIVES = 3
_LISTEN = 0.2  # seconds to wait for a message before looking at signals and at the clock
_GRACE = 120.0  # seconds that workers have to save after an interruption
_PAUSE = 5.0  # seconds between two questions for trials where there was none: another process of the study may lose some


class Workers(Protocol):
    """Where trials run. Each `start` has a key of its own; the last event of a key is {"say":
    "ended", "code", "cause"}."""

    slots: int
    queues: bool  # whether a task may have to wait for its place; its silence counts from its first word on

    def start(self, key: int, task: Any, log: Path) -> None:
        """Begin a task in a worker of its own; never waits for it."""
        ...

    def event(self, seconds: float) -> tuple[int, dict[str, Any]] | None:
        """(key, message) of the next thing a worker says, waited for so long; None where none said
        anything."""
        ...

    def answer(self, key: int, stop: bool) -> None:
        """Answer a score."""
        ...

    def interrupt(self, key: int) -> None:
        """Ask a worker to save and end."""
        ...

    def kill(self, key: int) -> None:
        """End a worker, whatever it does."""
        ...

    def close(self) -> None:
        """End all of them and let go of everything."""
        ...


@dataclass
class _Assignment:
    trial: Trial
    heard: float
    last: dict[str, Any] = field(default_factory=dict)  # what it said of its end
    killed: str = ""  # why the crew ended it
    alone: bool = False


@dataclass
class _Lost:
    """A trial that waits for another worker: from when on, and whether no other may run beside
    it."""

    trial: Trial
    since: float
    alone: bool


class Crew:
    """One executor's loop. `task_of(trial)` is what a worker is given; `silence` the seconds
    without a sign of life that mean it hangs."""

    def __init__(
        self,
        study: Study,
        setting: Setting,
        workers: Workers,
        task_of: Callable[[Trial], Any],
        silence: float,
    ) -> None:
        self.study = study
        self.setting = setting
        self.workers = workers
        self.task_of = task_of
        self.silence = silence
        self.at_work: dict[int, _Assignment] = {}
        self.waiting: list[_Lost] = []
        self.losses: dict[
            int, tuple[int, int]
        ] = {}  # trial: (times lost since, its newest checkpoint)
        self.keys = 0
        self.asked = -math.inf  # when the study last had no trial to give
        self.stopping = 0.0  # until when workers may still save

    def run(self) -> None:
        """Until the study has no trial left. Raises Interrupted where somebody asks to stop; the
        trials at work are saved by then."""
        interruption = self.setting.interruption
        patient, interruption.deferred = interruption.deferred, True
        try:
            while True:
                if interruption.exit_code and not self.stopping:
                    self._stop()
                if not self.stopping:
                    self._fill()
                if not self.at_work and (self.stopping or not self.waiting):
                    break
                said = self.workers.event(_LISTEN)
                if said is not None:
                    self._hear(*said)
                self._look_at_the_clock()
        finally:
            interruption.deferred = patient
            self.workers.close()
        if interruption.exit_code:
            raise Interrupted(
                f"{interruption.name}: the study is saved.",
                exit_code=interruption.exit_code,
                hint="run the same command again: it goes on from there",
            )

    # --- giving out

    def _fill(self) -> None:
        now = time.monotonic()
        for lost in [each for each in self.waiting if each.since <= now]:
            if len(self.at_work) >= (1 if lost.alone else self._slots()):
                return  # first who waits: nobody overtakes one that needs the machine for itself
            self.waiting.remove(lost)
            self._start(lost.trial, lost.alone)
        free = self._slots() - len(self.at_work)
        if free > 0 and now - self.asked > _PAUSE and not any(each.alone for each in self.waiting):
            trials = self.study.take(free)
            self.asked = now if not trials else self.asked
            for place, trial in enumerate(trials):
                if place < free:
                    self._start(trial)
                else:  # those that a dead process left come together
                    self.waiting.append(_Lost(trial, now, alone=False))

    def _slots(self) -> int:
        return 1 if any(each.alone for each in self.at_work.values()) else self.workers.slots

    def _start(self, trial: Trial, alone: bool = False) -> None:
        self.keys += 1
        self.at_work[self.keys] = _Assignment(
            trial, math.inf if self.workers.queues else time.monotonic(), alone=alone
        )
        self.workers.start(self.keys, self.task_of(trial), trial.folder / "worker.log")

    # --- hearing

    def _hear(self, key: int, message: dict[str, Any]) -> None:
        assignment = self.at_work.get(key)
        if assignment is None:
            return
        assignment.heard = time.monotonic()
        match message["say"]:
            case "score":
                self.workers.answer(
                    key, self._score(assignment.trial, message["evaluations"], message["value"])
                )
            case "done" | "failed" | "interrupted":
                assignment.last = message
            case "ended":
                del self.at_work[key]
                self._ended(assignment, message["cause"])

    def _score(self, trial: Trial, evaluations: int, value: float) -> bool:
        self.study.report(trial, evaluations, value)
        return self.study.should_prune(trial)

    def _ended(self, assignment: _Assignment, cause: str) -> None:
        trial, last = assignment.trial, assignment.last
        outcome = last.get(
            "result", {"state": "failed", **last}
        )  # of a worker that failed outside of the training
        if last.get("say") in ("done", "failed") and outcome.get("kind") not in AGAIN:
            self._tell(
                trial,
                outcome["state"],
                outcome.get("values"),
                outcome["cause"],
                outcome.get("facts"),
            )
        elif last.get("say") in ("done", "failed"):
            self._lose(trial, outcome["cause"], outcome["kind"] == "memory")
        elif (
            not self.stopping
        ):  # else saved, or as its last checkpoint left it: the study's next start goes on with it
            self._lose(trial, assignment.killed or cause)

    def _tell(
        self,
        trial: Trial,
        state: Any,
        values: list[float] | None = None,
        cause: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.study.tell(trial, values, state, cause, facts)
        self.setting.tell(self.study.record(trial.number))

    def _lose(self, trial: Trial, cause: str, alone: bool = False) -> None:
        """Have the trial go on in another worker, or tell that it failed."""
        times, before = self.losses.get(trial.number, (0, -1))
        step = newest_checkpoint(trial.folder)
        times = 1 if step > before else times + 1
        self.losses[trial.number] = (times, step)
        if times < LIVES:
            self.waiting.append(_Lost(trial, time.monotonic() + (times - 1), alone or times > 1))
            where = "from its last checkpoint" if step >= 0 else "from its beginning"
            self.setting.tell(message=f"trial {trial.number}: {cause}; it goes on {where}")
        elif not self.stopping:
            self._tell(
                trial, "failed", cause=f"{cause} ({times} times in a row without getting further)"
            )

    # --- signals and clocks

    def _stop(self) -> None:
        self.stopping = time.monotonic() + _GRACE
        for key in self.at_work:
            self.workers.interrupt(key)

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for key, assignment in self.at_work.items():
            if assignment.killed:
                continue
            if now - assignment.heard > self.silence:
                assignment.killed = f"no report for {self.silence / 60:g} minutes"
            elif self.stopping and now > self.stopping:
                assignment.killed = "interrupted"
            if assignment.killed:
                self.workers.kill(key)


def newest_checkpoint(folder: Path) -> int:
    """The step of the newest checkpoint in a trial's folder (of its folds: their sum); -1 where
    there is none."""
    found = [
        step
        for each in (folder, *folder.glob("fold-*"))
        if (step := _newest(each / "checkpoints")) >= 0
    ]
    return sum(found) if found else -1


def _newest(checkpoints: Path) -> int:
    try:
        digits = [path.name.removeprefix("step-") for path in checkpoints.iterdir()]
    except OSError:  # not begun, or ended in this moment
        return -1
    return max((int(each) for each in digits if each.isdigit()), default=-1)


def ending(code: int | None) -> str:
    """What an exit code says of a worker that ended without a word."""
    if code is None:
        return "the process that starts workers was lost, and its worker with it"
    if code >= 0:
        return f"its worker ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    why = " (the system does so when memory runs out)" if name == "SIGKILL" else ""
    return f"its worker was ended by {name}{why}"
