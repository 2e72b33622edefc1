"""How long /healthz takes to answer while hundreds of hostile requests come at once.

    python tests/faults/hostile_front.py [--count 500] [--seed 0] [--rounds 3]

One process opens `count` connections at once and sends what costs a server most: names of
megabytes, hundreds of thousands of keys, lists in lists, texts times n, bodies in chunks of one
byte, thousands of requests behind each other, bodies and headers that do not end, uploads that
break off, answers that nobody reads. Another asks /healthz all the while. Every request is a
function of the seed. Run it on a machine that does nothing else: it measures time, and prints how
busy the machine was. Exit code 1 where an answer of /healthz took more than 100 ms, a request was
answered 500, a process ended, or a traceback was logged."""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from running_servers import RunningServer, language_model, people, serving, table_model

MOST_SECONDS = 0.1  # that an answer of /healthz may take
PATIENCE = 12.0  # seconds after which a client gives up
PREDICT, COMPLETIONS, CHAT = "/v1/models/people/predict", "/v1/completions", "/v1/chat/completions"
JSON_KIND, CSV_KIND, FORM_KIND = "application/json", "text/csv", "multipart/form-data; boundary=B"


@dataclass
class Hostile:
    """One request.

    wire    what is sent
    keeps   bytes of it after which the client sends nothing more; None: all of it
    ends    how the client ends before it has an answer: "reset", "close"; "" where it waits
    reads   whether it reads its answer
    """

    kind: str
    wire: bytes
    keeps: int | None = None
    ends: str = ""
    reads: bool = True


def post(path: str, body: bytes, kind: str = JSON_KIND, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {size}\r\n\r\n".encode() + body


def chunked(path: str, body: bytes, size: int) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunks = (
        b"%x\r\n%s\r\n" % (len(body[start : start + size]), body[start : start + size])
        for start in range(0, len(body), size)
    )
    return head + b"".join(chunks) + b"0\r\n\r\n"


def get(path: str, count: int = 1) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * count


def completion(**change: Any) -> bytes:
    return json.dumps({"model": "poet", "prompt": "a", "max_tokens": 1, **change}).encode()


def row(**change: Any) -> bytes:
    return json.dumps({"row": {**people(1)[0], **change}}).encode()


def makers(megabyte: int) -> Mapping[str, Callable[[], Hostile]]:
    """Requests of every kind; `megabyte` is the number of bytes that stands for a megabyte."""
    big, chat_big = 15 * megabyte, 4 * megabyte - 4096
    keys = {f"k{number}": 1 for number in range(megabyte // 8)}
    talk = [{"role": "user", "content": "hi"}] * min(9_000, chat_big // 40)
    part = b'--B\r\nContent-Disposition: form-data; name="%s"\r\n\r\n1\r\n'

    def plain(kind: str, wire: bytes) -> tuple[str, Callable[[], Hostile]]:
        return kind, lambda: Hostile(kind, wire)

    texts = {
        "model name": completion(model="m" * chat_big),
        "option name": completion(**{"m" * chat_big: 1}),
        "option names": completion(**keys),
        "empty lists": b'{"model":"poet","prompt":"a","x":[' + b"[]," * (chat_big // 3) + b"[]]}",
        "empty names": b'{"model":"poet","prompt":"a","x":{' + b'"":0,' * (chat_big // 5) + b'"":0}}',
        "numbers": b'{"model":"poet","prompt":"a","x":[' + b"9" * 4000 + b",0" * 1000 + b"]}",
        "quotes": b'{"model":"poet","prompt":"' + b'\\"' * (chat_big // 2) + b'"}',
        "long prompt": completion(prompt="a" * chat_big),
        "many texts": completion(prompt="a" * (chat_big // 65), n=64),
        "no number": completion(max_tokens="1" * chat_big),
        "deep": b'{"model":' + b"[" * chat_big,
        "no text": b"\xff" * chat_big,
        "spaces": b" " * chat_big,
    }  # fmt: skip
    rows = {
        "key": json.dumps({"k" * big: 1}).encode(),
        "keys": json.dumps({"row": keys}).encode(),
        "lists": b'{"row":{"age":[' + b"[]," * (big // 3) + b"[]]}}",
        "note": row(note="a " * (big // 2)),
        "digits": row(age="1" * big),
        "date": row(joined="1" * big),
        "deep rows": b"[" * big,
    }
    return dict([
        *(plain(kind, post(COMPLETIONS, body)) for kind, body in texts.items()),
        *(plain(kind, post(PREDICT, body)) for kind, body in rows.items()),
        plain("messages", post(CHAT, json.dumps({"model": "poet", "messages": talk}).encode())),
        plain("wrong messages", post(CHAT, json.dumps({"messages": [1] * len(talk)}).encode())),
        plain("columns", post(PREDICT, b",".join(b"c%d" % n for n in range(big // 9)), CSV_KIND)),
        plain("line", post(PREDICT, b'age\n"' + b"a" * big, CSV_KIND)),
        plain("parts", post(PREDICT, part % b"age" * (megabyte // 70) + b"--B--\r\n", FORM_KIND)),
        plain("part name", post(PREDICT, part % (b"a" * big) + b"--B--\r\n", FORM_KIND)),
        plain("chunks", chunked(COMPLETIONS, completion(prompt="a" * (megabyte // 8)), 1)),
        plain("chunks of rows", chunked(PREDICT, row(note="a" * (megabyte // 8)), 1)),
        plain("nowhere", post("/v1/nowhere", b" " * big)),
        plain("long path", get("/v1/models/" + "m" * 30_000)),
        plain("model path", post(f"/v1/models/{'m' * 30_000}/predict", b"{}")),
        plain("headers", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5_000 + b"\r\n"),
        plain("pipelined", get("/v1/models", megabyte // 400)),
        plain("pipelined probes", get("/readyz", megabyte // 200)),
        plain("description", get("/openapi.json")),
        plain("numbers of the server", get("/metrics")),
        plain("noise", bytes(range(256)) * 40),
        plain("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)),
        ("held prompt", lambda: Hostile("held prompt", post(COMPLETIONS, texts["spaces"]), chat_big - 9)),
        ("held rows", lambda: Hostile("held rows", post(PREDICT, rows["note"]), big - 9)),
        ("held headers", lambda: Hostile("held headers", b"GET / HTTP/1.1\r\nHost: l", None)),
        ("broken upload", lambda: Hostile("broken upload", post(COMPLETIONS, texts["spaces"]), chat_big // 2, "reset")),
        ("closed upload", lambda: Hostile("closed upload", post(PREDICT, rows["note"]), big // 2, "close")),
        ("reset", lambda: Hostile("reset", b"", 0, "reset")),
        ("unread", lambda: Hostile("unread", get("/openapi.json", 200), None, "", False)),
    ])  # fmt: skip


def hostile_requests(count: int, seed: int, megabyte: int = 1 << 20) -> list[Hostile]:
    """`count` requests, every kind about as often, in an order that the seed gives."""
    ways = list(makers(megabyte).values())
    made = [way() for way in ways]
    chosen = [made[number % len(made)] for number in range(count)]
    random.Random(seed).shuffle(chosen)
    return chosen


# --- the client


@dataclass
class _Client:
    request: Hostile
    end: socket.socket
    sent: int = 0
    answer: bytearray = field(default_factory=bytearray)

    @property
    def unsent(self) -> memoryview:
        stop = self.request.keeps
        return memoryview(self.request.wire)[self.sent : stop][: 1 << 18]


def attack(port: int, requests: Sequence[Hostile], patience: float = PATIENCE) -> Counter[Any]:
    """Send all at once; how often each (kind, status) came: 0 where there was no answer."""
    chooser, counts = selectors.DefaultSelector(), Counter[Any]()
    for request in requests:
        end = socket.socket()
        end.setblocking(False)
        end.connect_ex(("127.0.0.1", port))
        both = selectors.EVENT_READ | selectors.EVENT_WRITE
        chooser.register(end, both, _Client(request, end))
    until = time.monotonic() + patience
    while chooser.get_map() and time.monotonic() < until:
        for key, events in chooser.select(0.5):
            client: _Client = key.data
            if not _go_on(client, events, chooser):
                counts[client.request.kind, _status(client)] += 1
                chooser.unregister(client.end)
                client.end.close()
    for key in list(chooser.get_map().values()):
        counts[key.data.request.kind, _status(key.data)] += 1
        key.data.end.close()
    return counts


def _go_on(client: _Client, events: int, chooser: selectors.BaseSelector) -> bool:
    """Send and receive what can be; whether anything is left to do."""
    try:
        if events & selectors.EVENT_READ and client.request.reads:
            data = client.end.recv(1 << 16)
            if not data or _whole(client.answer, data):
                return False
        if events & selectors.EVENT_WRITE:
            client.sent += client.end.send(client.unsent) if client.unsent else 0
            if not client.unsent:
                if client.request.ends == "reset":
                    client.end.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                if client.request.ends:
                    return False
                chooser.modify(client.end, selectors.EVENT_READ, client)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return client.request.reads or not events & selectors.EVENT_READ


def _whole(answer: bytearray, data: bytes) -> bool:
    answer += data
    end = answer.find(b"\r\n\r\n")
    size = re.search(rb"content-length: (\d+)", answer[: max(end, 0)])
    return size is not None and len(answer) - end - 4 >= int(size[1])


def _status(client: _Client) -> int:
    found = re.match(rb"HTTP/1\.1 (\d\d\d)", client.answer)
    return int(found[1]) if found else 0


# --- the measurement


def probe(port: int, path: str = "/healthz") -> tuple[float, int]:
    """(seconds, status) of one request on a connection of its own."""
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as end:
        end.sendall(get(path))
        answer = end.recv(65536)
    return time.perf_counter() - began, int(answer[9:12] or 0)


def measure(server: RunningServer, count: int, seed: int) -> tuple[list[float], Counter[Any]]:
    """The seconds of each answer of /healthz while a process attacks, and what that one got."""
    command = [sys.executable, __file__, "--attack", str(server.port)]
    process = subprocess.Popen(
        [*command, "--count", str(count), "--seed", str(seed)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    process.stdout.readline()  # its requests are made
    probe(server.port)
    process.stdin.write("go\n")
    process.stdin.flush()
    times = []
    while process.poll() is None:
        seconds, status = probe(server.port)
        assert status == 200
        times.append(seconds)
        time.sleep(0.005)
    answered = json.loads(process.stdout.read())
    return times, Counter({tuple(key): number for key, number in answered})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--attack", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        requests = hostile_requests(options.count, options.seed)
        print("made", flush=True)
        sys.stdin.readline()
        print(json.dumps(list(attack(options.attack, requests).items())))
        return 0
    with tempfile.TemporaryDirectory() as name:
        return _attack_a_server(Path(name), options.count, options.seed, options.rounds)


def _attack_a_server(folder: Path, count: int, seed: int, rounds: int) -> int:
    import psutil

    models = [table_model(folder), language_model(folder)]
    slowest, statuses, most_memory = 0.0, Counter[int](), 0
    with serving([f"people={models[0]}", f"poet={models[1]}"], folder / "log") as server:
        before = set(server.workers())
        for number in range(rounds):
            load = os.getloadavg()[0]
            times, answers = measure(server, count, seed + number)
            most_memory = max(most_memory, psutil.Process(server.process.pid).memory_info().rss)
            slowest = max(slowest, *times)
            for (_, status), times_seen in answers.items():
                statuses[status] += times_seen
            median = sorted(times)[len(times) // 2]
            print(
                f"{count} hostile requests: /healthz answered {len(times):,} times, median "
                f"{median * 1000:.1f} ms, slowest {max(times) * 1000:.1f} ms (load {load:.1f})",
                flush=True,
            )
        lost = before - set(server.workers())
        code = server.end()
        log = server.log.read_text("utf-8")
    print(f"answers by status (0: none): {dict(sorted(statuses.items()))}")
    print(f"memory of the front: {most_memory / 1e6:.0f} MB; workers lost: {len(lost)}")
    print(f"tracebacks in the log: {log.count('Traceback')}; lines: {len(log.splitlines())}")
    bad = slowest > MOST_SECONDS or statuses[500] or lost or code or "Traceback" in log
    if "Traceback" in log:
        print(log[-3000:])
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
