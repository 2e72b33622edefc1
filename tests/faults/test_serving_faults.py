"""What a server owes when processes end or hang, when models are damaged, and when clients are slow. Large: serving_kills.py."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_servers import Load, RunningServer, gone, people, serving, table_model
from serving_kills import drained, killed, predicted

for library in ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart"):
    pytest.importorskip(library, reason="pip install 'danlu[serve]'")

pytestmark = pytest.mark.timeout(1800)  # a worker imports torch for a minute on a busy machine
STILL = 600.0  # seconds that a worker may be silent: longer than a test stops it


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table_model(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table_model(tmp_path_factory.mktemp("others"), seed=1)


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    """The model in a folder that a test may spoil."""
    return Path(shutil.copytree(artifact, tmp_path / "model"))


@pytest.fixture
def server(copy: Path, tmp_path: Path) -> Iterator[RunningServer]:
    with serving(copy, tmp_path / "log", silence=STILL) as found:
        yield found
        assert found.end() == 0


def test_a_worker_that_is_killed_takes_no_request_with_it(artifact: Path, tmp_path: Path) -> None:
    found = killed(artifact, tmp_path, kills=2)
    assert {name: found[name] for name in ("code", "lost", "wrong", "other")} == {
        "code": 0,
        "lost": 0,
        "wrong": 0,
        "other": 0,
    }


def test_sigterm_lets_what_was_accepted_be_answered(artifact: Path, tmp_path: Path) -> None:
    found = drained(artifact, tmp_path, wait=0.1)
    assert {name: found[name] for name in ("code", "lost", "wrong", "other")} == {
        "code": 0,
        "lost": 0,
        "wrong": 0,
        "other": 0,
    }
    assert found["answered"] > 0


def test_a_worker_that_hangs_is_replaced_and_one_that_is_slow_is_not(
    copy: Path, tmp_path: Path
) -> None:
    rows = people(10)
    with (
        serving(copy, tmp_path / "log") as server,
        Load(server.port, rows, predicted(copy, rows), clients=2) as load,
    ):
        server.until(lambda: load.count(200) > 5)
        slow = server.worker()
        for _ in range(2):  # it stands still for longer than it takes to give signs of life
            os.kill(slow, signal.SIGSTOP)
            time.sleep(0.7)
            os.kill(slow, signal.SIGCONT)
            answered = load.count(200)
            server.until(lambda: load.count(200) > answered)  # noqa: B023 - called at once
        assert not gone(slow)
        os.kill(slow, signal.SIGSTOP)  # and now for good
        server.until(lambda: gone(slow))
        before = load.count(200)
        server.until(lambda: load.count(200) > before)
        load.stop()
        assert "silent" in server.log.read_text("utf-8")
    assert (load.statuses["lost"], load.wrong, set(load.statuses) - {200, 503, "lost"}) == (
        0,
        [],
        set(),
    )


def test_a_model_is_swapped_under_load_without_a_lost_request(
    copy: Path, other: Path, tmp_path: Path
) -> None:
    rows = people(10)
    one, two = predicted(copy, rows), predicted(other, rows)
    assert one != two
    with serving(copy, tmp_path / "log") as server, Load(server.port, rows, two, clients=4) as load:
        server.until(lambda: load.count(200) > 5)
        shutil.rmtree(copy)
        shutil.copytree(other, copy)
        server.signal(signal.SIGHUP)
        server.until(lambda: "read anew" in server.log.read_text("utf-8"))
        done = load.count(200)
        with load._turn:
            load.wrong.clear()  # answers of the model before, up to here
        server.until(lambda: load.count(200) > done + 10)
        load.stop()
        assert server.end() == 0
    assert (load.statuses["lost"], set(load.statuses) - {200, 503, "lost"}) == (0, set())
    assert len(load.wrong) <= 4  # what was on its way at that moment


def test_a_damaged_model_is_refused_and_the_one_before_stays_even_when_its_worker_dies(
    server: RunningServer, copy: Path
) -> None:
    rows = people(3)
    before = server.predict(rows).json
    weights = copy / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    server.signal(signal.SIGHUP)
    server.until(lambda: "the model before stays" in server.log.read_text("utf-8"))
    assert "weights.safetensors" in server.log.read_text("utf-8")
    assert server.predict(rows).json == before
    shutil.rmtree(copy)
    killed = server.workers()
    for pid in killed:  # the new one opens what was served, not what lies there now
        with contextlib.suppress(ProcessLookupError):  # the loader that refused has just ended
            os.kill(pid, signal.SIGKILL)
    server.until(lambda: server.worker() not in (0, *killed))
    assert server.predict(rows).json == before


def test_a_client_that_goes_away_is_not_waited_for(server: RunningServer) -> None:
    worker = server.worker()
    os.kill(worker, signal.SIGSTOP)
    body = json.dumps({"row": people(1)[0]}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as end:
        end.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
            % (len(body), body)
        )
        server.until(lambda: server.number("danlu_waiting_requests") == 1)
    server.until(lambda: server.number("danlu_waiting_requests") == 0)
    os.kill(worker, signal.SIGCONT)


def test_a_full_server_turns_away_at_once_and_answers_again(copy: Path, tmp_path: Path) -> None:
    with serving(copy, tmp_path / "log", longest_wait=0.001, silence=STILL) as server:
        worker = server.worker()
        os.kill(worker, signal.SIGSTOP)
        body = json.dumps({"row": people(1)[0]}).encode()
        head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        ends = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
        for end in ends:
            end.sendall(head + body)
        server.until(lambda: server.number('danlu_requests_total{model="people",status="503"') > 0)
        answer = server.ask("POST", "/v1/predict", body)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        with socket.create_connection(("127.0.0.1", server.port)) as early:
            early.sendall(head)  # told before its body is there
            told = early.recv(65536)
            assert told.startswith(b"HTTP/1.1 503")
        with socket.create_connection(("127.0.0.1", server.port)) as again:
            for _ in range(3):  # whole, and told without being parsed; the connection stays
                again.sendall(head + body)
                assert again.recv(65536) == told
            again.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert again.recv(65536).startswith(b"HTTP/1.1 200")
        os.kill(worker, signal.SIGCONT)
        statuses = {end.recv(65536)[9:12] for end in ends}
        assert statuses == {b"200", b"503"}
        for end in ends:
            end.close()
        assert server.ask("POST", "/v1/predict", body).status == 200
        assert server.end() == 0


def test_slow_clients_are_disconnected(copy: Path, tmp_path: Path) -> None:
    # Seconds enough for a client on a busy machine to send what it sends at once.
    limits = {"header_seconds": 2.0, "body_seconds": 2.0, "connections": 6}
    with serving(copy, tmp_path / "log", **limits) as server:

        def connect(first: bytes = b"") -> socket.socket:
            end = socket.create_connection(("127.0.0.1", server.port))
            end.sendall(first)
            return end

        silent = connect()
        head = connect(b"POST /v1/predict HTTP/1.1\r\nHost: loc")
        body = connect(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        )
        assert silent.recv(65536) == b""
        assert head.recv(65536).startswith(b"HTTP/1.1 408")
        assert body.recv(65536).startswith(b"HTTP/1.1 408")
        many = [connect() for _ in range(7)]
        assert many[-1].recv(65536).startswith(b"HTTP/1.1 503")
        for end in (silent, head, body, *many):
            end.close()
        assert server.end() == 0
