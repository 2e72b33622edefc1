"""Trials in processes of this machine, several at a time: for models too large to be stacked.

A worker runs one trial (or what a lost one left of it) and ends, so its memory goes back whole.
Where Linux is, workers are forked from a process that has everything imported; elsewhere each is an
interpreter of its own. Cores are divided among them. What happens when one is lost is decided in
danlu.search.executors.scheduler."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.search.executors import job as assignment
from danlu.search.executors.channel import Channel
from danlu.search.executors.fork_server import Nursery
from danlu.search.executors.scheduler import Crew, ending
from danlu.system import machine, placement
from danlu.system.trust import code_is_allowed

if TYPE_CHECKING:
    from danlu.search.executors.setting import Setting
    from danlu.search.study import Study

_Said = tuple[int, dict[str, Any]]


def run(study: Study, setting: Setting) -> None:
    """Run the study's trials in worker processes until none is left. Raises Interrupted, the trials
    at work saved."""
    recipe, tune = study.recipe, setting.tune
    gpus = placement.gpus(recipe.train)
    slots = tune.workers or len(gpus) or machine.cores()
    # the number of threads has a part in the last bits, so a study keeps it; how many run at a time
    # has none
    cores = study.decide("cores_of_a_worker", lambda: cores_each(machine.cores(), slots))
    workers = LocalWorkers(assignment.JOB, slots, cores, gpus)
    Crew(study, setting, workers, assignment.assignments(study), 60 * tune.hang_minutes).run()


def cores_each(cores: int, workers: int) -> int:
    """The share of a worker."""
    return max(1, cores // workers)


@dataclass
class _Worker:
    channel: Channel
    gone: bool = False  # everything it said was heard
    ended: bool = False  # its exit code is known
    code: int | None = None
    gpu: str | None = None
    process: subprocess.Popen[bytes] | None = None  # of an interpreter of its own


class LocalWorkers:
    """`slots` workers at a time of the job "module:function" (see danlu.search.executors.worker),
    with `cores` cores each.

    Each sees one of the `gpus` (values of CUDA_VISIBLE_DEVICES), the one that the fewest others
    see; without any, what there is."""

    queues = False

    def __init__(
        self,
        job: str,
        slots: int,
        cores: int,
        gpus: Sequence[str] = (),
        fork: bool = sys.platform == "linux",
    ) -> None:
        self.slots = slots
        self.wish = {
            "job": job,
            "cores": cores,
            "allow_code": code_is_allowed(),
            "sys_path": sys.path,
        }
        self.gpus = gpus
        self.fork = fork
        self.nursery: Nursery | None = None
        self.living: dict[int, _Worker] = {}
        self.heard: queue.SimpleQueue[tuple[int, str, Any]] = queue.SimpleQueue()

    def start(self, key: int, task: Any, log: Path) -> None:
        """Begin a task in a process of its own; what it prints goes to the file `log`."""
        worker = self._forked(key) if self.fork else self._spawned(key)
        worker.gpu = self._gpu()
        self.living[key] = worker
        with contextlib.suppress(OSError):  # it died already, and its end will be heard
            worker.channel.send({**self.wish, "task": task, "log": str(log), "gpu": worker.gpu})
        threading.Thread(
            target=self._listen, args=(key, worker.channel), name=f"worker {key}", daemon=True
        ).start()

    def _gpu(self) -> str | None:
        seen = [each.gpu for each in self.living.values()]
        return min(self.gpus, key=seen.count) if self.gpus else None

    def _forked(self, key: int) -> _Worker:
        ours, theirs = socket.socketpair()
        try:
            for _ in range(2):
                if self.nursery is None:
                    self.nursery = Nursery(lambda key, code: self.heard.put((key, "code", code)))
                if (
                    not self.nursery.sound
                ):  # a library started threads when it was imported: forking would be unsound
                    self.fork = False
                    break
                with contextlib.suppress(OSError):
                    self.nursery.start(key, theirs)
                    return _Worker(Channel.of(ours))
                self.nursery.close()  # somebody ended it
                self.nursery = None
        finally:
            theirs.close()
        ours.close()
        return self._spawned(key)

    def _spawned(self, key: int) -> _Worker:
        process = subprocess.Popen(
            [sys.executable, "-m", "danlu.search.executors.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"OMP_WAIT_POLICY": "passive", **os.environ},
            start_new_session=True,  # Ctrl-C at the terminal is for the process of the study, which passes it on
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        threading.Thread(
            target=lambda: self.heard.put((key, "code", process.wait())),
            name=f"end of {key}",
            daemon=True,
        ).start()
        return _Worker(Channel(process.stdout, process.stdin), process=process)  # type: ignore[arg-type]

    def _listen(self, key: int, channel: Channel) -> None:
        while (message := channel.receive()) is not None:
            self.heard.put((key, "message", message))
        self.heard.put((key, "gone", None))

    def event(self, seconds: float) -> _Said | None:
        """(key, message) of the next thing a worker says, waited for so long."""
        try:
            key, what, value = self.heard.get(timeout=seconds)
        except queue.Empty:
            return None
        worker = self.living.get(key)
        if worker is None:
            return None
        if what == "message":
            return key, value
        if what == "code":
            worker.ended, worker.code = True, value
        else:
            worker.gone = True
        if not (worker.gone and worker.ended):
            return None
        del self.living[key]
        worker.channel.close()
        return key, {"say": "ended", "code": worker.code, "cause": ending(worker.code)}

    def answer(self, key: int, stop: bool) -> None:
        """Answer a score."""
        self._send(key, {"stop": stop})

    def interrupt(self, key: int) -> None:
        """Ask a worker to save and end."""
        self._send(key, {"interrupt": True})

    def kill(self, key: int) -> None:
        """Kill -9."""
        worker = self.living.get(key)
        if worker is not None and worker.process is not None:
            worker.process.kill()
        elif self.nursery is not None:
            self.nursery.kill(key)

    def close(self) -> None:
        """End every worker that is left."""
        for worker in self.living.values():
            if worker.process is not None:
                worker.process.kill()
                worker.process.wait()
        if self.nursery is not None:
            self.nursery.close()
            self.nursery = None
        for worker in self.living.values():
            worker.channel.close()
        self.living.clear()

    def _send(self, key: int, message: Mapping[str, Any]) -> None:
        if key in self.living:
            with contextlib.suppress(OSError):
                self.living[key].channel.send(message)
