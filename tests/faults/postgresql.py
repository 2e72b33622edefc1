"""A PostgreSQL server of a test's own."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from own_server import Home, free_port, home

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


class Server:
    """A server with an empty database at `url`; it can be ended, and started again with its data."""

    def __init__(self, here: Home, where: Path) -> None:
        port = str(free_port())
        self.url = f"postgresql://danlu@127.0.0.1:{port}/postgres"
        self.here = here
        data = here.folder / "data"
        here.run(
            [where / "initdb", "-D", data, "-U", "danlu", "--auth=trust", "--no-sync", "-E", "UTF8"]
        )
        asking = [where / "pg_isready", "-q", "-h", "127.0.0.1", "-p", port]
        self.ready = lambda: subprocess.run(asking, check=False).returncode == 0
        self.command = [where / "postgres", "-D", data, "-h", "127.0.0.1", "-p", port]
        self.command += ["-k", here.folder, "-F"]
        self.start()

    def start(self) -> None:
        self.here.start(self.command, self.ready)

    def stop(self, number: int = signal.SIGQUIT) -> None:
        """End it: as by a crash, without a word to its clients (SIGQUIT), or in order (SIGINT)."""
        assert self.here.process is not None
        self.here.process.send_signal(number)
        self.here.process.wait(60)


@contextmanager
def restartable() -> Iterator[Server]:
    """A server that a test can end and start again."""
    where = programs()
    assert where is not None
    # SIGINT ends all connections, then the server
    with home("danlu-pg-", ["postgres", "nobody"], farewell=signal.SIGINT) as here:
        yield Server(here, where)


@contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database."""
    with restartable() as started:
        yield started.url
