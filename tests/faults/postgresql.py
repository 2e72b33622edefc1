"""A PostgreSQL server of a test's own, in a temporary folder, run as an unprivileged user where the test runs as root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = "postgresql"


def programs() -> Path | None:
    """The folder of initdb and postgres; None where they are not installed."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    there = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return there[-1].parent if there else None


@contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database."""
    where = programs()
    assert where is not None
    home = Path(tempfile.mkdtemp(prefix="danlu-pg-"))  # not below pytest's folder, which only its own user may enter
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": home, "env": {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}}
    if os.getuid() == 0:
        person = _unprivileged()
        os.chown(home, person.pw_uid, person.pw_gid)
        options |= {"user": person.pw_uid, "group": person.pw_gid, "extra_groups": []}
    log = (home / "log").open("wb")
    process = None
    try:
        made = subprocess.run(
            [where / "initdb", "-D", home / "data", "-U", "danlu", "--auth=trust", "--no-sync", "-E", "UTF8"],
            stdout=log, stderr=log, check=False, **options,
        )  # fmt: skip
        assert made.returncode == 0, (home / "log").read_text()
        port = _free_port()
        process = subprocess.Popen(
            [where / "postgres", "-D", home / "data", "-h", "127.0.0.1", "-p", str(port), "-k", home, "-F"],
            stdout=log, stderr=log, **options,
        )  # fmt: skip
        _wait(where, port, process, home / "log")
        yield f"postgresql://danlu@127.0.0.1:{port}/postgres"
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # end all connections, then itself
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()
        shutil.rmtree(home, ignore_errors=True)


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("there is no user postgres or nobody to run the server as")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(where: Path, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while subprocess.run([where / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False).returncode != 0:
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.05)
