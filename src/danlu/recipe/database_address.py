"""The address of a study's database, read by a narrow grammar.

A database library takes options out of an address, and some of them read files, send files to the
server, or load code (local_infile, read_default_file, service, passfile, plugin, ...). So an
address is taken apart here, by rules that name what is accepted, and the library gets the parts
and never the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote

Kind = Literal["sqlite", "postgresql", "mysql"]

DRIVERS: Mapping[Kind, str] = {
    "sqlite": "pysqlite",
    "postgresql": "psycopg",
    "mysql": "pymysql",
}
_FORMS = "sqlite:///FILE, postgresql://USER@HOST/DATABASE or mysql://USER@HOST/DATABASE"
_WHOLE_NUMBER = r"\d{1,9}"
_FILE = r"[^\x00-\x1f]+"
# The options that each library may be given, and what their values look like. None of them names
# a file whose content leaves this machine, a command, or another server.
_OPTIONS: Mapping[Kind, Mapping[str, str]] = {
    "sqlite": {},
    "postgresql": {
        "application_name": r"[\w.\- ]{1,64}",
        "channel_binding": "disable|prefer|require",
        "connect_timeout": _WHOLE_NUMBER,
        "host": r"/[^,\x00-\x1f]*",  # the folder of the server's socket on this machine
        "keepalives": "0|1",
        "keepalives_count": _WHOLE_NUMBER,
        "keepalives_idle": _WHOLE_NUMBER,
        "keepalives_interval": _WHOLE_NUMBER,
        "require_auth": r"[a-z0-9!,\-]{1,100}",
        "sslmode": "disable|allow|prefer|require|verify-ca|verify-full",
        "sslrootcert": _FILE,
        "target_session_attrs": "any|read-write|read-only|primary|standby|prefer-standby",
        "tcp_user_timeout": _WHOLE_NUMBER,
    },
    "mysql": {
        "charset": "utf8|utf8mb4",
        "connect_timeout": _WHOLE_NUMBER,
        "read_timeout": _WHOLE_NUMBER,
        "ssl_ca": _FILE,
        "ssl_check_hostname": "true|false",
        "unix_socket": r"/[^\x00-\x1f]*",  # the server's socket on this machine
        "write_timeout": _WHOLE_NUMBER,
    },
}
CERTIFICATE_OPTIONS = ("sslrootcert", "ssl_ca")  # those that name a file to read

_HEAD = re.compile(r"(?P<kind>sqlite|postgresql|mysql)(?:\+(?P<driver>\w+))?://(?P<rest>.*)", re.S)
_SERVER = re.compile(
    r"(?:(?P<user>[^:/@]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<host>[\w.\-]*))"
    r"(?::(?P<port>\d{1,5}))?"
    r"(?:/(?P<database>[^?#=]*))?"
    r"(?:\?(?P<query>[^#]*))?",
    re.S,
)


@dataclass(frozen=True)
class DatabaseAddress:
    """The parts of an address: a `file` for SQLite, all others for a server; None where the address
    does not say. `str` shows the address without the password."""

    kind: Kind
    file: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    host: str | None = None
    port: int | None = None
    database: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self._text("" if self.password is None else ":***", str)

    def without_password(self) -> str:
        """The address as `parse_address` reads it, without the password."""
        return self._text("", partial(quote, safe=""))

    def _text(self, password: str, quoted: Callable[[str], str]) -> str:
        if self.file is not None:
            return f"sqlite:///{self.file}"
        login = "" if self.user is None else f"{quoted(self.user)}{password}@"
        host = f"[{self.host}]" if self.host and ":" in self.host else self.host or ""
        port = "" if self.port is None else f":{self.port}"
        options = "&".join(f"{name}={quoted(value)}" for name, value in self.options.items())
        return (
            f"{self.kind}://{login}{host}{port}/{self.database or ''}"
            f"{'?' if options else ''}{options}"
        )


def parse_address(text: str) -> DatabaseAddress:
    """The parts of a database's address. Raises ValueError with the rule that it breaks; no message
    shows a password.

    >>> str(parse_address("postgresql://me:secret@host:5432/trials?sslmode=require"))
    'postgresql://me:***@host:5432/trials?sslmode=require'
    >>> parse_address("sqlite:///studies/iris/study.sqlite").file.name
    'study.sqlite'
    """
    head = _HEAD.fullmatch(text)
    if head is None:
        raise ValueError(f"an address of a database is {_FORMS}")
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("an address of a database has no control characters")
    kind: Kind = head["kind"]  # type: ignore[assignment] - the pattern names the three
    if head["driver"] not in (None, DRIVERS[kind]):
        raise ValueError(
            f"{kind} is reached by the library {DRIVERS[kind]} alone: write {kind}:// "
            f"in place of {kind}+{head['driver'][:40]}://"
        )
    return _parse_sqlite(head["rest"]) if kind == "sqlite" else _parse_server(kind, head["rest"])


def _parse_sqlite(rest: str) -> DatabaseAddress:
    name = rest.removeprefix("/")
    if not rest.startswith("/") or not name or name == ":memory:":
        raise ValueError("the address of an SQLite database is sqlite:///FILE")
    if name.lower().startswith("file:") or "?" in name:
        raise ValueError(
            "sqlite:///FILE takes the path of a file, without file: before it and options behind it"
        )
    return DatabaseAddress("sqlite", Path(name))


def _parse_server(kind: Kind, rest: str) -> DatabaseAddress:
    parts = _SERVER.fullmatch(rest)
    if parts is None or "://" in (parts["database"] or ""):
        raise ValueError(
            f"an address of a server is {kind}://USER:PASSWORD@HOST:PORT/DATABASE; signs such as "
            "@ / ? # in a name or password are written %40 %2F %3F %23"
        )
    user, password = parts["user"], parts["password"]
    return DatabaseAddress(
        kind,
        user=unquote(user) if user else None,
        password=unquote(password) if password else None,
        host=parts["ipv6"] or parts["host"] or None,
        port=int(parts["port"]) if parts["port"] else None,
        database=parts["database"] or None,
        options=_parse_options(kind, parts["query"] or ""),
    )


def _parse_options(kind: Kind, query: str) -> dict[str, str]:
    accepted = _OPTIONS[kind]
    options: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        raise ValueError("options behind the ? of an address are NAME=VALUE&NAME=VALUE") from None
    for name, value in pairs:
        if name not in accepted:
            raise ValueError(
                f"{name[:40]!r} is no option that the address of a {kind} database may have; "
                f"it may have {', '.join(accepted)}"
            )
        if name in options:
            raise ValueError(f"{name} stands twice in the address of the database")
        if not re.fullmatch(accepted[name], value):
            raise ValueError(f"the value of {name} in the address of the database is not valid")
        options[name] = value
    return options


def lies_inside(file: Path, folder: Path) -> bool:
    """Whether a file is in a folder (or one below it) once all links are followed; neither need
    exist.

    >>> lies_inside(Path("studies/iris/study.sqlite"), Path("studies/iris"))
    True
    >>> lies_inside(Path("studies/iris/../other.sqlite"), Path("studies/iris"))
    False
    """
    try:
        return file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, or no name of a file
        return False
