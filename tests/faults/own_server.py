"""A database server for one test: in a temporary folder, on a free port, under an unprivileged
user if the test runs as root, and stopped at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START = 60.0  # seconds a server may take on a machine that is busy
_END = 30.0


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Home:
    """The folder that a server lives in, and how its programs are run; what they say stands in
    `folder / "log"`."""

    def __init__(self, folder: Path, log: Any, options: dict[str, Any]) -> None:
        self.folder = folder
        self.options = {
            "stdin": subprocess.DEVNULL,
            "stdout": log,
            "stderr": log,
            "cwd": folder,
            **options,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def said(self) -> str:
        """What its programs said."""
        return (self.folder / "log").read_text()

    def run(self, command: Sequence[str | Path]) -> None:
        """Run a program to its end, which must be a good one."""
        assert subprocess.run(command, check=False, **self.options).returncode == 0, self.said

    def start(self, command: Sequence[str | Path], ready: Callable[[], bool]) -> None:
        """Start the server, and wait until it is ready."""
        self.process = subprocess.Popen(command, **self.options)
        end = time.monotonic() + START
        while not ready():
            assert self.process.poll() is None and time.monotonic() < end, self.said
            time.sleep(0.05)


@contextmanager
def home(
    prefix: str, people: Sequence[str], path: str = os.defpath, farewell: int = signal.SIGTERM
) -> Iterator[Home]:
    """A Home of the first of `people` that there is, where the test runs as root; its server is
    ended by the signal `farewell`."""
    folder = Path(
        tempfile.mkdtemp(prefix=prefix)
    )  # not below pytest's folder, which only its own user may enter
    options: dict[str, Any] = {"env": {"PATH": path, "LC_ALL": "C.UTF-8"}}
    if os.getuid() == 0:
        person = _unprivileged(people)
        os.chown(folder, person.pw_uid, person.pw_gid)
        options |= {"user": person.pw_uid, "group": person.pw_gid, "extra_groups": []}
    with (folder / "log").open("wb") as log:
        here = Home(folder, log, options)
        try:
            yield here
        finally:
            if here.process is not None:
                here.process.send_signal(farewell)
                try:
                    here.process.wait(_END)
                except subprocess.TimeoutExpired:
                    here.process.kill()
                    here.process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(people: Sequence[str]) -> pwd.struct_passwd:
    for name in people:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError(f"there is no user {' or '.join(people)} to run the server as")
