"""Give trials to workers, handle their messages, and retry trials whose worker is lost.

Only the scheduler talks to the study. A worker that was killed, ran out of memory, hung or met a
full disk costs nothing but time: its trial resumes from its checkpoint in another worker. A trial
that lost MAX_LOSSES workers in a row without writing a new checkpoint has failed.
"""

from __future__ import annotations

import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.errors import Interrupted
from danlu.search.executors.failure import RETRYABLE

if TYPE_CHECKING:
    from danlu.search.context import SearchContext
    from danlu.search.executors.one_trial import EndState
    from danlu.search.study import Study, Trial

MAX_LOSSES = 3
_POLL_SECONDS = 0.2  # to wait for a message before looking at signals and at the clock
_SAVE_SECONDS = 120.0  # that workers have to save after an interruption
# Between two questions for trials where there was none: another process of the study may lose some.
_RETRY_SECONDS = 5.0


class WorkerPool(ABC):
    """Where trials run.

    `start` gets a new key every time. The last event of a key is {"say": "ended", "code", "cause"}:
    the exit code of its process (None where it is unknown) and a sentence. `slots` is how many
    workers may run at the same time. `queues` says whether a task may wait for a place before it
    starts: then its silence counts from its first message on.
    """

    slots: int
    queues: bool = False

    @abstractmethod
    def start(self, key: int, payload: Any, log: Path) -> None:
        """Begin the job of a payload (JSON values) in a worker of its own, without waiting for it;
        what the worker prints goes to the file `log`."""

    @abstractmethod
    def event(self, seconds: float) -> tuple[int, dict[str, Any]] | None:
        """(key, message) of the next message of any worker; None after so many seconds without
        one."""

    @abstractmethod
    def answer(self, key: int, stop: bool) -> None:
        """Answer the last score of a worker: whether its trial shall end."""

    @abstractmethod
    def interrupt(self, key: int) -> None:
        """Ask a worker to save and end."""

    @abstractmethod
    def kill(self, key: int) -> None:
        """End a worker at once, whatever it does."""

    @abstractmethod
    def close(self) -> None:
        """End all workers and release what they used."""


@dataclass
class _RunningTrial:
    trial: Trial
    last_message_at: float  # seconds of the monotonic clock; infinite while it waits for a place
    final_message: dict[str, Any] = field(default_factory=dict)  # how the job ended
    killed_because: str = ""  # why the scheduler killed the worker
    alone: bool = False


@dataclass
class _WaitingTrial:
    """A lost trial that waits for another worker: not before a time, and where `alone`, with no
    other trial beside it."""

    trial: Trial
    not_before: float
    alone: bool


class Scheduler:
    """The loop of one executor.

    `payload_of(trial)` gives the payload of a trial's job. A worker that sends nothing for
    `silence_seconds` counts as hung.
    """

    def __init__(
        self,
        study: Study,
        context: SearchContext,
        workers: WorkerPool,
        payload_of: Callable[[Trial], Any],
        silence_seconds: float,
    ) -> None:
        self.study = study
        self.context = context
        self.workers = workers
        self.payload_of = payload_of
        self.silence_seconds = silence_seconds
        self.running: dict[int, _RunningTrial] = {}
        self.waiting: list[_WaitingTrial] = []
        # By trial: (losses since its newest checkpoint, the step of that checkpoint).
        self.loss_counts: dict[int, tuple[int, int]] = {}
        self.next_key = 0
        self.none_left_at = -math.inf  # when the study last had no trial to give
        self.save_until = 0.0  # after an interruption: until when workers may still save

    def run(self) -> None:
        """Run until the study has no trial left. Raises Interrupted after a signal; the running
        trials are saved by then."""
        interruption = self.context.interruption
        deferred, interruption.deferred = interruption.deferred, True
        try:
            while True:
                if interruption.exit_code and not self.save_until:
                    self._interrupt_all()
                if not self.save_until:
                    self._start_trials()
                if not self.running and (self.save_until or not self.waiting):
                    break
                event = self.workers.event(_POLL_SECONDS)
                if event is not None:
                    self._handle_message(*event)
                self._kill_silent()
        finally:
            interruption.deferred = deferred
            self.workers.close()
        if interruption.exit_code:
            raise Interrupted(
                f"{interruption.name}: the study is saved.",
                exit_code=interruption.exit_code,
                hint="run the same command again: it goes on from there",
            )

    # --- starting trials

    def _start_trials(self) -> None:
        now = time.monotonic()
        for lost in [waiting for waiting in self.waiting if waiting.not_before <= now]:
            if len(self.running) >= (1 if lost.alone else self._slots()):
                return  # no trial overtakes one that waits to run alone
            self.waiting.remove(lost)
            self._start(lost.trial, lost.alone)
        free = self._slots() - len(self.running)
        none_yet = now - self.none_left_at <= _RETRY_SECONDS
        if free <= 0 or none_yet or any(waiting.alone for waiting in self.waiting):
            return
        trials = self.study.take(free)
        self.none_left_at = now if not trials else self.none_left_at
        for started, trial in enumerate(trials):
            if started < free:
                self._start(trial)
            else:  # the trials of a dead process come as a whole batch
                self.waiting.append(_WaitingTrial(trial, now, alone=False))

    def _slots(self) -> int:
        return 1 if any(running.alone for running in self.running.values()) else self.workers.slots

    def _start(self, trial: Trial, alone: bool = False) -> None:
        self.next_key += 1
        last_message_at = math.inf if self.workers.queues else time.monotonic()
        self.running[self.next_key] = _RunningTrial(trial, last_message_at, alone=alone)
        self.workers.start(self.next_key, self.payload_of(trial), trial.folder / "worker.log")

    # --- handling messages

    def _handle_message(self, key: int, message: dict[str, Any]) -> None:
        running = self.running.get(key)
        if running is None:
            return
        running.last_message_at = time.monotonic()
        match message["say"]:
            case "score":
                self.workers.answer(
                    key, self._score(running.trial, message["evaluations"], message["value"])
                )
            case "done" | "failed" | "interrupted":
                running.final_message = message
            case "ended":
                del self.running[key]
                self._handle_end(running, message["cause"])

    def _score(self, trial: Trial, evaluations: int, value: float) -> bool:
        self.study.report(trial, evaluations, value)
        return self.study.should_prune(trial)

    def _handle_end(self, running: _RunningTrial, cause: str) -> None:
        trial, final = running.trial, running.final_message
        # Without a result the worker failed outside of the training.
        outcome = final.get("result", {"state": "failed", **final})
        if final.get("say") in ("done", "failed") and outcome.get("kind") not in RETRYABLE:
            self._tell(
                trial,
                outcome["state"],
                outcome.get("values"),
                outcome["cause"],
                outcome.get("facts"),
            )
        elif final.get("say") in ("done", "failed"):
            self._retry_or_fail(trial, outcome["cause"], outcome["kind"] == "memory")
        elif not self.save_until:
            self._retry_or_fail(trial, running.killed_because or cause)
        # Else it was interrupted: the next start of the study resumes it from its last checkpoint.

    def _tell(
        self,
        trial: Trial,
        state: EndState,
        values: list[float] | None = None,
        cause: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.study.tell(trial, values, state, cause, facts)
        self.context.notify(self.study.record(trial.number))

    def _retry_or_fail(self, trial: Trial, cause: str, alone: bool = False) -> None:
        """Queue a lost trial for another worker; after MAX_LOSSES losses tell that it failed."""
        times, step_before = self.loss_counts.get(trial.number, (0, -1))
        step = newest_checkpoint(trial.folder)
        times = 1 if step > step_before else times + 1
        self.loss_counts[trial.number] = (times, step)
        if times < MAX_LOSSES:
            not_before = time.monotonic() + (times - 1)
            self.waiting.append(_WaitingTrial(trial, not_before, alone or times > 1))
            where = "from its last checkpoint" if step >= 0 else "from its beginning"
            self.context.notify(message=f"trial {trial.number}: {cause}; it goes on {where}")
        elif not self.save_until:
            self._tell(
                trial, "failed", cause=f"{cause} ({times} times in a row without getting further)"
            )

    # --- signals and the clock

    def _interrupt_all(self) -> None:
        self.save_until = time.monotonic() + _SAVE_SECONDS
        for key in self.running:
            self.workers.interrupt(key)

    def _kill_silent(self) -> None:
        """Kill workers that hang, and those that do not save in time after an interruption."""
        now = time.monotonic()
        for key, running in self.running.items():
            if running.killed_because:
                continue
            if now - running.last_message_at > self.silence_seconds:
                running.killed_because = f"no report for {self.silence_seconds / 60:g} minutes"
            elif self.save_until and now > self.save_until:
                running.killed_because = "interrupted"
            if running.killed_because:
                self.workers.kill(key)


def newest_checkpoint(folder: Path) -> int:
    """The step of the newest checkpoint in a trial's folder; with folds, the sum over their
    folders; -1 where there is no checkpoint."""
    steps = [
        step
        for run_folder in (folder, *folder.glob("fold-*"))
        if (step := _newest(run_folder / "checkpoints")) >= 0
    ]
    return sum(steps) if steps else -1


def _newest(checkpoints: Path) -> int:
    try:
        digits = [path.name.removeprefix("step-") for path in checkpoints.iterdir()]
    except OSError:  # the training has not begun, or is over
        return -1
    return max((int(text) for text in digits if text.isdigit()), default=-1)


def describe_exit(code: int | None) -> str:
    """What the exit code of a worker says that ended without a message (None: unknown).

    >>> describe_exit(3)
    'its worker ended with exit code 3'
    >>> describe_exit(-11)
    'its worker was ended by SIGSEGV'
    """
    if code is None:
        return "the process that starts workers was lost, and its worker with it"
    if code >= 0:
        return f"its worker ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    why = " (the system does so when memory runs out)" if name == "SIGKILL" else ""
    return f"its worker was ended by {name}{why}"
