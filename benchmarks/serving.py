"""Goodput under load, the same model on the same cores: danlu beside other servers of models.

    python benchmarks/serving.py ARTIFACT [--contestants danlu litserve] [--seconds 20] [--open-seconds 60] [--json]

ARTIFACT is one of a Fashion-MNIST image classifier (danlu train recipes/fashion_mnist_cnn.yaml). Two loads, each from a process of its own
that shares the cores with the server: a closed loop of 64 clients, whose goodput is the server's capacity; and an open loop at three times
danlu's capacity, in which a server has to turn most away. Every answer is compared with Artifact.predict (1e-4). Goodput: right
answers a second.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
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


def contestants() -> list[str]:
    """The files of servers/."""
    return sorted(
        (path.stem for path in (HERE / "servers").glob("*.py") if path.stem != "__init__"), key=lambda name: (name != "danlu", name)
    )


def questions(artifact: str, folder: Path) -> tuple[Path, Path]:
    """Files of request bodies and of what they must be answered."""
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
    bodies, expected = folder / "bodies.json", folder / "expected.json"
    bodies.write_text(json.dumps([json.dumps({"row": {"image": each[:, :, 0].tolist()}}) for each in pixels]), "utf-8")
    expected.write_text(json.dumps([list(each["probabilities"].values()) for each in answers]), "utf-8")
    return bodies, expected


def _test_images() -> Any:
    import gzip

    import numpy as np

    data = Path(os.environ.get("DANLU_DATA", HERE.parent.parent / "shared" / "data"))
    raw = gzip.decompress((data / "fashion_mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    return {"image": np.frombuffer(raw, dtype=np.uint8, offset=16).reshape(-1, 28, 28, 1)[:IMAGES]}


class Server:
    """A contestant that runs, while the `with` lasts."""

    def __init__(self, name: str, artifact: str, style: str) -> None:
        self.module = importlib.import_module(f"servers.{name}")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [sys.executable, "-m", f"servers.{name}", artifact, str(self.port), style]

    def __enter__(self) -> Server:
        self.log = tempfile.TemporaryFile()
        began = time.perf_counter()
        self.process = subprocess.Popen(self.command, cwd=HERE, stdout=self.log, stderr=self.log, start_new_session=True)
        while not self._answers():
            if self.process.poll() is not None or time.perf_counter() - began > START:
                self.log.seek(0)
                raise RuntimeError(f"it did not start: {self.log.read()[-2000:].decode(errors='replace')}")
            time.sleep(0.02)
        self.start_seconds = time.perf_counter() - began
        return self

    def _answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            body = json.dumps({"row": {"image": [[0] * 28] * 28}})
            connection.request("POST", self.module.PATH, body, {"Content-Type": "application/json"})
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def memory(self) -> int:
        """Resident bytes of the server and its processes, pages that they share counted once for each."""
        import psutil

        whole = psutil.Process(self.process.pid)
        return sum(each.memory_info().rss for each in [whole, *whole.children(recursive=True)])

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def load(server: Server, name: str, files: tuple[Path, Path], **options: Any) -> dict[str, Any]:
    """What the load generator says."""
    said = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    command = [
        sys.executable,
        str(HERE / "load.py"),
        str(server.port),
        server.module.PATH,
        *map(str, files),
        "--answer",
        f"servers.{name}",
    ]
    done = subprocess.run([*command, *said], cwd=HERE, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def measure(
    name: str, style: str, artifact: str, files: tuple[Path, Path], options: argparse.Namespace, rate: float
) -> dict[str, Any]:
    """Both loads on one contestant; `rate` of the open loop, 0: three times what it reaches itself."""
    with Server(name, artifact, style) as server:
        load(server, name, files, clients=CLIENTS, seconds=3)  # warm
        quiet = Neighbours()
        closed = load(server, name, files, clients=CLIENTS, seconds=options.seconds)
        rate = rate or OVERLOAD * closed["goodput"]
        opened = load(server, name, files, rate=rate, seconds=options.open_seconds) if options.open_seconds else None
        return {
            "name": server.module.NAME, "style": style, "start_seconds": server.start_seconds, "memory": server.memory(),
            "closed": closed, "open": opened, "rate": rate, "neighbours": quiet.cores(),
        }  # fmt: skip


def line(found: dict[str, Any]) -> str:
    closed, opened = found["closed"], found["open"] or {}
    refused = opened.get("refused", {})
    other = sum(count for status, count in opened.get("statuses", {}).items() if status not in ("200", "503"))
    cells = [
        f"{found['name']} ({found['style']})",
        f"{closed['goodput']:,.0f}",
        f"{1000 * closed['accepted']['p50']:.0f} / {1000 * closed['accepted']['p99']:.0f}",
        f"{opened['goodput']:,.0f} ({opened['goodput'] / closed['goodput']:.0%})" if opened else "",
        f"{1000 * opened['accepted']['p99']:,.0f}" if opened.get("accepted") else "",
        f"{1000 * refused['p50']:.0f} / {1000 * refused['p99']:.0f} / {1000 * refused['max']:.0f}" if refused else "none",
        f"{other:,}",
        f"{closed['wrong'] + opened.get('wrong', 0)}",
        f"{found['memory'] / 1e6:,.0f}",
        f"{found['start_seconds']:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| server | closed loop, 64 clients: answers a second | p50 / p99 ms | open loop: answers a second (of capacity) | accepted p99 ms |"
    " refused p50 / p99 / max ms | neither 200 nor 503 | wrong | memory MB | start s |\n|" + "---|" * 10
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact")
    parser.add_argument("--contestants", nargs="*", default=contestants(), choices=contestants())
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--open-seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))
    artifact = str(Path(options.artifact).resolve())
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = questions(artifact, Path(folder))
        for name in options.contestants:
            module = importlib.import_module(f"servers.{name}")
            missing = [each for each in module.NEEDS if importlib.util.find_spec(each) is None]
            if missing:
                print(f"{module.NAME} is left out: {', '.join(missing)} is not installed", file=sys.stderr)
                continue
            for style in module.STYLES:
                print(f"{module.NAME} ({style}) ...", file=sys.stderr)
                rate = found[0]["rate"] if found and found[0]["name"] == "danlu" else 0.0
                found.append(measure(name, style, artifact, files, options, rate))
                print(line(found[-1]), file=sys.stderr)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print(HEAD)
    print("\n".join(map(line, found)))


if __name__ == "__main__":
    main()
