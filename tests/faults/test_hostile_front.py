"""The HTTP process under hostile requests: no round of its event loop is long, bodies are counted, broken uploads are one line in the log, and who has no token is told no names."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_front import COMPLETIONS, PREDICT, attack, get, makers, post
from running_servers import RunningServer, language_model, people, serving, table_model

for library in ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart"):
    pytest.importorskip(library, reason="pip install 'danlu[serve]'")
if sys.platform != "linux":
    pytest.skip("workers end with their parent by a call of Linux", allow_module_level=True)

pytestmark = pytest.mark.timeout(1800)  # a worker imports torch for a minute on a busy machine

# The most processor time of one round of the event loop. A round of an honest load takes 1 ms; the
# bound leaves room for a machine that is slow. Without turns a round of 500 requests took 1 s.
LONGEST_ROUND = 0.3
QUEUE_BYTES = 24 << 20
# Measures rounds from SIGUSR1 on, in processor time of the thread; SIGUSR2 writes the longest.
METER = """
import asyncio.base_events as events, pathlib, signal, sys, time
sys.modules["uvloop"] = None
run, longest = events.BaseEventLoop._run_once, []
def measured(loop):
    began = time.thread_time()
    run(loop)
    if longest:
        longest[0] = max(longest[0], time.thread_time() - began)
events.BaseEventLoop._run_once = measured
def report(*_):
    pathlib.Path({path!r} + ".new").write_text(str(longest[0]))
    pathlib.Path({path!r} + ".new").rename({path!r})
signal.signal(signal.SIGUSR1, lambda *_: longest.append(0.0))
signal.signal(signal.SIGUSR2, report)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    return [f"people={table_model(folder)}", f"poet={language_model(folder)}"]


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("meter") / "longest"


@pytest.fixture(scope="module")
def server(models: list[str], meter: Path) -> Iterator[RunningServer]:
    with serving(
        models,
        meter.with_name("log"),
        prelude=METER.format(path=str(meter)),
        queue_bytes=QUEUE_BYTES,
        threads=1,
        longest_wait=60.0,
    ) as running:
        running.signal(signal.SIGUSR1)
        yield running


def log_lines(server: RunningServer, pattern: str) -> list[str]:
    return re.findall(f".*{pattern}.*", server.log.read_text("utf-8"))


def test_no_round_of_the_event_loop_is_long_whatever_is_asked(
    server: RunningServer, meter: Path
) -> None:
    requests = [make() for make in makers(megabyte=1 << 20).values()]
    answers = attack(server.port, requests, patience=4.0)
    server.until(lambda: server.predict(people(1)).status == 200)
    server.signal(signal.SIGUSR2)
    server.until(meter.exists)
    assert float(meter.read_text()) < LONGEST_ROUND
    assert not [key for key in answers if key[1] in (500, 502)]
    assert answers["option names", 413] == answers["empty lists", 413] == 1
    assert "Traceback" not in server.log.read_text("utf-8")


def test_bodies_that_do_not_end_take_no_more_memory_than_allowed(server: RunningServer) -> None:
    import psutil

    process = psutil.Process(server.process.pid)
    server.until(lambda: server.number("danlu_body_bytes") == 0)
    before = process.memory_info().rss
    body = b" " * (3 << 20)
    ends = []
    for path in (COMPLETIONS, PREDICT) * 20:  # 120 MB
        end = socket.create_connection(("127.0.0.1", server.port))
        end.settimeout(60)
        with contextlib.suppress(ConnectionError):  # refused while it was sent
            end.sendall(post(path, body, length=len(body) + 1))
        ends.append(end)
    for end in ends:
        end.setblocking(False)
    server.until(lambda: sum(map(is_refused, ends)) > 20)
    assert server.number("danlu_body_bytes") <= QUEUE_BYTES
    assert process.memory_info().rss - before < 3 * QUEUE_BYTES
    assert server.predict(people(1)).status == 200  # a small request has room
    for end in ends:
        end.close()
    server.until(lambda: server.number("danlu_body_bytes") == 0)


def is_refused(end: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError, ConnectionError):
        return end.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 503"
    return False


@pytest.mark.parametrize("path", [COMPLETIONS, PREDICT])
def test_a_broken_upload_is_one_line_in_the_log(server: RunningServer, path: str) -> None:
    shown = re.escape(path)
    before = len(log_lines(server, f"{shown}: the client went away"))
    for number in range(6):
        with socket.create_connection(("127.0.0.1", server.port)) as end:
            wire = post(path, b"{" * 5000, length=9000)
            if number % 2:
                wire = wire.replace(b"Content-Length: 9000", b"Transfer-Encoding: chunked")
                wire = wire.replace(b"{" * 5000, b"1388\r\n" + b"{" * 5000 + b"\r\n")
            end.sendall(wire)
            server.until(lambda: server.number("danlu_body_bytes") >= 5000)
            if number > 2:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.until(lambda: server.number("danlu_body_bytes") == 0)
    log = server.log.read_text("utf-8")
    assert len(log_lines(server, f"{shown}: the client went away")) == before + 6
    assert "Traceback" not in log


def test_who_has_no_token_is_told_no_name(models: list[str], tmp_path: Path) -> None:
    token, word = tmp_path / "token", "a-token-of-many-letters"
    token.write_text(word)
    token.chmod(0o600)
    with serving(models[:1], tmp_path / "log", "--token-file", str(token)) as server:
        server.until(server.ready)
        for path in ("/healthz", "/readyz", "/", "/v1/models", PREDICT, "/v1/models/people", "/no"):
            for method in ("GET", "POST", "HEAD", "OPTIONS"):
                for headers in ({}, {"Authorization": "Bearer wrong"}):
                    answer = server.ask(method, path, None, headers)
                    assert b"people" not in answer.body
                    assert b"danlu" not in answer.body or path == "/"
        assert server.ask("GET", "/readyz").json == {"status": "ready"}
        told = server.ask("GET", "/readyz", None, {"Authorization": f"Bearer {word}"})
        assert told.json == {"status": "ready", "models": {"people": "ready"}}


def test_a_server_ends_well_with_requests_that_have_not_arrived(
    models: list[str], tmp_path: Path
) -> None:
    with serving(models, tmp_path / "log", "--drain-seconds", "1") as server:
        ends = []
        for path in (COMPLETIONS, PREDICT):
            for wire in (post(path, b"{", length=900), post(path, b"{" * 90_000, length=100_000)):
                ends.append(socket.create_connection(("127.0.0.1", server.port)))
                ends[-1].sendall(wire)
        ends.append(socket.create_connection(("127.0.0.1", server.port)))
        ends[-1].sendall(get("/v1/models", 3000))
        server.until(lambda: server.number("danlu_body_bytes") > 170_000)
        assert server.end() == 0
        for end in ends:
            end.close()
        assert "Traceback" not in server.log.read_text("utf-8")


def test_a_line_of_the_log_is_one_line_whatever_a_client_sent() -> None:
    from danlu.serving.server import _LineFormatter

    record = logging.makeLogRecord({"msg": "%s: gone", "args": ("a\n\x1b[31m" + "b" * 9000,)})
    line = _LineFormatter().format(record)
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 1100
