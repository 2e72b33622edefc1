"""A worker process: `python -m danlu.serving.worker.main FD PARENT torch|light`. It opens one model and answers what its inbox holds.

One thread works: it empties the inbox, does one step of its desk (a batch of rows, or one token of
every text that is being written), sends what that finished, and looks into the inbox again. So rows
that came meanwhile go with the next step, and nobody waits for a batch to fill. A second thread
tells twice a second that the process lives and how long the present step lasts: a process that is
stopped says nothing, one that works long says so. What the messages are stands in
danlu.serving.messages.

A worker begins by importing what its kind of model needs, before it is told which model: one that
waits there is a spare, which takes the place of one that died without the seconds that importing
takes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, Protocol

from danlu.errors import DanluError
from danlu.search.executors.fork_server import die_with_parent
from danlu.serving.messages import Message, Unpacker, pack

BEAT = 0.5  # seconds between signs of life
_PIECE = 1 << 20
_BEHIND = 4  # steps that a worker stands behind the front: where cores are few, telling a client no must not wait for a product


class Desk(Protocol):
    """Where the work of a worker lies.

    take       begin what one message ("answer", "write") asks
    cancel     forget what was taken under an id
    busy       whether a step would do anything
    step       do a part of the work; what is ready, as packed messages
    rows       how many rows (or tokens) the last step answered
    most       how many a step answers at most, at present
    about      what the front must know of the model, JSON values: "name", "kind" ("rows" | "text"), "fields", "card", ...
    """

    about: dict[str, Any]
    rows: int

    @property
    def most(self) -> int: ...
    @property
    def busy(self) -> bool: ...
    def take(self, header: dict[str, Any], body: bytes) -> Iterable[bytes]: ...
    def cancel(self, id: int) -> None: ...
    def step(self) -> Iterable[bytes]: ...


class Texts(Protocol):
    """What `danlu.serving.text.engine.open_texts(artifact, options)` gives to the desk of a model
    that writes text (danlu.serving.worker.text_handler).

    about       what is told of the model beside its card: {"context": tokens, "chat": whether it was tuned on conversations, ...}
    submit      begin to write under an id; `request` is {"prompt": text} or {"messages": [{"role", "content"}, ...]}, and the options of
                danlu.artifact.generation.Writing. DataError (with the option in `where`) for a request that cannot be met
    step        write one token of every text at work; the events {"id", "piece", "ended": None | "end" | "stop" | "length", "tokens": so far,
                and whatever the route wants to know ("prompt_tokens")}. The same request gives the same pieces, whatever is written
                beside it, cut anywhere: after a worker died the front asks again and skips the letters that it had
    cancel      stop writing; ids that are none are passed over
    busy        whether texts are at work or wait for a slot
    """

    about: dict[str, Any]

    @property
    def busy(self) -> bool: ...
    def submit(self, id: int, request: dict[str, Any]) -> None: ...
    def step(self) -> list[dict[str, Any]]: ...
    def cancel(self, id: int) -> None: ...


class Wire:
    """The worker's end of the socket. Two threads send; one receives."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._turn = threading.Lock()
        self._unpacker = Unpacker()
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def send(self, data: bytes) -> None:
        """Send packed messages. Raises OSError where the front has gone."""
        with self._turn:
            self.end.sendall(data)

    def receive(self, wait: bool) -> list[Message]:
        """The messages that have come; `wait` for one where there is none. Raises EOFError where
        the front has gone."""
        found: list[Message] = []
        while not found or self._poll.poll(0):
            if not found and not wait and not self._poll.poll(0):
                return found
            data = self.end.recv(_PIECE)
            if not data:
                raise EOFError
            found += self._unpacker.feed(data)
        return found


class Pulse:
    """Tells the front from time to time that the process lives, and how long its present step
    lasts."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.began: float | None = None
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def _beat(self) -> None:
        while True:
            began = self.began
            work = None if began is None else round(time.monotonic() - began, 3)
            with contextlib.suppress(OSError):
                self.wire.send(
                    pack({"say": "beat", "work": work, "cpu": round(time.process_time(), 3)})
                )
            time.sleep(BEAT)


def work(wire: Wire, desk: Desk, pulse: Pulse) -> None:
    """Answer until the front has gone."""
    while True:
        inbox = wire.receive(wait=not desk.busy)
        began = pulse.began = time.monotonic()
        for header, body in inbox:
            if header["do"] == "cancel":
                desk.cancel(header["id"])
            else:
                _send(wire, desk.take(header, body))
        if desk.busy:
            _send(wire, desk.step())
            took = round(time.monotonic() - began, 6)
            _send(
                wire, [pack({"say": "step", "rows": desk.rows, "seconds": took, "most": desk.most})]
            )
        pulse.began = None


def _send(wire: Wire, messages: Iterable[bytes]) -> None:
    if data := b"".join(messages):
        wire.send(data)


def _open(wire: Wire, wish: dict[str, Any]) -> Desk | None:
    """The desk of the model that is asked for, which has answered its own example; None where it
    cannot be opened."""
    from danlu.serving.worker import models

    try:
        began = time.perf_counter()
        desk = models.desk(wish)
        wire.send(
            pack(
                {
                    "say": "ready",
                    "about": desk.about,
                    "seconds": round(time.perf_counter() - began, 4),
                }
            )
        )
        return desk
    except DanluError as error:
        problem = error.problem
        told = {"message": problem.message, "where": problem.where, "hint": problem.hint}
    except MemoryError:
        told = {"message": "the model does not fit into memory.", "where": wish["path"], "hint": ""}
    except Exception as error:  # what a library raises of a damaged file has no end
        told = {
            "message": f"the model cannot be opened: {type(error).__name__}: {error}",
            "where": wish["path"],
            "hint": "",
        }
    wire.send(pack({"say": "refused", "error": told}))
    return None


def _prepare(kind: str) -> None:
    """Import what a kind of model needs."""
    import danlu.serving.worker.models

    if kind == "torch":
        import danlu.artifact.prediction  # noqa: F401 - with it, torch


def main() -> None:
    """Import, say so, open the model that is asked for, and answer."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # the front decides when to end: it still owes answers
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(int(sys.argv[2]))
    if hasattr(os, "nice"):
        os.nice(_BEHIND)
    wire = Wire(socket.socket(fileno=int(sys.argv[1])))
    pulse = Pulse(wire)
    try:
        _prepare(sys.argv[3])
        wire.send(pack({"say": "imported"}))
        ((wish, _),) = wire.receive(wait=True)  # nothing follows before "ready"
        desk = _open(wire, wish)
        if desk is not None:
            work(wire, desk, pulse)
    except (EOFError, OSError):  # the front has gone
        pass
    finally:
        sys.stdout.flush()
        os._exit(0)  # libraries' threads need no farewell


if __name__ == "__main__":
    main()
