"""A worker process: `python -m danlu.serving.worker.main FD PARENT torch|light`.

It opens one model and answers the requests that arrive on the socket FD. One thread works: it takes
what has arrived, does one step (a batch of rows, or one token of every text), sends what the step
completed, and looks at the socket again. So rows that arrived meanwhile go with the next step, and
no request waits for a batch to fill. A second thread sends signs of life: a process that hangs
sends none, and one whose step takes long says so.

A worker imports its libraries before it is told which model to open. One that waits there is a
spare: it replaces a worker that died without the seconds that importing takes.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time

from danlu.errors import DanluError
from danlu.serving.protocol.messages import OpenError, OpenModel, pack
from danlu.serving.worker.channel import Channel, Heartbeat
from danlu.serving.worker.handler import Handler
from danlu.system.child_process import die_with_parent

# Niceness of a worker above that of the HTTP process: where cores are few, refusing a request must
# not wait for a matrix product.
_NICENESS = 4


def work(channel: Channel, handler: Handler, heartbeat: Heartbeat) -> None:
    """Answer requests until the HTTP process has gone (EOFError or OSError)."""
    while True:
        messages = channel.receive(wait=not handler.busy)
        began = heartbeat.step_began = time.monotonic()
        for header, body in messages:
            if header["do"] == "cancel":
                handler.cancel(header["id"])
            elif header["do"] != "open":
                channel.send_all(handler.take(header, body))
        if handler.busy:
            channel.send_all(handler.step())
            seconds = round(time.monotonic() - began, 6)
            step = {"say": "step", "rows": handler.rows, "seconds": seconds}
            channel.send(pack({**step, "most": handler.step_rows}))
        heartbeat.step_began = None


def _open(channel: Channel, request: OpenModel) -> Handler | None:
    """The handler of the requested model, which has answered its own example; None where the model
    cannot be opened."""
    from danlu.serving.worker import models

    try:
        began = time.perf_counter()
        handler = models.open_handler(request)
        seconds = round(time.perf_counter() - began, 4)
        channel.send(pack({"say": "ready", "description": handler.description, "seconds": seconds}))
        return handler
    except DanluError as problem:
        error = _open_error(problem)
    except MemoryError:
        error = _described("the model does not fit into memory.", request)
    except Exception as problem:  # libraries raise errors of every kind on damaged files
        message = f"the model cannot be opened: {type(problem).__name__}: {problem}"
        error = _described(message, request)
    channel.send(pack({"say": "refused", "error": error}))
    return None


def _open_error(error: DanluError) -> OpenError:
    problem = error.problem
    return {"message": problem.message, "where": problem.where, "hint": problem.hint}


def _described(message: str, request: OpenModel) -> OpenError:
    return {"message": message, "where": request["path"], "hint": ""}


def _import_libraries(form: str) -> None:
    import danlu.serving.worker.models

    if form == "torch":
        import danlu.artifact.prediction  # noqa: F401 - with it, torch


def main() -> None:
    """Import, report it, open the model that is named, and answer."""
    # The HTTP process decides when workers end: at a signal it still owes answers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(int(sys.argv[2]))
    if sys.platform != "win32":
        os.nice(_NICENESS)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    heartbeat = Heartbeat(channel)
    try:
        _import_libraries(sys.argv[3])
        channel.send(pack({"say": "imported"}))
        ((request, _),) = channel.receive(wait=True)  # nothing follows before "ready"
        assert request["do"] == "open"
        handler = _open(channel, request)
        if handler is not None:
            work(channel, handler, heartbeat)
    except (EOFError, OSError):  # the HTTP process has gone
        pass
    finally:
        sys.stdout.flush()
        os._exit(0)  # the threads of libraries need not be joined


if __name__ == "__main__":
    main()
