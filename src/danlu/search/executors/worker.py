"""The process of a worker: it runs one job, talks to the process of its study, and dies with it.

A job is a function (payload, connection) -> result; payload and result are JSON values. Over the
channel the worker
  receives  first {"job": "module:function", "task": payload, "log": file or null, ...}, then
            {"stop": bool} as the answer to each score, and {"interrupt": true}
  sends     {"say": "beat"}, {"say": "score", "evaluations", "value"}, and last one of
            {"say": "done", "result"}, {"say": "failed", "kind", "cause"}, {"say": "interrupted"}
Where the other end is closed, the worker ends at once, as by kill -9; files that it was writing are
complete or absent (danlu.system.atomic_files).
`python -m danlu.search.executors.worker` uses its standard input and output as the channel.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from danlu.search.executors.channel import Channel
from danlu.search.executors.failure import Failure, describe_failure
from danlu.search.executors.job import StudyConnection
from danlu.system import machine
from danlu.system.trust import allow_code, allow_remote

ORPHANED = 71  # exit code of a worker whose study has ended
_HEARTBEAT_SECONDS = 0.5  # between two heartbeats, at least


class ChannelConnection:
    """A job's connection to its study, over a channel (see job.StudyConnection)."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._last_heartbeat = 0.0

    def beat(self) -> None:
        """Send a heartbeat; at most two a second are sent."""
        now = time.monotonic()
        if now - self._last_heartbeat >= _HEARTBEAT_SECONDS:
            self._last_heartbeat = now
            self.send({"say": "beat"})

    def score(self, evaluations: int, value: float) -> bool:
        """Send the score of evaluation number `evaluations` and wait for the answer: whether the
        trial shall end there."""
        self.send({"say": "score", "evaluations": evaluations, "value": value})
        return self.answers.get()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; where the study has ended, end this process."""
        try:
            self.channel.send(message)
        except OSError:
            os._exit(ORPHANED)

    def listen(self) -> None:
        """Handle the study's messages until it has ended; then end this process. Runs in a thread
        of its own."""
        while (message := self.channel.receive()) is not None:
            if "stop" in message:
                self.answers.put(bool(message["stop"]))
            elif message.get("interrupt"):
                interrupt_main()
        os._exit(ORPHANED)


def interrupt_main() -> None:
    """Interrupt the main thread as Ctrl-C does; where the system allows it, also inside a system
    call."""
    if sys.platform != "win32":
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


def run_worker(channel: Channel) -> NoReturn:
    """Receive a request, do its job, send how it ended, and end the process."""
    request = channel.receive()
    if request is None:
        os._exit(ORPHANED)
    connection = ChannelConnection(channel)
    threading.Thread(target=connection.listen, name="connection", daemon=True).start()
    log = _redirect_output(request.get("log"))
    connection.send(execute(request, connection))
    _delete_if_empty(log)
    os._exit(0)  # gives all memory back; exit handlers of libraries have nothing to do


def execute(request: Mapping[str, Any], connection: StudyConnection) -> dict[str, Any]:
    """Do the job of a request; the last message, which says how it ended."""
    try:
        if request.get("cores"):
            machine.use_cores(request["cores"])
        if request.get("gpu"):
            # Read when CUDA is first used, which is later.
            os.environ["CUDA_VISIBLE_DEVICES"] = request["gpu"]
        if request.get("allow_code"):
            sys.path[:] = request.get("sys_path", sys.path)
            allow_code()
        if request.get("allow_remote"):
            allow_remote()
        result = import_job(request["job"])(request["task"], connection)
        return {"say": "done", "result": result}
    except BaseException as error:
        failure = describe_failure(error)
        if failure.kind == "interrupted":
            return {"say": "interrupted"}
        with contextlib.suppress(OSError):  # a full disk
            traceback.print_exc()
        return failed_message(failure)


def failed_message(failure: Failure) -> dict[str, Any]:
    """The last message of a job that failed."""
    return {"say": "failed", "kind": failure.kind, "cause": failure.message}


def import_job(name: str) -> Callable[[Any, StudyConnection], Any]:
    """The function that "module:function" names. The name comes from the process of the study,
    never from a file."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _redirect_output(log: str | None) -> Path | None:
    """Send everything that is printed, and the stack of a crash, to the file `log`, or nowhere; the
    path of the file."""
    path = Path(log) if log else None
    # of a log that is a link, nothing is written; Windows has no such flag
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(path or os.devnull, flags, 0o644)
    except OSError:  # a full disk: the training reports it
        path, opened = None, os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(opened, standard)
    os.close(opened)
    faulthandler.enable(file=2)
    return path


def _delete_if_empty(log: Path | None) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(OSError):
        if log is not None and log.stat().st_size == 0:
            log.unlink()


def main() -> NoReturn:
    """A worker in an interpreter of its own."""
    # A shell that starts a study in the background has it ignore SIGINT, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    messages = os.dup(1)  # standard output is redirected to the log later
    run_worker(Channel(os.fdopen(os.dup(0), "rb"), os.fdopen(messages, "wb")))


if __name__ == "__main__":
    main()
