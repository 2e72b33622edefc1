"""A MariaDB server, which speaks MySQL's protocol, for one test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from own_server import free_port, home

PACKAGE = "mariadb-server"
_PATH = f"{os.defpath}:/usr/sbin"


def programs() -> bool:
    """Whether it is installed."""
    return bool(shutil.which("mariadb-install-db") and _server())


def _server() -> str | None:
    return shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")


@contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database."""
    with home("danlu-my-", ["mysql"], _PATH) as here:  # the package makes the user
        data, port = f"--datadir={here.folder / 'data'}", free_port()
        here.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                data,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ]
        )
        here.start(
            [
                str(_server()),
                "--no-defaults",
                data,
                f"--port={port}",
                "--bind-address=127.0.0.1",
                f"--socket={here.folder / 's'}",
            ],
            lambda: _created(port),
        )
        yield f"mysql://root@127.0.0.1:{port}/danlu"


def _created(port: int) -> bool:
    """Whether the server let us in, and has the database."""
    import pymysql

    try:
        connection = pymysql.connect(host="127.0.0.1", port=port, user="root")
    except pymysql.err.OperationalError:
        return False
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE danlu")
    return True
