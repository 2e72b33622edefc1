"""Processes of `danlu train` that tests kill, limit and signal: started fresh, or forked from a
process that has imported everything.

A forked process starts in a few milliseconds, a fresh one must import torch first. Forking is safe
because the parent never trains and has one thread, which is asserted before each fork. After the
fork danlu.cli.app.main runs with the arguments of the command line. Signals, exit codes, limits and
locks work alike in both kinds."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass
class Life:
    """One process. `err` and `out` hold what it has said so far."""

    pid: int
    folder: Path
    returncode: Callable[[], int | None]
    code: int | None = field(default=None)

    def poll(self) -> int | None:
        """The exit code (minus the signal's number where one ended it), None while it lives."""
        if self.code is None:
            self.code = self.returncode()
        return self.code

    def wait(self, seconds: float = 120.0) -> int:
        """The exit code, once it has ended. TimeoutError (and its death) where it takes longer."""
        end = time.monotonic() + seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                self.send(signal.SIGKILL)
                raise TimeoutError(f"still running after {seconds} s; stderr: {self.err}")
            time.sleep(0.002)
        return code

    def send(self, number: int) -> None:
        """Send it a signal, if it still lives."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    @property
    def out(self) -> str:
        return self._said("out")

    @property
    def err(self) -> str:
        return self._said("err")

    def _said(self, name: str) -> str:
        path = self.folder / name
        return path.read_text("utf-8") if path.exists() else ""  # it may not have got so far


class Lives:
    """Starts lives: `fork` from a process with everything imported, `fresh` as a new interpreter. A
    context manager."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, **ONE_THREAD, "DANLU_CACHE": str(home / "cache")}
        self.count = 0
        self.nursery: subprocess.Popen[str] | None = None

    def __enter__(self) -> Lives:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.nursery is not None:
            self.nursery.communicate(timeout=60)  # its input ends, so it does

    def _folder(self) -> Path:
        self.count += 1
        folder = self.home / f"life-{self.count}"
        folder.mkdir(parents=True)
        return folder

    def fresh(
        self, *arguments: str | Path, cwd: Path | None = None, before: Sequence[str] = ()
    ) -> Life:
        """A new interpreter: `before python -m danlu arguments`."""
        folder = self._folder()
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen(
                [*before, sys.executable, "-m", "danlu", *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=self.environment,
            )  # fmt: skip
        return Life(process.pid, folder, process.poll)

    def fork(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        limits: Mapping[str, int] | None = None,
        cores: Sequence[int] = (),
        stderr: str = "",
    ) -> Life:
        """A forked process that runs the same command.

        `limits` by name (RLIMIT_FSIZE, ...); `cores` it may use (none: all); `stderr`: a file that
        takes the place of the one read by `err`."""
        if self.nursery is None:
            self.nursery = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self.environment,
            )
        folder = self._folder()
        wish = {
            "arguments": [str(each) for each in arguments], "folder": str(folder), "cwd": str(cwd or Path.cwd()),
            "limits": dict(limits or {}), "cores": list(cores), "stderr": stderr,
        }  # fmt: skip
        assert self.nursery.stdin is not None and self.nursery.stdout is not None
        self.nursery.stdin.write(json.dumps(wish) + "\n")
        self.nursery.stdin.flush()
        answer = self.nursery.stdout.readline()
        if not answer:
            raise RuntimeError("the process that lives are forked from has ended")
        return Life(int(answer), folder, lambda: _status(folder / "status"))

    def run(
        self, *arguments: str | Path, code: int | None = 0, seconds: float = 120.0, **options: Any
    ) -> Life:
        """A forked life that has ended, with exit code `code` (None: any) and no traceback."""
        life = self.fork(*arguments, **options)
        found = life.wait(seconds)
        assert "Traceback" not in life.err, life.err
        assert code is None or found == code, f"exit code {found}, not {code}; stderr: {life.err}"
        return life


def _status(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        return None


# --- what is forked from


def _nursery() -> None:
    """Fork a process for each line of stdin; the line says what it runs."""
    import select

    import sklearn.datasets  # noqa: F401

    import danlu.cli.app
    import danlu.training.loop  # noqa: F401 - with it, everything
    from danlu.search import tune  # noqa: F401

    with contextlib.suppress(ImportError):
        import optuna.storages._rdb.storage  # noqa: F401
        import scipy.stats  # noqa: F401 - what samplers import at their first suggestion

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started the lives
    waiting: dict[int, Path] = {}
    rest = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.005 if waiting else None)
        while waiting and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            status = waiting.pop(ended[0]) / "status"
            beside = status.with_name("status.writing")
            beside.write_text(str(os.waitstatus_to_exitcode(ended[1])))
            beside.rename(status)
        if not ready:
            continue
        data = os.read(0, 1 << 16)
        if not data:
            os._exit(0)
        rest += data
        *lines, rest = rest.split(b"\n")
        for line in lines:
            wish = json.loads(line)
            assert len(list(Path("/proc/self/task").iterdir())) == 1, (
                "a process with threads must not be forked"
            )
            pid = os.fork()
            if pid == 0:
                _live(wish)
            waiting[pid] = Path(wish["folder"])
            print(pid, flush=True)


def _live(wish: dict[str, Any]) -> None:
    """Become `danlu ARGUMENTS`; never returns."""
    code = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        folder = Path(wish["folder"])
        for name, number in (("out", 1), ("err", 2)):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
        if wish["stderr"]:
            os.dup2(os.open(wish["stderr"], os.O_WRONLY), 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(wish["cwd"])
        if wish["cores"]:
            os.sched_setaffinity(0, wish["cores"])
        for name, value in wish["limits"].items():
            resource.setrlimit(getattr(resource, name), (value, value))
        sys.argv = ["danlu", *wish["arguments"]]
        from danlu.cli.app import main

        try:
            main()
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


# --- what two runs are compared by


def last_checkpoint(run: Path) -> Path:
    """The folder of the newest checkpoint."""
    return max((run / "checkpoints").glob("step-" + 10 * "[0-9]"))


def fingerprint(run: Path) -> dict[str, str]:
    """SHA-256 of every file that a run must repeat: artifact, metric log, lock file, final
    checkpoint; by name."""
    files = [
        *sorted((run / "artifact").iterdir()),
        run / "metrics.jsonl",
        run / "recipe.lock.yaml",
        *sorted(last_checkpoint(run).iterdir()),
    ]
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The names whose hashes differ, or that stand on one side only."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def writing(run: Path) -> set[str]:
    """Names of the half-written things in a run folder: of a save (.step-N...), of a removal
    (...old), of the artifact."""
    found: set[str] = set()
    for folder in (run / "checkpoints", run):
        with contextlib.suppress(FileNotFoundError):
            found |= {
                path.name
                for path in folder.iterdir()
                if path.name.startswith(".") and path.suffix in (".writing", ".old")
            }
    return found


def write_recipe(path: Path, recipe: Mapping[str, Any]) -> Path:
    """A recipe as a file (JSON is YAML)."""
    path.write_text(json.dumps(recipe, indent=1))
    return path


@contextlib.contextmanager
def lives(home: Path) -> Iterator[Lives]:
    """Lives whose output lies in `home`."""
    with Lives(home) as found:
        yield found


if __name__ == "__main__":
    _nursery()
