"""What runs in the process of a trial: a job, a line to the process of its study, and the promise not to outlive that one.

A job is a function (task, Line) -> result; task and result are plain data. The line's other end
  says    first {"job": "module:function", "task": ..., "log": file or null, ...}, then {"stop": bool} to each score, {"interrupt": true}
  hears   {"say": "beat"}, {"say": "score", "evaluations", "value"}, and last one of
          {"say": "done", "result"}, {"say": "failed", "kind", "cause"}, {"say": "interrupted"}
Where the other end is gone the process ends at once, as by kill -9: what it was writing is whole or not there (danlu.system.atomic_files).
`python -m danlu.search.executors.worker` speaks so on its standard input and output.
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
from danlu.search.executors.failure import Cause, cause_of
from danlu.system import machine
from danlu.system.trust import allow_code

ORPHANED = 71  # exit code of a worker whose study has gone
_BEAT = 0.5  # seconds between two signs of life


class Line:
    """What a job tells the study."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._beaten = 0.0

    def beat(self) -> None:
        """A sign of life; more than two a second are left out."""
        now = time.monotonic()
        if now - self._beaten >= _BEAT:
            self._beaten = now
            self._send({"say": "beat"})

    def score(self, evaluations: int, value: float) -> bool:
        """Tell the score of evaluation number `evaluations`; True where the trial is to end. Waits
        for the answer."""
        self._send({"say": "score", "evaluations": evaluations, "value": value})
        return self.answers.get()

    def end(self, message: Mapping[str, Any]) -> None:
        """The last word."""
        self._send(message)

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self.channel.send(message)
        except OSError:  # nobody hears it any more
            os._exit(ORPHANED)

    def listen(self) -> None:
        """Hear the other end until it is gone; then end this process. Runs in a thread of its
        own."""
        while (message := self.channel.receive()) is not None:
            if "stop" in message:
                self.answers.put(bool(message["stop"]))
            elif message.get("interrupt"):
                interrupt_main()
        os._exit(ORPHANED)


def interrupt_main() -> None:
    """Interrupt the main thread as Ctrl-C does, system calls too where there is a way."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:  # Windows
        import _thread

        _thread.interrupt_main()


def work(channel: Channel) -> NoReturn:
    """Take the wish from the channel, do the job, tell how it ended, and end the process."""
    wish = channel.receive()
    if wish is None:
        os._exit(ORPHANED)
    line = Line(channel)
    threading.Thread(target=line.listen, name="line", daemon=True).start()
    log = _redirect(wish.get("log"))
    line.end(done(wish, line))
    _drop_empty(log)
    os._exit(0)  # the memory goes back whole; exit handlers of libraries have nothing to do


def done(wish: Mapping[str, Any], line: Any) -> dict[str, Any]:
    """Do the job of a wish; the message that says how it ended."""
    try:
        if wish.get("cores"):
            machine.use_cores(wish["cores"])
        if wish.get("gpu"):
            os.environ["CUDA_VISIBLE_DEVICES"] = wish[
                "gpu"
            ]  # read when CUDA is first used, which is later
        if wish.get("allow_code"):
            sys.path[:] = wish.get("sys_path", sys.path)
            allow_code()
        return {"say": "done", "result": job(wish["job"])(wish["task"], line)}
    except BaseException as error:
        cause = cause_of(error)
        if cause.kind == "interrupted":
            return {"say": "interrupted"}
        with contextlib.suppress(OSError):  # a full disk
            traceback.print_exc()
        return failure(cause)


def failure(cause: Cause) -> dict[str, Any]:
    """The last message of a job that failed."""
    return {"say": "failed", "kind": cause.kind, "cause": cause.sentence}


def job(name: str) -> Callable[[Any, Any], Any]:
    """The function that "module:function" names. The name comes from the process of the study,
    never from a file."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _redirect(log: str | None) -> Path | None:
    """Send what anything prints, and the stack of a crash, to a file (else nowhere); its path."""
    path = Path(log) if log else None
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(path or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError:  # a full disk: the training will say so
        path, opened = None, os.open(os.devnull, os.O_WRONLY)
    for standard in (1, 2):
        os.dup2(opened, standard)
    os.close(opened)
    faulthandler.enable(file=2)
    return path


def _drop_empty(log: Path | None) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(OSError):
        if log is not None and log.stat().st_size == 0:
            log.unlink()


def main() -> NoReturn:
    """A worker in an interpreter of its own."""
    told = os.dup(1)
    work(Channel(os.fdopen(os.dup(0), "rb"), os.fdopen(told, "wb")))


if __name__ == "__main__":
    main()
