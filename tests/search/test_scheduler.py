"""What becomes of trials whose workers are lost: real processes, jobs that are plain functions, and a study that only remembers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from danlu.errors import Interrupted
from danlu.recipe import Tune
from danlu.search.context import SearchContext
from danlu.search.executors.processes import LocalWorkers
from danlu.search.executors.scheduler import MAX_LOSSES, Scheduler
from danlu.system.signals import Interruption

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")
HERE = Path(__file__)
HANGS = 600.0  # seconds after which a test fails instead of waiting on


# --- a job


def run(task: Any, connection: Any) -> Any:
    """What a trial of these tests does in a worker: `deaths` times it dies as `how` says, with or
    without a new checkpoint; then it ends."""
    folder, behaviour = Path(task["folder"]), task["behaviour"]
    lives = len(list(folder.glob("life-*")))
    (folder / f"life-{lives}").touch()
    while "after" in behaviour and not (folder.parent / behaviour["after"]).exists():
        time.sleep(0.01)
    if lives < behaviour.get("deaths", 0):
        if behaviour.get("saves"):
            (folder / "checkpoints" / f"step-{lives:010}").mkdir(parents=True)
        _die(behaviour["how"])
    if "scores" in behaviour:
        stopped = next(
            (n for n in range(1, behaviour["scores"] + 1) if connection.score(n, n / 10)), None
        )
        return {
            "state": "pruned" if stopped else "complete",
            "values": [1.0],
            "cause": "",
            "facts": {"stopped": stopped},
        }
    if behaviour.get("waits"):
        connection.beat()
        time.sleep(HANGS)
    others = len([each for each in folder.parent.glob("*/working") if each.exists()])
    (folder / "working").touch()
    time.sleep(behaviour.get("works", 0.0))
    (folder / "working").unlink()
    return {
        "state": "complete",
        "values": [1.0],
        "cause": "",
        "facts": {"lives": lives + 1, "others": others},
    }


def _die(how: str) -> None:
    if how == "hang":
        time.sleep(HANGS)
    if how == "memory":
        raise MemoryError
    if how == "error":
        raise ValueError("no such thing")
    os.kill(os.getpid(), getattr(signal, how))


# --- a study that remembers


@dataclass(frozen=True)
class Trial:
    """A trial of a job's behaviour."""

    number: int
    behaviour: dict[str, Any]
    folder: Path


@dataclass
class Memory:
    """Stands where a study does: gives out behaviours, and remembers what it is told."""

    home: Path
    behaviours: list[dict[str, Any]]
    prune_at: int = 99
    taken: int = 0
    told: dict[int, tuple[str, str, dict[str, Any]]] = field(default_factory=dict)
    curves: dict[int, list[tuple[int, float]]] = field(default_factory=dict)

    def take(self, count: int = 1) -> list[Trial]:
        numbers = range(self.taken, min(self.taken + count, len(self.behaviours)))
        self.taken += len(numbers)
        trials = [
            Trial(number, self.behaviours[number], self.home / f"{number:04}") for number in numbers
        ]
        for trial in trials:
            trial.folder.mkdir(parents=True)
        return trials

    def report(self, trial: Trial, evaluations: int, value: float) -> None:
        self.curves.setdefault(trial.number, []).append((evaluations, value))

    def should_prune(self, trial: Trial) -> bool:
        return len(self.curves[trial.number]) >= self.prune_at

    def tell(
        self, trial: Trial, values: Any, state: str, cause: str = "", facts: Any = None
    ) -> None:
        assert trial.number not in self.told
        self.told[trial.number] = (state, cause, dict(facts or {}))

    def record(self, number: int) -> int:
        return number


@pytest.fixture(scope="module")
def workers() -> Iterator[LocalWorkers]:
    """Workers whose fork server all tests share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE.parent))
        shared = LocalWorkers(f"{HERE.stem}:run", 2, 1)
        close, shared.close = shared.close, lambda: None  # type: ignore[method-assign]
        yield shared
        close()


def work_off(memory: Memory, workers: LocalWorkers, hung: Path | None = None) -> list[str]:
    """Run all trials of a study; what was said meanwhile. Once the file `hung` is there, nothing
    counts as heard of the workers at work for long."""
    said: list[str] = []
    ended: list[int] = []

    def tell(record: int | None = None, message: str = "") -> None:
        ended.append(record) if record is not None else said.append(message)

    def payload(trial: Trial) -> dict[str, Any]:
        return {"folder": str(trial.folder), "behaviour": trial.behaviour}

    with Interruption() as interruption:
        context = SearchContext(Tune(space={"a": [1]}), interruption, {}, notify=tell)
        scheduler = Scheduler(memory, context, workers, payload, HANGS)  # type: ignore[arg-type]
        if hung is not None:
            threading.Thread(target=silence_when, args=(scheduler, hung), daemon=True).start()
        scheduler.run()
    assert not scheduler.running
    assert ended == list(memory.told), "who watches is told of every trial that ended"
    return said


def silence_when(scheduler: Scheduler, hung: Path) -> None:
    """Have the scheduler believe that it heard nothing of the trial of a file for very long."""
    while not hung.exists():
        time.sleep(0.01)
    for running in list(scheduler.running.values()):
        if running.trial.folder == hung.parent:
            running.last_message_at -= 10 * HANGS


def test_every_trial_is_told_once(workers: LocalWorkers, tmp_path: Path) -> None:
    memory = Memory(tmp_path, [{}] * 7)
    work_off(memory, workers)
    assert memory.told == {
        number: ("complete", "", {"lives": 1, "others": memory.told[number][2]["others"]})
        for number in range(7)
    }


def test_scores_reach_the_study_and_its_answer_ends_the_trial(
    workers: LocalWorkers, tmp_path: Path
) -> None:
    memory = Memory(tmp_path, [{"scores": 5}], prune_at=3)
    work_off(memory, workers)
    assert memory.curves == {0: [(1, 0.1), (2, 0.2), (3, 0.3)]}
    assert memory.told[0] == ("pruned", "", {"stopped": 3})


def test_a_lost_trial_goes_on_in_another_worker(workers: LocalWorkers, tmp_path: Path) -> None:
    memory = Memory(
        tmp_path, [{"deaths": MAX_LOSSES - 1, "how": "SIGKILL"}, {}, {"deaths": 1, "how": "memory"}]
    )
    said = work_off(memory, workers)
    assert {
        number: (state, facts["lives"]) for number, (state, _, facts) in memory.told.items()
    } == {
        0: ("complete", MAX_LOSSES),
        1: ("complete", 1),
        2: ("complete", 2),
    }
    assert (
        sum(
            "trial 0" in each and "SIGKILL" in each and "from its beginning" in each
            for each in said
        )
        == MAX_LOSSES - 1
    )


def test_a_trial_lost_again_and_again_is_failed_with_its_cause(
    workers: LocalWorkers, tmp_path: Path
) -> None:
    memory = Memory(
        tmp_path, [{"deaths": 99, "how": "SIGSEGV"}, {"deaths": 99, "how": "memory"}, {}]
    )
    work_off(memory, workers)
    assert memory.told[0][:2] == (
        "failed",
        f"its worker was ended by SIGSEGV ({MAX_LOSSES} times in a row without getting further)",
    )
    assert memory.told[1][0] == "failed" and memory.told[1][1].startswith("out of memory")
    assert memory.told[2][0] == "complete"


def test_a_trial_that_gets_further_each_time_is_never_given_up(
    workers: LocalWorkers, tmp_path: Path
) -> None:
    memory = Memory(tmp_path, [{"deaths": 2 * MAX_LOSSES, "how": "SIGKILL", "saves": True}])
    said = work_off(memory, workers)
    assert memory.told[0][0] == "complete" and memory.told[0][2]["lives"] == 2 * MAX_LOSSES + 1
    assert "from its last checkpoint" in said[-1]


def test_a_failure_that_would_come_again_is_told_at_once(
    workers: LocalWorkers, tmp_path: Path
) -> None:
    memory = Memory(tmp_path, [{"deaths": 99, "how": "error"}])
    assert work_off(memory, workers) == []
    assert memory.told[0][:2] == ("failed", "ValueError: no such thing")
    assert len(list((tmp_path / "0000").glob("life-*"))) == 1


def test_a_worker_that_says_nothing_is_ended_and_its_trial_goes_on(
    workers: LocalWorkers, tmp_path: Path
) -> None:
    memory = Memory(tmp_path, [{"deaths": 1, "how": "hang"}, {}])
    said = work_off(memory, workers, hung=tmp_path / "0000" / "life-0")
    assert memory.told[0][0] == "complete" and memory.told[0][2]["lives"] == 2
    assert "no report for" in said[0]


def test_a_trial_that_ran_out_of_memory_runs_alone(workers: LocalWorkers, tmp_path: Path) -> None:
    beside = {"works": 0.2, "after": "0000/life-0"}
    memory = Memory(tmp_path, [{"deaths": 1, "how": "memory", "works": 0.2}, *[beside] * 12])
    work_off(memory, workers)
    assert {state for state, _, _ in memory.told.values()} == {"complete"}
    assert memory.told[0][2]["others"] == 0
    assert list(memory.told).index(0) < 12, "it waits for those at work, not for the whole study"


def test_an_interruption_reaches_the_workers_and_leaves_their_trials(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys, test_scheduler; test_scheduler.interrupted(sys.argv[1])",
        str(tmp_path),
    ]
    paths = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=2 * HANGS,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert (found.returncode, found.stdout.split()) == (0, ["143", "[0]", "3", "0"]), (
        found.stdout + found.stderr
    )


def interrupted(folder: str) -> None:
    """A study that is ended by SIGTERM while two trials are at work; prints the exit code it asks
    for, which trials were told, how many were taken, and how many workers live on. Runs in a
    process of its own, which the signal may end."""
    memory = Memory(Path(folder), [{}, {"waits": True}, {"waits": True}, {}])
    there = [Path(folder) / f"{number:04}" / "life-0" for number in (1, 2)]

    def strike() -> None:
        end = time.monotonic() + HANGS
        while not all(each.exists() for each in there) and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=strike, daemon=True).start()
    workers = LocalWorkers(f"{HERE.stem}:run", 2, 1)
    try:
        work_off(memory, workers)
    except Interrupted as ended:
        print(ended.exit_code, sorted(memory.told), memory.taken, len(workers.workers))
