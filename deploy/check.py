"""The image of an export, checked without building it.

    python deploy/check.py EXPORT [--linked] [--starts 5] [--json]

EXPORT is the folder of an ONNX export (danlu export ARTIFACT --to onnx). The RUN lines of
deploy/Dockerfile fill a virtual environment with the pinned libraries of deploy/requirements.txt
and danlu; `--linked` links the libraries that are installed here instead, which takes no network
and no time. Then the Dockerfile's own entry point serves the export and its health check asks it.
The result is compared with what the image promises: no torch, under 400 MB in all, the first answer
within 2 s, under 250 MB of memory. Exits with 1 where a promise is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

HERE = Path(__file__).resolve().parent
HOME = HERE.parent
IN_IMAGE = "/opt/danlu"  # the virtual environment of the image
BASE_MB = 125  # python:3.11-slim, unpacked
MOST_MB = 400
MOST_MEMORY_MB = 250
MOST_SECONDS = 2.0
ABSENT = ("torch", "pyarrow", "sklearn", "pandas")

Line = tuple[str, str]


def dockerfile() -> dict[str, list[Line]]:
    """The Dockerfile's lines by stage, each as (instruction, what follows it)."""
    text = re.sub(r"^\s*#.*\n", "", (HERE / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    stages: dict[str, list[Line]] = {}
    lines: list[Line] = []
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            lines = stages[name.strip()] = list(stages.get(base.strip(), []))
        elif word:
            lines.append((word, " ".join(rest.split())))
    return stages


def last_instruction(lines: list[Line], word: str) -> str:
    """What follows the last instruction `word` of a stage."""
    return [rest for name, rest in lines if name == word][-1]


def pins() -> dict[str, str]:
    """The versions of requirements.txt by name, for this platform."""
    lines = (
        line.partition("#")[0].strip()
        for line in (HERE / "requirements.txt").read_text("utf-8").splitlines()
    )
    named = (
        line.partition(";")[0].strip().partition("==")
        for line in lines
        if line and not _elsewhere(line)
    )
    return {name: version for name, _, version in named}


def _elsewhere(line: str) -> bool:
    return "sys_platform" in line and sys.platform == "win32"


def install(environment: Path) -> None:
    """Fill a virtual environment by what the Dockerfile runs, from what it copies. Raises
    CalledProcessError."""
    # The python and pip of this process come first.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with tempfile.TemporaryDirectory(prefix="danlu-source-") as source:
        for word, rest in dockerfile()["export-libraries"]:
            if word == "COPY":
                _copy(rest.split(), Path(source))
            elif word == "RUN" and IN_IMAGE in rest:
                command = rest.replace(IN_IMAGE, shlex.quote(str(environment)))
                subprocess.run(
                    ["sh", "-ec", command],
                    cwd=source,
                    check=True,
                    stdout=sys.stderr,
                    env={**os.environ, "PATH": path},
                )


def _copy(words: list[str], source: Path) -> None:
    """What COPY does with files and folders of the repository."""
    *names, target = words
    for name in names:
        to = source / target / Path(name).name if target.endswith("/") else source / target
        to.parent.mkdir(parents=True, exist_ok=True)
        if (HOME / name).is_dir():
            shutil.copytree(
                HOME / name, to, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
            )
        else:
            shutil.copyfile(HOME / name, to)


def link(environment: Path) -> None:
    """Fill a virtual environment with links to the pinned libraries as they are installed here, and
    to danlu."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (home,) = environment.glob("lib/python*/site-packages")
    for name in pins():
        library = metadata.distribution(name)
        tops = {
            file.parts[0]
            for file in library.files or ()
            if file.parts[0] not in ("..", "__pycache__")
        }
        for top in tops:
            (home / top).symlink_to(Path(str(library.locate_file(top))).resolve())
    (home / "danlu").symlink_to(HOME / "src" / "danlu")
    (home / "danlu-0.dist-info").mkdir()
    (home / "danlu-0.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: danlu\nVersion: {metadata.version('danlu')}\n"
    )
    entry = environment / "bin" / "danlu"
    entry.write_text(f"#!{environment}/bin/python\nfrom danlu.cli.app import main\nmain()\n")
    entry.chmod(0o755)


def megabytes(folder: Path) -> float:
    """What the files of a folder take, in MB of 10^6 bytes; links are not followed."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.lstat().st_size for path in files) / 1e6


def importable(environment: Path) -> list[str]:
    """Those of ABSENT that can be imported in the environment."""
    code = f"import importlib.util as u; print(*[n for n in {ABSENT!r} if u.find_spec(n)])"
    return subprocess.run(
        [environment / "bin" / "python", "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()


class ServedExport:
    """An export served as the image serves it, on a free port, while the `with` lasts.

    seconds   from the start to the first answer
    first     the first answers
    """

    def __init__(self, environment: Path, export: Path, folder: Path) -> None:
        self.environment = environment
        self.lines = dockerfile()["export"]
        token = folder / "token"
        self.token = secrets.token_hex(32)
        token.touch(0o600)
        token.write_text(self.token, "utf-8")
        swap = {
            "0.0.0.0": "127.0.0.1",
            "8000": "0",
            "/run/secrets/danlu-token": str(token),
            "/models/model": str(export),
        }
        words = [
            *json.loads(last_instruction(self.lines, "ENTRYPOINT")),
            *json.loads(last_instruction(self.lines, "CMD")),
        ]
        self.command: list[str] = [str(swap.get(word, word)) for word in words]
        fields = json.loads((export / "export.json").read_bytes().splitlines()[0])["inputs"]
        self.row = {field["name"]: field["example"] for field in fields}

    def __enter__(self) -> ServedExport:
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [self.environment / "bin" / self.command[0], *self.command[1:]],
            stdout=subprocess.PIPE,
            text=True,
            env=self._variables(),
        )
        try:
            assert self.process.stdout is not None
            self.address = self.process.stdout.readline().strip()
            if not self.address:
                raise SystemExit(f"the server did not start: {shlex.join(self.command)}")
            self.first = self.ask(1)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.seconds = time.perf_counter() - self.began
        return self

    def _variables(self) -> dict[str, str]:
        """The environment variables of the image, and those of this process but its Python's."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "VIRTUAL_ENV", "DANLU"))
        }
        pairs = [
            pair.split("=", 1)
            for word, rest in self.lines
            if word == "ENV"
            for pair in shlex.split(rest)
        ]
        return {
            **kept,
            **{name: value for name, value in pairs if name != "PATH"},
            "PATH": f"{self.environment}/bin:{os.defpath}",
        }

    def ask(self, rows: int) -> list[dict[str, Any]]:
        """The answers to the model's own example, `rows` times in one request."""
        body = json.dumps({"rows": [self.row] * rows}).encode()
        return json.loads(self.get("/v1/predict", body))["answers"]

    def get(self, path: str, body: bytes | None = None, token: bool = True) -> bytes:
        """The body of an answer. Raises HTTPError for a status of 400 or more."""
        headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {self.token}"} if token else {}),
        }
        with urlopen(Request(self.address + path, body, headers)) as answer:
            return answer.read()

    def healthy(self) -> bool:
        """Whether the image's HEALTHCHECK succeeds."""
        _, _, command = last_instruction(self.lines, "HEALTHCHECK").partition("CMD ")
        words = [
            word.replace(":8000", f":{self.address.rpartition(':')[2]}")
            for word in json.loads(command)
        ]
        program = [self.environment / "bin" / words[0], *words[1:]]
        return subprocess.run(program, env=self._variables()).returncode == 0

    def memory(self) -> float:
        """Resident MB of all its processes; pages that they share count once for each."""
        processes, total = [self.process.pid], 0.0
        while processes:
            pid = processes.pop()
            with contextlib.suppress(OSError):  # it may end meanwhile
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                processes += map(int, children)
                status = Path(f"/proc/{pid}/status").read_text()
                total += int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024 / 1e6
        return total

    def stop(self) -> int:
        """End the server as the image ends it; its exit code."""
        self.process.send_signal(signal.Signals[last_instruction(self.lines, "STOPSIGNAL")])
        return self.process.wait()

    def __exit__(self, *raised: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def measure(environment: Path, export: Path, folder: Path, starts: int) -> dict[str, Any]:
    """What serving an export takes and answers, as JSON values: "seconds" of each start, the rest
    of the last one."""
    seconds: list[float] = []
    result: dict[str, Any] = {"seconds": seconds}
    for _ in range(starts):
        with ServedExport(environment, export, folder) as server:
            seconds.append(server.seconds)
            result["answers"] = len(server.first)
            result["healthy"] = server.healthy()
            result["ready"] = b'"ready"' in server.get("/readyz", token=False)
            result["page"] = _page(server)
            result["closed to strangers"] = _status(server, "/v1/models") == 401
            result["memory at the start"] = server.memory()
            for _ in range(20):
                server.ask(64)
            result["memory"] = server.memory()
            result["ends with"] = server.stop()
    return result


def _page(server: ServedExport) -> bool:
    """Whether the page is served, and the script that it names."""
    (script,) = re.findall(r'src="([^"]+[.]js)"', server.get("/", token=False).decode())
    return len(server.get(f"/{script}", token=False)) > 0


def _status(server: ServedExport, path: str) -> int:
    try:
        server.get(path, token=False)
    except HTTPError as error:
        return error.code
    except URLError:
        return 0
    return 200


def judge(
    environment: Path, result: dict[str, Any], linked: bool
) -> list[tuple[str, str, str, bool]]:
    """(what, measured, promised, whether it holds) of each promise."""
    present = importable(environment)
    seconds = statistics.median(result["seconds"])
    spread = f"{min(result['seconds']):.2f} to {max(result['seconds']):.2f}"
    closed, memory = result["closed to strangers"], result["memory"]
    healthy, ready = result["healthy"], result["ready"]
    absent = ", ".join(ABSENT) if not present else f"there is {', '.join(present)}"
    rows = [
        ("not importable", absent, "all absent", not present),
        ("answers with its token", f"{result['answers']}", "1", result["answers"] == 1),
        ("without it", "401" if closed else "other", "401", closed),
        ("the page and its program", str(result["page"]), "True", result["page"]),
        ("health check, /readyz", f"{healthy}, {ready}", "True, True", healthy and ready),
        ("ends at STOPSIGNAL with", str(result["ends with"]), "0", result["ends with"] == 0),
        (
            "start to first answer",
            f"{seconds:.2f} s ({spread})",
            f"< {MOST_SECONDS:g} s",
            seconds < MOST_SECONDS,
        ),
        (
            "memory, all processes",
            f"{memory:.0f} MB",
            f"< {MOST_MEMORY_MB} MB",
            memory < MOST_MEMORY_MB,
        ),
    ]
    if not linked:
        size = megabytes(environment)
        total = size + BASE_MB
        text = f"{size:.0f} MB + {BASE_MB} MB of the base = {total:.0f} MB"
        rows.append(("image, unpacked", text, f"< {MOST_MB} MB", total < MOST_MB))
    return rows


@contextlib.contextmanager
def filled_environment(linked: bool) -> Iterator[tuple[Path, Path]]:
    """(a virtual environment with the image's libraries, a temporary folder)."""
    with tempfile.TemporaryDirectory(prefix="danlu-deploy-") as name:
        folder = Path(name)
        (link if linked else install)(folder / "danlu")
        yield folder / "danlu", folder


def main() -> None:
    """Measure, print a table, exit with 1 where a promise is broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path, help="the folder of an export")
    parser.add_argument(
        "--linked",
        action="store_true",
        help="link the libraries installed here instead of installing the pinned ones",
    )
    parser.add_argument(
        "--starts", type=int, default=5, help="how often the server is started; the median counts"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    with filled_environment(options.linked) as (environment, folder):
        result = measure(environment, options.export.resolve(), folder, options.starts)
        rows = judge(environment, result, options.linked)
    if options.json:
        holds_by_name = {what: holds for what, _, _, holds in rows}
        print(json.dumps({"measured": result, "holds": holds_by_name}, indent=1))
    else:
        print(
            f"load of this machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n",
            file=sys.stderr,
        )
        print("| what | measured | promised | |\n|---|---|---|---|")
        print(
            "\n".join(
                f"| {what} | {value} | {promise} | {'holds' if holds else '**broken**'} |"
                for what, value, promise, holds in rows
            )
        )
    sys.exit(0 if all(holds for *_, holds in rows) else 1)


if __name__ == "__main__":
    main()
