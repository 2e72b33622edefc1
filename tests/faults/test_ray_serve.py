"""Serving on a real Ray cluster of one node: the app's own answers and refusals, also after a worker of a replica is killed; nothing stays."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import psutil
import pytest
from lives import Lives
from ray_cluster import local_cluster

import danlu

TOKEN = "0123456789abcdef-a-token"


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, dict[str, str], int]]:
    for library in (
        "ray",
        "ray.serve",
        "fastapi",
        "opencensus",
        "aiohttp",
    ):  # the last two: ray[serve] has them, ray alone has not
        if importlib.util.find_spec(library.partition(".")[0]) is None:
            pytest.skip("pip install 'danlu[ray]'")
    with local_cluster() as found:
        yield found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("model")
    lines = [f"{number % 7},{number % 3},{'ab'[number % 7 > 3]}" for number in range(200)]
    (home / "rows.csv").write_text("\n".join(["x,y,label", *lines]), "utf-8")
    data = {"source": str(home / "rows.csv"), "target": "label", "checks": "off", "cache": False}
    danlu.train(
        {
            "task": "classification",
            "data": data,
            "model": "linear",
            "train": {"steps": 20, "threads": 1},
        },
        run=home / "run",
    )
    return home / "run"


def ask(
    address: str, path: str, body: dict[str, object] | None = None, token: str | None = TOKEN
) -> tuple[int, dict[str, object]]:
    headers = {
        "Content-Type": "application/json",
        **({"Authorization": f"Bearer {token}"} if token else {}),
    }
    data = None if body is None else json.dumps(body).encode()
    try:
        with urlopen(Request(address + path, data, headers)) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def test_a_model_is_served_on_ray_though_its_worker_is_killed(
    cluster: tuple[str, dict[str, str], int],
    run: Path,
    tmp_path: Path,
    found: Lives,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at, told, head = cluster
    monkeypatch.setattr(found, "environment", {**found.environment, **told})
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(TOKEN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    life = found.fresh(
        "serve", f"sums={run}", "--on", "ray", "--address", at, "--replicas", "1:2", "--token-file", token, "--port", port,
    )  # fmt: skip
    while not (address := life.out.strip()):
        assert life.poll() is None, life.err
        time.sleep(0.05)
    assert address == f"http://127.0.0.1:{port}"

    rows = [{"x": 1.0, "y": 2.0}, {"x": 6.0, "y": 0.0}]
    expected = danlu.load(run).predict({"x": [1.0, 6.0], "y": [2.0, 0.0]})
    status, answered = ask(address, "/v1/predict", {"rows": rows})
    assert status == 200
    assert answered["answers"] == json.loads(json.dumps(expected))
    assert ask(address, "/readyz", token=None)[0] == 200
    assert ask(address, "/v1/predict", {"rows": rows}, token=None)[0] == 401
    status, refused = ask(address, "/v1/predict", {"rows": [{"x": "no number", "y": 2.0}]})
    assert status == 400 and "x" in json.dumps(refused)
    assert ask(address, "/v1/models/sums/reload", {})[0] == 409

    killed = workers(head)  # the one that answers, and the one that waits to take its place
    assert killed
    for each in killed:
        os.kill(each, signal.SIGKILL)
    status, again = ask(address, "/v1/predict", {"rows": rows})  # waits for another one
    assert status == 200 and again == answered

    life.send(signal.SIGTERM)
    assert life.wait() == 0, life.err
    while workers(head):  # a replica that is removed takes its workers with it
        time.sleep(0.1)
    with pytest.raises(URLError):
        urlopen(address + "/healthz", timeout=5)


def test_a_deployment_that_finds_no_room_ends_when_it_is_told_to(
    cluster: tuple[str, dict[str, str], int],
    run: Path,
    found: Lives,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at, told, _ = cluster
    monkeypatch.setattr(found, "environment", {**found.environment, **told})
    life = found.fresh(
        "serve", run, "--on", "ray", "--address", at, "--threads", 64, "--port", 8765
    )
    while "Started Serve" not in life.err:  # it asks for a replica now
        assert life.poll() is None, life.err
        time.sleep(0.1)
    life.send(signal.SIGTERM)
    assert life.wait() == 0, life.err
    assert life.out == ""


def workers(head: int) -> list[int]:
    """Worker processes of danlu on the cluster that have a model, or wait for one."""
    found = []
    for each in psutil.Process(head).children(recursive=True):
        try:
            if (
                "danlu.serving.worker.main" in each.cmdline()
                and each.status() != psutil.STATUS_ZOMBIE
            ):
                found.append(each.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("said", ["0", "4:1", "many", "1:", ""])
def test_a_number_of_replicas_that_is_none_is_refused(said: str, run: Path, found: Lives) -> None:
    life = found.run("serve", run, "--on", "ray", "--replicas", said, code=2)
    assert "no number of replicas" in life.err


def test_where_there_is_no_cluster_one_message_says_so(run: Path, found: Lives) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("pip install 'danlu[ray]'")
    life = found.run("serve", run, "--on", "ray", "--address", "nowhere", code=2)
    assert "there is no Ray cluster at nowhere" in life.err
