"""Worker processes and their connection to the study, with jobs that are plain functions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from danlu.search.executors.failure import describe_failure
from danlu.search.executors.job import StudyConnection
from danlu.search.executors.processes import LocalWorkers
from danlu.search.executors.scheduler import describe_exit, newest_checkpoint

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
HERE = Path(__file__)
HANGS = 600.0  # seconds after which a test fails instead of waiting on


# --- jobs


def double(task: Any, connection: StudyConnection) -> Any:
    """Twice the task, and where it was computed."""
    from danlu.system import machine

    return {"twice": 2 * task, "process": os.getpid(), "cores": machine.cores()}


def ask(task: Any, connection: StudyConnection) -> Any:
    """Tells scores until it is told to stop; how many that were."""
    for number in range(1, 100):
        connection.beat()
        if connection.score(number, number / 10):
            return number
    return 100


def sleep(task: Any, connection: StudyConnection) -> Any:
    """Writes a file's time again and again."""
    while True:
        Path(task).touch()
        time.sleep(0.01)


def refuse(task: Any, connection: StudyConnection) -> Any:
    raise [ValueError("no such thing"), MemoryError(), OSError(28, "No space left on device")][task]


def crash(task: Any, connection: StudyConnection) -> Any:
    print("about to end", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def see(task: Any, connection: StudyConnection) -> Any:
    """The GPUs that it may use, once it is answered."""
    connection.score(1, 0.0)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def run(task: Any, connection: StudyConnection) -> Any:
    """The job of this file that the task names, with its own task."""
    return {each.__name__: each for each in (double, ask, sleep, refuse, crash, see)}[task[0]](
        task[1], connection
    )


# --- what is asked of them


@pytest.fixture(scope="module", params=[True, False], ids=["forked", "spawned"])
def workers(request: pytest.FixtureRequest) -> Iterator[LocalWorkers]:
    """Workers of the jobs of this file, forked or in interpreters of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE.parent))
        made = LocalWorkers(f"{HERE.stem}:run", 2, 1, fork=request.param)
        yield made
        made.close()


def events(
    workers: LocalWorkers, until: str = "ended", count: int = 1, seconds: float = HANGS
) -> list[tuple[int, dict[str, Any]]]:
    """What workers say, up to and with the `count`-th `until`."""
    found: list[tuple[int, dict[str, Any]]] = []
    end = time.monotonic() + seconds
    while sum(message["say"] == until for _, message in found) < count:
        assert time.monotonic() < end, found
        if (said := workers.event(0.1)) is not None:
            found.append(said)
    return found


def wait(condition: Callable[[], object], seconds: float = HANGS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


def alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_every_task_gets_a_process_of_its_own_with_its_share_of_the_cores(
    workers: LocalWorkers, tmp_path: Path
) -> None:
    for key in range(3):
        workers.start(key, ["double", key], tmp_path / f"{key}.log")
    said = events(workers, count=3)
    results = {key: message["result"] for key, message in said if message["say"] == "done"}
    assert {key: each["twice"] for key, each in results.items()} == {0: 0, 1: 2, 2: 4}
    assert len({each["process"] for each in results.values()} | {os.getpid()}) == 4
    assert {each["cores"] for each in results.values()} == {1}
    assert not any(alive(each["process"]) for each in results.values()), (
        "its memory is not given back"
    )
    assert list(tmp_path.iterdir()) == [], "a worker that printed nothing leaves no file"


def test_a_score_is_answered_and_ends_the_job(workers: LocalWorkers, tmp_path: Path) -> None:
    workers.start(7, ["ask", 0], tmp_path / "log")
    scores = []
    while len(scores) < 5:
        key, message = events(workers, "score")[-1]
        scores.append((message["evaluations"], message["value"]))
        workers.answer(key, len(scores) == 5)
    assert scores == [(number, number / 10) for number in range(1, 6)]
    assert [message["result"] for _, message in events(workers) if message["say"] == "done"] == [5]


def test_how_a_job_failed_is_told_in_words(workers: LocalWorkers, tmp_path: Path) -> None:
    for key in range(3):
        workers.start(key, ["refuse", key], tmp_path / f"{key}.log")
    failed = {
        key: (each["kind"], each["cause"])
        for key, each in events(workers, count=3)
        if each["say"] == "failed"
    }
    assert failed[0] == ("error", "ValueError: no such thing")
    assert failed[1] == ("memory", "out of memory: MemoryError")
    assert failed[2][0] == "disk" and "No space left" in failed[2][1]
    assert "Traceback" in (tmp_path / "0.log").read_text(), "who wants to mend it needs the place"


def test_a_killed_a_crashed_and_an_interrupted_worker_are_heard(
    workers: LocalWorkers, tmp_path: Path
) -> None:
    for key in range(2):
        workers.start(key, ["sleep", str(tmp_path / f"{key}.life")], tmp_path / f"{key}.log")
    wait(lambda: all((tmp_path / f"{key}.life").exists() for key in range(2)))
    workers.kill(0)
    (key, message), *_ = events(workers)
    assert (key, message["code"]) == (0, -signal.SIGKILL) and "memory" in message["cause"]
    workers.interrupt(1)
    said = events(workers)
    assert [(key, message["say"]) for key, message in said] == [(1, "interrupted"), (1, "ended")]
    workers.start(2, ["crash", 0], tmp_path / "2.log")
    (_, message), *_ = events(workers)
    assert message["cause"] == "its worker was ended by SIGSEGV"
    assert (
        "about to end" in (tmp_path / "2.log").read_text()
        and "Segmentation fault" in (tmp_path / "2.log").read_text()
    )


def test_a_worker_of_a_study_that_ignores_ctrl_c_can_be_interrupted(
    workers: LocalWorkers, tmp_path: Path
) -> None:
    """As a study does that a shell started in the background; workers inherit it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        workers.start(0, ["sleep", str(tmp_path / "life")], tmp_path / "log")
    finally:
        signal.signal(signal.SIGINT, before)
    wait((tmp_path / "life").exists)
    workers.interrupt(0)
    assert [message["say"] for _, message in events(workers)] == ["interrupted", "ended"]


def test_a_stopped_worker_can_be_killed_and_one_that_died_before_it_began_is_heard(
    workers: LocalWorkers, tmp_path: Path
) -> None:
    workers.start(0, ["sleep", str(tmp_path / "life")], tmp_path / "log")
    workers.kill(0)  # at any moment of its start
    assert events(workers)[-1][1]["code"] == -signal.SIGKILL
    workers.start(1, ["double", 0], tmp_path / "log")
    assert events(workers)[-1][1]["code"] == 0
    workers.kill(1)  # has ended: nothing happens


def test_workers_are_spread_over_the_gpus(
    workers: LocalWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "gpus", ["2", "5"])
    for key in range(4):
        workers.start(key, ["see", 0], tmp_path / "log")
    for key, message in events(workers, "score", 4):
        if message["say"] == "score":
            workers.answer(key, False)
    seen = [
        message["result"] for _, message in events(workers, count=4) if message["say"] == "done"
    ]
    assert sorted(seen) == ["2", "2", "5", "5"]


def test_a_lost_fork_server_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE.parent))
    workers = LocalWorkers(f"{HERE.stem}:run", 2, 1)
    try:
        workers.start(0, ["sleep", str(tmp_path / "life")], tmp_path / "log")
        wait((tmp_path / "life").exists)
        assert workers.fork_server is not None
        workers.fork_server.process.kill()
        (key, message), *_ = events(workers)
        assert key == 0 and "was lost" in message["cause"]
        workers.start(1, ["sleep", str(tmp_path / "again")], tmp_path / "log")
        wait((tmp_path / "again").exists)
    finally:
        workers.close()


PARENT = """
import sys, time
from pathlib import Path
from danlu.search.executors.processes import LocalWorkers
workers = LocalWorkers("test_workers:run", 2, 1, fork={fork})
for key in range(2):
    workers.start(key, ["sleep", sys.argv[1] + str(key)], Path(sys.argv[1] + "log"))
while True:
    time.sleep(1)
"""


@pytest.mark.parametrize("fork", [True, False])
def test_a_study_killed_leaves_no_worker_that_goes_on_writing(fork: bool, tmp_path: Path) -> None:
    life = tmp_path / "life"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(fork=fork), str(life)],
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
    )
    files = [tmp_path / f"life{key}" for key in range(2)]
    wait(lambda: all(each.exists() for each in files))
    family = children(parent.pid)
    assert len(family) >= 2
    if fork:  # one that hangs cannot hear that its study has gone; the system sees to it
        os.kill(family[-1], signal.SIGSTOP)
    parent.kill()
    parent.wait()
    wait(lambda: not any(alive(each) for each in family))
    before = [each.stat().st_mtime_ns for each in files]
    time.sleep(0.1)
    assert [each.stat().st_mtime_ns for each in files] == before


def children(process: int) -> list[int]:
    """The processes that a process started, and those that these started."""
    found = [
        int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]
    return found + [inner for each in found for inner in children(each)]


def test_a_hidden_full_disk_is_seen_behind_the_sentence_that_hides_it() -> None:
    from danlu.errors import CheckpointError, RunHeld

    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise CheckpointError(
                f"a file could not be written: {error.strerror}.", where="run/x"
            ) from None
    except CheckpointError as error:
        found = describe_failure(error)
    assert found.kind == "disk" and "run/x" in found.message and "hint" not in found.message
    assert describe_failure(RunHeld("held")).kind == "held"
    assert (
        describe_failure(
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
            )
        ).kind
        == "memory"
    )
    assert describe_failure(KeyboardInterrupt()).kind == "interrupted"
    assert describe_failure(RuntimeError("x" * 5000)).message.endswith("…")


def test_progress_is_read_off_the_checkpoints(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) == -1
    (tmp_path / "checkpoints" / "step-0000000040").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-0000000200").mkdir()
    (tmp_path / "checkpoints" / ".step-0000000300.ab.writing").mkdir()
    assert newest_checkpoint(tmp_path) == 200
    (tmp_path / "fold-2-of-3" / "checkpoints" / "step-0000000009").mkdir(parents=True)
    assert newest_checkpoint(tmp_path) == 209
    assert describe_exit(-9).startswith(
        "its worker was ended by SIGKILL"
    ) and "71" in describe_exit(71)
