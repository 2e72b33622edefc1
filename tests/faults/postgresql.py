"""A PostgreSQL server of a test's own."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from own_server import free_port, home

PACKAGE = "postgresql"


def programs() -> Path | None:
    """The folder of initdb and postgres; None where they are not installed."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    there = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    return there[-1].parent if there else None


@contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database."""
    where = programs()
    assert where is not None
    # SIGINT ends all connections, then the server
    with home("danlu-pg-", ["postgres", "nobody"], farewell=signal.SIGINT) as here:
        data, port = here.folder / "data", str(free_port())
        here.run(
            [where / "initdb", "-D", data, "-U", "danlu", "--auth=trust", "--no-sync", "-E", "UTF8"]
        )
        asking = [where / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port]
        here.start(
            [
                where / "postgres",
                "-D",
                data,
                "-h",
                "127.0.0.1",
                "-p",
                port,
                "-k",
                here.folder,
                "-F",
            ],
            lambda: subprocess.run(asking, check=False).returncode == 0,
        )
        yield f"postgresql://danlu@127.0.0.1:{port}/postgres"
