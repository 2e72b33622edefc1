"""Goodput under load of danlu and other model servers, with the same model on the same cores.

    python benchmarks/serving.py ARTIFACT [--setup FOLDER] [--contestants danlu litserve] [--rounds 2] [--seconds 20]
                                 [--open-seconds 60] [--json]

ARTIFACT is an artifact of a Fashion-MNIST classifier (danlu train recipes/fashion_mnist_cnn.yaml).
The other servers run in virtual environments below FOLDER, which are created if they are missing;
without --setup only danlu is measured. Each of them serves the artifact's weights with plain
PyTorch and batching, as its own guide shows, and with the limit on waiting requests that it offers.

There are two loads, each from a process of its own that shares the cores with the server: a closed
loop of 64 clients, whose goodput is the capacity of the server, and an open loop at three times
that rate, in which the server must refuse most requests. Every answer is compared with
Artifact.predict (tolerance 1e-4). Goodput counts right answers per second."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from measuring import Neighbours

HERE = Path(__file__).parent
IMAGES = 256
CLIENTS = 64
OVERLOAD = 3.0
START = 180.0  # seconds a server may take to begin
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def contestants() -> list[str]:
    """The files of servers/."""
    return sorted(
        (path.stem for path in (HERE / "servers").glob("*.py") if path.stem != "__init__"),
        key=lambda name: (name != "danlu", name),
    )


def questions(artifact: str, folder: Path) -> tuple[Path, Path]:
    """Files of images and of what they must be answered."""
    import numpy as np

    import danlu

    model = danlu.load(artifact)
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 28, 28, 1)).astype(np.uint8)
    try:  # real images where there are any: random ones are all of one class
        table = model.table(_test_images())
        pixels = table.columns["image"].values[:IMAGES]
    except Exception as error:
        print(f"random images ({error})", file=sys.stderr)
    answers = model.predict({"image": pixels})
    images, expected = folder / "images.json", folder / "expected.json"
    images.write_text(json.dumps(pixels[:, :, :, 0].tolist()), "utf-8")
    expected.write_text(
        json.dumps([list(answer["probabilities"].values()) for answer in answers]), "utf-8"
    )
    return images, expected


def body_of(module: Any, image: list[list[int]]) -> str:
    """The request body of an image: everybody's, or a contestant's own."""
    return module.body(image) if hasattr(module, "body") else json.dumps({"row": {"image": image}})


def bodies(module: Any, images: Path) -> Path:
    """A file of request bodies for a contestant."""
    path = images.with_name(f"bodies-{module.NAME.replace(' ', '-')}.json")
    path.write_text(
        json.dumps([body_of(module, image) for image in json.loads(images.read_text("utf-8"))]),
        "utf-8",
    )
    return path


def python_of(name: str, setup: Path | None) -> str:
    """The interpreter that runs a contestant: this one, or that of its environment, which is made
    where it is not there."""
    module = importlib.import_module(f"servers.{name}")
    if not hasattr(module, "REQUIRES"):
        return sys.executable
    if setup is None:
        raise LookupError("its environment is made where --setup says")
    home = setup / name
    python = home / "bin" / "python"
    stamp = home / "made"
    wanted = "\n".join((*module.REQUIRES, *_pinned("torch", "numpy", "safetensors")))
    if not stamp.is_file() or stamp.read_text("utf-8") != wanted:
        print(f"installing {module.NAME} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *wanted.splitlines()],
            check=True,
            stdout=sys.stderr,
        )
        stamp.write_text(wanted, "utf-8")
    return str(python)


def _pinned(*names: str) -> list[str]:
    """The lines of constraints.txt for these libraries: everybody computes with the same ones."""
    lines = (HERE.parent / "constraints.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line.partition("==")[0] in names]


def _test_images() -> Any:
    import gzip

    import numpy as np

    data = Path(os.environ.get("DANLU_DATA", HERE.parent.parent / "shared" / "data"))
    raw = gzip.decompress((data / "fashion_mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    return {"image": np.frombuffer(raw, dtype=np.uint8, offset=16).reshape(-1, 28, 28, 1)[:IMAGES]}


class Server:
    """A contestant that runs, while the `with` lasts."""

    def __init__(self, name: str, artifact: str, style: str, python: str) -> None:
        self.module = importlib.import_module(f"servers.{name}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [python, "-m", f"servers.{name}", artifact, str(self.port), style]

    def __enter__(self) -> Server:
        self.log = tempfile.TemporaryFile()
        began = time.perf_counter()
        self.process = subprocess.Popen(
            self.command,
            cwd=HERE,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            env=ONE_THREAD,
        )
        while not self._answers():
            if self.process.poll() is not None or time.perf_counter() - began > START:
                self.log.seek(0)
                log_end = self.log.read()[-2000:].decode(errors="replace")
                self.__exit__()
                raise RuntimeError(f"it did not start: {log_end}")
            time.sleep(0.02)
        self.start_seconds = time.perf_counter() - began
        return self

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            body = body_of(self.module, [[0] * 28] * 28)
            connection.request("POST", self.module.PATH, body, {"Content-Type": "application/json"})
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def memory(self) -> int:
        """Resident bytes of the server and its processes, pages that they share counted once for
        each."""
        return sum(process.memory_info().rss for process in self._family())

    def cpu(self) -> float:
        """Processor seconds that it and its processes have used."""
        return sum(sum(process.cpu_times()[:2]) for process in self._family())

    def _family(self) -> list[Any]:
        import psutil

        whole = psutil.Process(self.process.pid)
        return [
            process for process in (whole, *whole.children(recursive=True)) if process.is_running()
        ]

    def __exit__(self, *_: object) -> None:
        left = self._family() if self.process.poll() is None else []
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for process in left:
            with contextlib.suppress(Exception):  # it has ended
                process.kill()
        self.log.close()


def load(server: Server, name: str, files: tuple[Path, Path], **options: Any) -> dict[str, Any]:
    """What the load generator says."""
    words = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    command = [
        sys.executable,
        str(HERE / "load.py"),
        str(server.port),
        server.module.PATH,
        str(bodies(server.module, files[0])),
        str(files[1]),
        "--answer",
        f"servers.{name}",
    ]
    done = subprocess.run([*command, *words], cwd=HERE, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def measure(
    name: str,
    style: str,
    artifact: str,
    files: tuple[Path, Path],
    options: argparse.Namespace,
    python: str,
) -> dict[str, Any]:
    """Both loads on one contestant."""
    module = importlib.import_module(f"servers.{name}")
    served = (
        module.prepare(artifact, files[0].parent, style) if hasattr(module, "prepare") else artifact
    )
    with Server(name, served, style, python) as server:
        load(server, name, files, clients=CLIENTS, seconds=min(5.0, options.seconds))  # warm
        quiet, began, used = Neighbours(), time.perf_counter(), server.cpu()
        closed = load(server, name, files, clients=CLIENTS, seconds=options.seconds)
        rate = OVERLOAD * closed["goodput"]
        memory = server.memory()
        opened = (
            load(server, name, files, rate=rate, seconds=options.open_seconds)
            if options.open_seconds
            else None
        )
        others = (quiet.cores() or 0.0) - (server.cpu() - used) / (time.perf_counter() - began)
        return {
            "name": server.module.NAME, "style": style, "start_seconds": server.start_seconds,
            "memory": max(memory, server.memory()), "closed": closed, "open": opened, "rate": rate, "neighbours": max(others, 0.0),
        }  # fmt: skip


def line(measured: dict[str, Any]) -> str:
    closed, opened = measured["closed"], measured["open"] or {}
    refused = opened.get("refused", {})
    statuses = opened.get("statuses", {})
    turned_away = sum(statuses.get(status, 0) for status in ("503", "429"))
    lost = sum(count for status, count in statuses.items() if status not in ("200", "503", "429"))
    cells = [
        f"{measured['name']} ({measured['style']})",
        f"{closed['goodput']:,.0f}",
        f"{1000 * closed['accepted']['p50']:.0f} / {1000 * closed['accepted']['p99']:.0f}"
        if closed["accepted"]
        else "",
        f"{measured['rate']:,.0f}",
        f"{opened['goodput']:,.0f} ({opened['goodput'] / closed['goodput']:.0%})" if opened else "",
        f"{1000 * opened['accepted']['p50']:,.0f} / {1000 * opened['accepted']['p99']:,.0f}"
        if opened.get("accepted")
        else "",
        f"{turned_away:,}",
        f"{1000 * refused['p50']:,.0f} / {1000 * refused['p99']:,.0f} / {1000 * refused['max']:,.0f}"
        if refused
        else "",
        f"{lost:,}",
        f"{closed['wrong'] + opened.get('wrong', 0)}",
        f"{measured['memory'] / 1e6:,.0f}",
        f"{measured['start_seconds']:.1f}",
        f"{measured['neighbours']:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


COLUMNS = (
    "server", "64 clients: answers a second", "p50 / p99 ms", "open loop: asked a second", "answers a second (of capacity)",
    "accepted p50 / p99 ms", "turned away (503, 429)", "refused p50 / p99 / max ms", "lost, other errors", "wrong", "memory MB", "start s",
    "cores others used",
)  # fmt: skip
HEAD = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact")
    parser.add_argument("--setup", type=Path, help="folder of the other servers' environments")
    parser.add_argument("--contestants", nargs="*", default=contestants(), choices=contestants())
    parser.add_argument(
        "--rounds", type=int, default=1, help="measurements of each server, in turn"
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--open-seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    artifact = str(Path(options.artifact).resolve())
    pythons = {}
    for name in options.contestants:
        try:
            pythons[name] = python_of(name, options.setup)
        except LookupError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    measurements: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = questions(artifact, Path(folder))
        for number in range(options.rounds):
            for name, python in pythons.items():
                for style in importlib.import_module(f"servers.{name}").STYLES:
                    print(f"round {number + 1}: {name} ({style}) ...", file=sys.stderr)
                    try:
                        measurements.append(measure(name, style, artifact, files, options, python))
                    except RuntimeError as error:
                        print(f"{name} is left out: {error}", file=sys.stderr)
                    else:
                        print(line(measurements[-1]), file=sys.stderr)
    if options.json:
        print(json.dumps(measurements, indent=1))
        return
    print(HEAD)
    print("\n".join(map(line, measurements)))


if __name__ == "__main__":
    main()
