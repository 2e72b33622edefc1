"""Servers to ask, load and kill: real `danlu serve` processes on a free port, and small models for them.

Clients are plain http.client and sockets: what a test says goes over the wire as it stands.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Options of every server: on a machine that is busy, answers and ends take as long as they take.
PATIENT = ("--deadline", "3000", "--drain-seconds", "3000")


def table_model(folder: Path, seed: int = 0) -> Path:
    """The artifact of a small model of every plain kind of column."""
    import danlu

    random = np.random.default_rng(seed)
    ages, cities = random.uniform(18, 80, 160), random.choice(["Paris", "Rome", "Oslo"], 160)
    lines = ["age,city,member,joined,note,income"]
    for age, city, member in zip(ages, cities, random.random(160) > 0.5):
        income = "high" if age + 10 * member + random.normal(0, 5) > 50 else "low"
        note = f"likes {random.choice(['tea', 'coffee', 'music', 'long walks by the sea'])} number {random.integers(1000)}"
        lines.append(
            f"{age:.1f},{city},{str(bool(member)).lower()},20{random.integers(10, 24)}-0{random.integers(1, 10)}-15,{note},{income}"
        )
    data = folder / "people.csv"
    data.write_text("\n".join(lines) + "\n", "utf-8")
    recipe = {
        "name": "people", "task": "classification",
        "data": {"source": {"name": "csv", "path": str(data)}, "target": "income", "columns": {"note": {"kind": "text"}}},
        "model": {"name": "mlp", "hidden": [8]}, "train": {"epochs": 3, "seed": seed, "threads": 1},
    }  # fmt: skip
    danlu.train(danlu.read_recipe(recipe), folder / "run", output="quiet")
    return folder / "run" / "artifact"


def image_model(folder: Path) -> Path:
    """The artifact of a small model of images (8 x 8, grey)."""
    import danlu

    recipe = {
        "name": "digits", "task": "classification",
        "data": {"source": {"name": "sklearn", "set": "digits"}, "target": "label"},
        "model": {"name": "mlp", "hidden": [8]}, "train": {"epochs": 1, "threads": 1},
    }  # fmt: skip
    danlu.train(danlu.read_recipe(recipe), folder / "run", output="quiet")
    return folder / "run" / "artifact"


def language_model(folder: Path) -> Path:
    """The artifact of a small model that writes text, character by character."""
    import danlu

    (folder / "poem.txt").write_text("The moon was bright.\nThe sea was far.\n" * 200, "utf-8")
    recipe = {
        "name": "poet", "task": {"name": "language_modeling", "context": 48, "samples": 0},
        "data": {
            "source": {"name": "text", "path": str(folder / "poem.txt")},
            "transforms": {"text": [{"name": "tokenize", "kind": "characters"}]},
        },
        "model": {"name": "gpt", "size": "tiny", "width": 32},
        "train": {"steps": 20, "batch_size": 16, "threads": 1},
    }  # fmt: skip
    danlu.train(danlu.read_recipe(recipe), folder / "poet", output="quiet")
    return folder / "poet" / "artifact"


def people(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Rows that `table_model` answers."""
    random = np.random.default_rng(seed)
    return [
        {
            "age": round(float(random.uniform(18, 80)), 1),
            "city": str(random.choice(["Paris", "Rome", "Oslo", "Lima"])),
            "member": bool(random.random() > 0.5),
            "joined": f"20{random.integers(10, 24)}-0{random.integers(1, 10)}-15",
            "note": f"likes tea number {random.integers(1000)}",
        }
        for _ in range(count)
    ]


class Answer:
    """What came back."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


class RunningServer:
    """A server that runs. `log` holds what it said."""

    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own; a dict or list is sent as JSON."""
        connection = HTTPConnection("127.0.0.1", self.port)
        sent = dict(headers or {})
        if isinstance(body, dict | list):
            body = json.dumps(body)
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                answer.read(),
            )
        finally:
            connection.close()

    def predict(
        self, rows: Sequence[Mapping[str, Any]], headers: Mapping[str, str] | None = None
    ) -> Answer:
        return self.ask("POST", "/v1/predict", {"rows": list(rows)}, headers)

    def workers(self) -> list[int]:
        """Process numbers of what it started, oldest first."""
        import psutil

        found = psutil.Process(self.process.pid).children()
        return [each.pid for each in sorted(found, key=lambda each: each.create_time())]

    def number(self, name: str) -> float:
        """A number of /metrics, of the first model."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return float(
            next((line for line in lines if line.startswith(name)), " 0").rpartition(" ")[2]
        )

    def worker(self) -> int:
        """The process that answers for the first model."""
        return int(self.number("danlu_worker_process"))

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> int:
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.process.wait()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, however long that takes. Fails where the server has
        ended."""
        while not condition():
            assert self.process.poll() is None, self.log.read_text("utf-8")
            time.sleep(0.02)

    def ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz").status == 200
        except (OSError, HTTPException):
            return False


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except OSError:
        return True


@contextmanager
def serving(
    models: Path | str | Sequence[Path | str],
    log: Path,
    *options: str,
    prelude: str = "",
    **settings: float | str,
) -> Iterator[RunningServer]:
    """`danlu serve` on a free port, ready; ended with the `with`.

    `settings` are those that the command line does not offer: then danlu.serve is called, after
    the Python code `prelude`."""
    paths = [str(path) for path in ([models] if isinstance(models, Path | str) else models)]
    command = [sys.executable, "-m", "danlu", "serve", *paths, "--port", "0", *PATIENT, *options]
    if settings:
        patient = {"port": 0, "deadline": 3000, "drain_seconds": 3000, **settings}
        code = f"{prelude}\nimport danlu; danlu.serve({paths!r}, **{patient!r})"
        command = [sys.executable, "-c", code]
    with log.open("w") as said:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "://" not in line:
            process.wait()
            raise AssertionError(f"it did not start: {log.read_text('utf-8')}")
        server = RunningServer(process, int(line.rsplit(":", 1)[1]), log)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Load:
    """Clients that ask without pause, each on a connection that it keeps, and compare every answer
    with what it must be.

    statuses   how often each came; "lost": a connection ended while a request that was sent whole had no answer
    wrong      answers that are not the expected one
    """

    def __init__(
        self,
        port: int,
        rows: Sequence[Mapping[str, Any]],
        expected: Sequence[Mapping[str, Any]],
        clients: int = 8,
    ) -> None:
        self.port = port
        self.bodies = [json.dumps({"row": row}).encode() for row in rows]
        self.expected = expected
        self.statuses: Counter[Any] = Counter()
        self.wrong: list[Any] = []
        self.times: list[tuple[float, int]] = []  # when each answer came, and its status
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self.threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self.threads:
            thread.join()

    def count(self, status: Any) -> int:
        with self._turn:
            return self.statuses[status]

    def _run(self, first: int) -> None:
        connection: HTTPConnection | None = None
        number = first
        while not self._stop.is_set():
            number += 1
            which = number % len(self.bodies)
            if connection is None:
                connection = HTTPConnection("127.0.0.1", self.port)
                try:
                    connection.connect()
                except OSError:  # nobody listens (any more): nothing was asked
                    connection.close()
                    connection = None
                    self._stop.wait(0.02)
                    continue
            connection = self._one(connection, which)
        if connection is not None:
            connection.close()

    def _one(self, connection: HTTPConnection, which: int) -> HTTPConnection | None:
        try:
            connection.request(
                "POST", "/v1/predict", self.bodies[which], {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as error:
            connection.close()
            with self._turn:
                self.statuses["lost"] += 1
                self.times.append((time.perf_counter(), 0))
                self.lost = error
            return None
        with self._turn:
            self.statuses[answer.status] += 1
            self.times.append((time.perf_counter(), answer.status))
            if answer.status == 200 and not same(
                json.loads(body)["answers"][0], self.expected[which]
            ):
                self.wrong.append((which, json.loads(body)))
        if answer.status == 503:
            self._stop.wait(0.05)
        if answer.will_close:
            connection.close()
            return None
        return connection


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two answers are one: sums of float32 over other batches round differently in the last
    digits."""
    if one["prediction"] != other["prediction"]:
        return False
    return all(
        abs(one["probabilities"][name] - value) < 1e-5
        for name, value in other["probabilities"].items()
    )
