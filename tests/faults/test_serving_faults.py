"""What a server owes when processes end or hang, when models are damaged, and when clients are slow. Large: serving_kills.py."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_servers import Load, RunningServer, people, serving, table_model
from serving_kills import drained, gone, killed, predicted

for library in ("fastapi", "uvicorn", "httptools", "prometheus_client", "python_multipart"):
    pytest.importorskip(library, reason="pip install 'danlu[serve]'")


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
    with serving(copy, tmp_path / "log") as found:
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
        for _ in range(
            2
        ):  # half a second at a time it stands still: it is asked less often for a sign of life
            os.kill(slow, signal.SIGSTOP)
            time.sleep(0.7)
            os.kill(slow, signal.SIGCONT)
            time.sleep(0.2)
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
    for pid in server.workers():
        os.kill(pid, signal.SIGKILL)  # the new one opens what was served, not what lies there now
    server.until(lambda: not server.ready())
    server.until(server.ready)
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
    with serving(copy, tmp_path / "log", "--longest-wait", "0.001") as server:
        worker = server.worker()
        os.kill(worker, signal.SIGSTOP)
        body = json.dumps({"row": people(1)[0]}).encode()
        head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(
            body
        )
        ends = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(30)]
        for end in ends:
            end.sendall(head + body)
        server.until(lambda: server.number('danlu_requests_total{model="people",status="503"') > 0)
        answer = server.ask("POST", "/v1/predict", body)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as early:
            early.sendall(head)  # told before its body is there
            told = early.recv(65536)
            assert told.startswith(b"HTTP/1.1 503")
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as again:
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


def test_slow_clients_are_let_go(copy: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = f"from danlu import serve; serve({str(copy)!r}, port=0, header_seconds=0.6, body_seconds=0.6, connections=6)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        silent, head, body = (
            socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(3)
        )
        head.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: loc")
        body.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        )
        assert silent.recv(65536) == b""
        assert head.recv(65536).startswith(b"HTTP/1.1 408")
        assert body.recv(65536).startswith(b"HTTP/1.1 408")
        many = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(7)]
        assert any(end.recv(65536).startswith(b"HTTP/1.1 503") for end in many[-1:])
        for end in (silent, head, body, *many):
            end.close()
    finally:
        process.terminate()
        assert process.wait(60) == 0
        assert process.stdout is not None
        process.stdout.close()
