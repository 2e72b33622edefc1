"""Run trials in worker processes of this machine, several at a time: for models too large to stack.

A worker runs one trial (or resumes it) and ends, which gives all its memory back. On Linux workers
are forked from a process that has everything imported; elsewhere each is an interpreter of its own.
The cores are divided among them. What becomes of the trial of a lost worker is decided in
danlu.search.executors.scheduler.
"""

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
from typing import TYPE_CHECKING, Any, Literal

from danlu.search.executors import job
from danlu.search.executors.channel import Channel
from danlu.search.executors.fork_server import ForkServer
from danlu.search.executors.scheduler import Scheduler, WorkerPool, describe_exit
from danlu.system import machine, placement
from danlu.system.trust import code_is_allowed, remote_is_allowed

if TYPE_CHECKING:
    from danlu.search.context import SearchContext
    from danlu.search.study import Study


def run(study: Study, context: SearchContext) -> None:
    """Run the study's trials in worker processes until none is left. Raises Interrupted after a
    signal, with the running trials saved."""
    recipe, tune = study.recipe, context.tune
    gpus = placement.visible_gpus(recipe.train)
    slots = tune.workers or len(gpus) or machine.cores()
    # The number of threads changes the last bits of a training, so a study keeps it. How many
    # trials run at a time does not.
    cores = study.decide("cores_of_a_worker", lambda: cores_per_worker(machine.cores(), slots))
    workers = LocalWorkers(job.JOB, slots, cores, gpus)
    Scheduler(study, context, workers, job.job_payloads(study), 60 * tune.hang_minutes).run()


def cores_per_worker(cores: int, workers: int) -> int:
    """How many cores each of so many workers may use.

    >>> cores_per_worker(16, 5)
    3
    >>> cores_per_worker(2, 8)
    1
    """
    return max(1, cores // workers)


@dataclass
class _Worker:
    channel: Channel
    all_received: bool = False  # its channel is closed, and every message was received
    ended: bool = False  # its exit code is known
    code: int | None = None
    gpu: str | None = None
    process: subprocess.Popen[bytes] | None = None  # of an interpreter of its own


_Event = tuple[int, Literal["message", "closed", "code"], Any]  # of the worker with a key


class LocalWorkers(WorkerPool):
    """Up to `slots` workers at a time that run the job "module:function" (see
    danlu.search.executors.worker) with `cores` cores each.

    Each sees one of the `gpus` (values of CUDA_VISIBLE_DEVICES), the one that the fewest others
    see; where `gpus` is empty, it sees what this process sees. `fork` False: every worker is an
    interpreter of its own.
    """

    def __init__(
        self,
        job: str,
        slots: int,
        cores: int,
        gpus: Sequence[str] = (),
        fork: bool = sys.platform == "linux",
    ) -> None:
        self.slots = slots
        self.request = {
            "job": job,
            "cores": cores,
            "allow_code": code_is_allowed(),
            "allow_remote": remote_is_allowed(),
            "sys_path": sys.path,
        }
        self.gpus = gpus
        self.fork = fork
        self.fork_server: ForkServer | None = None
        self.workers: dict[int, _Worker] = {}
        self.events: queue.SimpleQueue[_Event] = queue.SimpleQueue()

    def start(self, key: int, payload: Any, log: Path) -> None:
        """Begin a job in a process of its own; what it prints goes to the file `log`."""
        worker = self._fork_worker(key) if self.fork else self._spawn_worker(key)
        worker.gpu = self._least_used_gpu()
        self.workers[key] = worker
        request = {**self.request, "task": payload, "log": str(log), "gpu": worker.gpu}
        with contextlib.suppress(OSError):  # it has died already: its end is reported as an event
            worker.channel.send(request)
        threading.Thread(
            target=self._receive_messages,
            args=(key, worker.channel),
            name=f"worker {key}",
            daemon=True,
        ).start()

    def _least_used_gpu(self) -> str | None:
        used = [worker.gpu for worker in self.workers.values()]
        return min(self.gpus, key=used.count) if self.gpus else None

    def _fork_worker(self, key: int) -> _Worker:
        study_end, worker_end = socket.socketpair()
        try:
            for _ in range(2):
                if self.fork_server is None:
                    self.fork_server = ForkServer(
                        lambda key, code: self.events.put((key, "code", code))
                    )
                if not self.fork_server.is_single_threaded:
                    self.fork = False
                    break
                with contextlib.suppress(OSError):
                    self.fork_server.start(key, worker_end)
                    return _Worker(Channel.from_socket(study_end))
                self.fork_server.close()  # somebody ended it
                self.fork_server = None
        finally:
            worker_end.close()
        study_end.close()
        return self._spawn_worker(key)

    def _spawn_worker(self, key: int) -> _Worker:
        process = subprocess.Popen(
            [sys.executable, "-m", "danlu.search.executors.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"OMP_WAIT_POLICY": "passive", **os.environ},
            # Ctrl-C at the terminal is for the process of the study, which passes it on.
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None
        threading.Thread(
            target=lambda: self.events.put((key, "code", process.wait())),
            name=f"end of {key}",
            daemon=True,
        ).start()
        return _Worker(Channel(process.stdout, process.stdin), process=process)

    def _receive_messages(self, key: int, channel: Channel) -> None:
        while (message := channel.receive()) is not None:
            self.events.put((key, "message", message))
        self.events.put((key, "closed", None))

    def event(self, seconds: float) -> tuple[int, dict[str, Any]] | None:
        """(key, message) of the next message of any worker; None after so many seconds without
        one."""
        try:
            key, what, value = self.events.get(timeout=seconds)
        except queue.Empty:
            return None
        worker = self.workers.get(key)
        if worker is None:
            return None
        if what == "message":
            return key, value
        if what == "code":
            worker.ended, worker.code = True, value
        else:
            worker.all_received = True
        if not (worker.all_received and worker.ended):
            return None
        del self.workers[key]
        worker.channel.close()
        return key, {"say": "ended", "code": worker.code, "cause": describe_exit(worker.code)}

    def answer(self, key: int, stop: bool) -> None:
        """Answer the last score of a worker: whether its trial shall end."""
        self._send(key, {"stop": stop})

    def interrupt(self, key: int) -> None:
        """Ask a worker to save and end."""
        self._send(key, {"interrupt": True})

    def kill(self, key: int) -> None:
        """Kill -9 a worker."""
        worker = self.workers.get(key)
        if worker is not None and worker.process is not None:
            worker.process.kill()
        elif self.fork_server is not None:
            self.fork_server.kill(key)

    def close(self) -> None:
        """End every worker that is left."""
        for worker in self.workers.values():
            if worker.process is not None:
                worker.process.kill()
                worker.process.wait()
        if self.fork_server is not None:
            self.fork_server.close()
            self.fork_server = None
        for worker in self.workers.values():
            worker.channel.close()
        self.workers.clear()

    def _send(self, key: int, message: Mapping[str, Any]) -> None:
        if key in self.workers:
            with contextlib.suppress(OSError):
                self.workers[key].channel.send(message)
