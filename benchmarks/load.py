"""A load generator in a process of its own: many clients, every answer checked.

    python benchmarks/load.py PORT PATH BODIES EXPECTED --clients 64 --seconds 20              closed loop: each client waits for its answer
    python benchmarks/load.py PORT PATH BODIES EXPECTED --rate 9000 --seconds 60               open loop: requests come whether or not
                                                                                               the ones before were answered

BODIES is a JSON file with the request bodies (strings), EXPECTED one with the right answers (lists
of numbers, in the order of the module that --answer names). An answer is wrong if a number differs
by more than 1e-4. In the open loop the time of a request counts from the moment when it was due, so
that a generator or server that falls behind is measured too. Prints one JSON object."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import random
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

try:
    import uvloop
except ImportError:
    uvloop = None

TOLERANCE = 1e-4
MOST_CONNECTIONS = 1500
PATIENCE = 15.0  # seconds after which an answer no longer counts


class Tally:
    """What came back."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.wrong = 0
        self.accepted: list[float] = []
        self.refused: list[float] = []
        self.ends: list[float] = []  # when right answers came


class Client(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.transport: Any = None
        self.held = b""
        self.number = -1
        self.due = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.load.free(self)

    def ask(self, number: int, due: float) -> None:
        self.number, self.due = number, due
        self.transport.write(self.load.requests[number])

    def data_received(self, data: bytes) -> None:
        held = self.held = self.held + data if self.held else data
        head = held.find(b"\r\n\r\n")
        if head < 0:
            return
        body = _body(held, head)
        if body is None:
            return
        self.held = b""
        number, self.number = self.number, -1
        self.load.answered(number, self.due, held[9:12].decode(), body)
        if b"connection: close" in held[:head].lower():
            self.transport.close()
        else:
            self.load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.number >= 0:
            self.load.tally.statuses["lost"] += 1
            self.load.pending -= 1
            self.number = -1
        self.load.gone(self)


def _body(buffer: bytes, head: int) -> bytes | None:
    """The body of an answer whose head ends at `head`; None where it has not come whole."""
    names = buffer[: head + 2].lower()
    start = names.find(b"content-length:")
    if start >= 0:
        body = buffer[head + 4 :]
        return body if len(body) >= int(names[start + 15 : names.index(b"\r\n", start)]) else None
    if b"transfer-encoding: chunked" not in names or not buffer.endswith(b"\r\n0\r\n\r\n"):
        return None
    rest, whole = buffer[head + 4 :], b""
    while (size := int(rest[: (line := rest.index(b"\r\n"))], 16)) > 0:
        whole += rest[line + 2 : line + 2 + size]
        rest = rest[line + 4 + size :]
    return whole


class Load:
    """Clients of one server."""

    def __init__(
        self, port: int, path: str, bodies: list[str], expected: list[list[float]], answer: Any
    ) -> None:
        self.port = port
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: "
        encoded = [body.encode() for body in bodies]
        self.requests = [b"%s%d\r\n\r\n%s" % (head.encode(), len(body), body) for body in encoded]
        self.expected = expected
        self.answer = answer
        self.tally = Tally()
        self.pending = 0
        self.open = 0
        self.closed_loop = False
        self.until = 0.0
        self.idle: deque[Client] = deque()
        self.due: deque[tuple[int, float]] = deque()
        self.random = random.Random(0)

    def free(self, client: Client) -> None:
        if self.closed_loop:
            if time.perf_counter() < self.until:
                self.pending += 1
                client.ask(self.random.randrange(len(self.requests)), time.perf_counter())
        elif self.due:
            client.ask(*self.due.popleft())
        else:
            self.idle.append(client)

    def gone(self, client: Client) -> None:
        self.open -= 1
        if client in self.idle:
            self.idle.remove(client)
        if self.closed_loop and time.perf_counter() < self.until:
            self.connect()

    def answered(self, number: int, due: float, status: str, body: bytes) -> None:
        now = time.perf_counter()
        self.pending -= 1
        tally = self.tally
        tally.statuses[status] += 1
        if status != "200":
            tally.refused.append(now - due)
            return
        tally.accepted.append(now - due)
        try:
            answers = self.answer(json.loads(body))
            right = (
                max(
                    abs(one - other)
                    for one, other in zip(answers, self.expected[number], strict=True)
                )
                <= TOLERANCE
            )
        except (ValueError, KeyError, TypeError, IndexError):
            right = False
        tally.wrong += not right
        if right and now - due <= PATIENCE:
            tally.ends.append(now)

    def connect(self) -> None:
        self.open += 1
        task = asyncio.get_running_loop().create_task(self._connect())
        task.add_done_callback(lambda done: done.exception())

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: Client(self), "127.0.0.1", self.port
            )
        except OSError:
            self.open -= 1
            self.tally.statuses["refused connection"] += 1

    async def closed(self, clients: int, seconds: float) -> float:
        self.closed_loop = True
        began = time.perf_counter()
        self.until = began + seconds
        for _ in range(clients):
            self.connect()
        await asyncio.sleep(seconds)
        await self._rest()
        return began

    async def flood(self, rate: float, seconds: float) -> float:
        began = time.perf_counter()
        due = began
        while due < began + seconds:
            now = time.perf_counter()
            while due <= now and due < began + seconds:
                self._send(due)
                due += self.random.expovariate(rate)
            await asyncio.sleep(min(max(due - time.perf_counter(), 0.0), 0.002))
        await self._rest()
        return began

    def _send(self, due: float) -> None:
        self.pending += 1
        number = self.random.randrange(len(self.requests))
        while self.idle:
            client = self.idle.popleft()
            if not client.transport.is_closing():
                client.ask(number, due)
                return
        self.due.append((number, due))
        if self.open < MOST_CONNECTIONS:
            self.connect()

    async def _rest(self) -> None:
        until = time.perf_counter() + PATIENCE
        while self.pending and time.perf_counter() < until:
            await asyncio.sleep(0.05)
        if self.pending:
            self.tally.statuses["no answer"] += self.pending


def told(load: Load, began: float, seconds: float) -> dict[str, Any]:
    tally = load.tally
    right = [end for end in tally.ends if end <= began + seconds]
    return {
        "seconds": seconds,
        "goodput": len(right) / seconds,
        "statuses": dict(tally.statuses),
        "wrong": tally.wrong,
        "accepted": percentiles(tally.accepted),
        "refused": percentiles(tally.refused),
        "cpu_seconds": round(time.process_time(), 2),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    values = sorted(values)
    places = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
    return {
        **{
            name: values[min(int(share * len(values)), len(values) - 1)]
            for name, share in places.items()
        },
        "max": values[-1],
    }


async def run(options: argparse.Namespace) -> dict[str, Any]:
    bodies = json.loads(Path(options.bodies).read_text("utf-8"))
    expected = json.loads(Path(options.expected).read_text("utf-8"))
    load = Load(
        options.port,
        options.path,
        bodies,
        expected,
        importlib.import_module(options.answer).probabilities,
    )
    if options.rate:
        began = await load.flood(options.rate, options.seconds)
    else:
        began = await load.closed(options.clients, options.seconds)
    return told(load, began, options.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("bodies")
    parser.add_argument("expected")
    parser.add_argument(
        "--answer",
        default="servers.danlu",
        help="module whose function `probabilities` reads an answer",
    )
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument(
        "--rate",
        type=float,
        default=0.0,
        help="requests a second (open loop); 0: closed loop",
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    made = run(options)
    print(json.dumps(uvloop.run(made) if uvloop is not None else asyncio.run(made)))


if __name__ == "__main__":
    main()
