"""A MariaDB server (of MySQL's protocol) of a test's own, in a temporary folder, run as an unprivileged user where the test runs as root."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = "mariadb-server"


def programs() -> bool:
    """Whether it is installed."""
    return bool(shutil.which("mariadb-install-db") and _server())


def _server() -> str | None:
    return shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")


@contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database."""
    home = Path(tempfile.mkdtemp(prefix="danlu-my-"))  # not below pytest's folder, which only its own user may enter
    options: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "cwd": home,
        "env": {"PATH": f"{os.defpath}:/usr/sbin", "LC_ALL": "C.UTF-8"},
    }
    if os.getuid() == 0:
        person = pwd.getpwnam("mysql")  # the package makes it
        os.chown(home, person.pw_uid, person.pw_gid)
        options |= {"user": person.pw_uid, "group": person.pw_gid, "extra_groups": []}
    log = (home / "log").open("wb")
    process = None
    try:
        made = subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={home / 'data'}", "--auth-root-authentication-method=normal", "--skip-test-db"],
            stdout=log, stderr=log, check=False, **options,
        )  # fmt: skip
        assert made.returncode == 0, (home / "log").read_text()
        port = _free_port()
        process = subprocess.Popen(
            [str(_server()), "--no-defaults", f"--datadir={home / 'data'}", f"--port={port}", "--bind-address=127.0.0.1", f"--socket={home / 's'}"],
            stdout=log, stderr=log, **options,
        )  # fmt: skip
        _create(port, process, home / "log")
        yield f"mysql://root@127.0.0.1:{port}/danlu"
    finally:
        if process is not None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()
        shutil.rmtree(home, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _create(port: int, process: subprocess.Popen[Any], log: Path) -> None:
    import pymysql

    end = time.monotonic() + 60
    while True:
        try:
            connection = pymysql.connect(host="127.0.0.1", port=port, user="root")
            break
        except pymysql.err.OperationalError:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE danlu")
