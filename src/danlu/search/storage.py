"""The trials of a study in Optuna's storage (SQLite, PostgreSQL, MySQL), open to Optuna's tools.

A trial costs three transactions: it begins with all its values, its curve is stored from time to
time, and it ends with all that was measured. Decisions about who runs which trial are taken inside
`exclusive`, in one process at a time: it holds a locked file beside an SQLite database, or an
advisory lock of a server. SQLite writes its journal ahead of the file (WAL) and does not wait for
the disk at each commit: a killed process loses nothing, a power cut at most the last trials.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sqlite3
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from danlu.compat.optuna_storage import (
    NewTrial,
    Parameter,
    StoredTrial,
    begin_study,
    open_trial_table,
    own_tables,
)
from danlu.errors import MissingExtra, RunError, escape_controls
from danlu.recipe import DatabaseAddress, Dimension, Space, parse_address, same_value
from danlu.recipe.database_address import CERTIFICATE_OPTIONS, DRIVERS, lies_inside
from danlu.system.locks import exclusive
from danlu.terms import Json

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import Connection, Engine

    from danlu.compat.optuna_storage import TrialTable

Answer = TypeVar("Answer")

HEARTBEAT = 10.0  # seconds between two heartbeats, where machines share a server
GRACE = 60  # seconds without a heartbeat after which a process counts as dead
# How long a study tries to reach a server again that it has lost: a restart takes seconds, the
# change to another server a minute.
RECONNECT_SECONDS = 120.0
_LONGEST_PAUSE = 2.0  # seconds between two attempts
_CONNECT_SECONDS = 10  # that a server has to accept a connection


class ConnectionLost(RunError):
    """The server of a study's database does not answer now; it may later."""


def refuse_address(url: str) -> DatabaseAddress:
    """The parts of a database's address. Raises RunError where it is none."""
    try:
        return parse_address(url)
    except ValueError as error:
        raise RunError(f"{error}.", hint="look at tune.storage or --storage") from None


class TrialStorage:
    """The stored trials of one study; opened at the address, and begun there with the attributes
    `begin` where there is no study `name` (None: it must be there).

    `folder` is the study's: only below it are folders made. `directions` says of each objective
    whether "higher" or "lower" is better. Where a server is lost later on, calls try to reach it
    again for `patience` seconds; `is_interrupted` ends that wait. Raises RunError where the
    database cannot be used, holds tables of something else, or the study has other directions;
    MissingExtra.
    """

    def __init__(
        self,
        address: DatabaseAddress,
        name: str,
        directions: Sequence[str],
        space: Space,
        folder: Path,
        begin: Mapping[str, Json] | None,
    ) -> None:
        name = escape_controls(name)  # a folder's, which may be no UTF-8
        self.address = address
        self.space = {dimension.name: dimension for dimension in space}
        self.file = address.file
        self.folder = folder
        self.patience = 0.0
        self.is_interrupted: Callable[[], bool] = lambda: False
        self._lock_connection: Connection | None = None
        _import_libraries(address)
        with _database_errors(address):
            # Two processes that create the tables at once would be in each other's way.
            with self._creation_lock():
                if self.file is not None:
                    _refuse_other_tables(self.file)
                self.optuna_storage = _open_optuna_storage(address, create=begin is not None)
                self.study_id = self._find_or_begin(name, directions, begin)
            stored = [
                "higher" if direction.name == "MAXIMIZE" else "lower"
                for direction in self.optuna_storage.get_study_directions(self.study_id)
            ]
        if stored != list(directions):
            raise RunError(
                f"the study {name} has the objectives' directions {', '.join(stored)}, "
                f"not {', '.join(directions)}.",
                where=str(address),
                hint="choose another --study folder",
            )
        self.table = open_trial_table(self.optuna_storage, self.study_id)
        self.heartbeat: _Heartbeat | None = None
        self.patience = RECONNECT_SECONDS

    def _find_or_begin(
        self, name: str, directions: Sequence[str], begin: Mapping[str, Json] | None
    ) -> int:
        with contextlib.suppress(KeyError):
            return self.optuna_storage.get_study_id_from_name(name)
        if begin is None:
            raise RunError(f"there is no study {name} in this database.", where=str(self.address))
        goals = ["maximize" if direction == "higher" else "minimize" for direction in directions]
        begin_study(self.optuna_storage, name, goals, begin)
        return self.optuna_storage.get_study_id_from_name(name)

    @contextmanager
    def _creation_lock(self) -> Iterator[None]:
        """Let one process at a time begin a study in a file, or in a server's database."""
        if self.file is not None:
            self._check_folder(self.file.parent)
            with exclusive(self.file.with_name(f".{self.file.name}.lock")):
                yield
            return
        import sqlalchemy

        engine = _create_engine(self.address, poolclass=sqlalchemy.pool.NullPool)
        with _server_lock(engine, "danlu"):
            yield

    def _check_folder(self, parent: Path) -> None:
        """Make the folder of the database where it belongs to the study."""
        if lies_inside(parent, self.folder):
            parent.mkdir(parents=True, exist_ok=True)
        elif not parent.is_dir():
            raise RunError(
                f"the study's storage cannot be used: there is no folder {parent}.",
                where=str(self.address),
                hint="make the folder; danlu makes none outside of the study's own",
            )

    @property
    def on_server(self) -> bool:
        """Whether processes of other machines may share the storage."""
        return self.file is None

    def close(self) -> None:
        """Close the connections to the database."""
        if self.heartbeat is not None:
            self.heartbeat.stop()
        self.optuna_storage.remove_session()
        self.optuna_storage.engine.dispose()

    # --- a server that is lost for a while

    def _retrying(self, work: Callable[[], Answer]) -> Answer:
        """What `work` returns; where the server is lost meanwhile, it is done again from its
        beginning once the server is back. `work` must be such that this does no harm.

        Raises ConnectionLost after `patience` seconds, KeyboardInterrupt where the study is
        interrupted meanwhile.
        """
        if self._lock_connection is not None:  # the whole of what holds the lock is done again
            return work()
        end, pause = time.monotonic() + self.patience, 0.1
        while True:
            try:
                return work()
            except ConnectionLost as lost:
                if time.monotonic() >= end:
                    raise
                if pause == 0.1:
                    _note_lost(lost, self.patience)
            if self.is_interrupted():
                raise KeyboardInterrupt
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def exclusively(self, work: Callable[[], Answer]) -> Answer:
        """What `work` returns, while no other process of the study does such work.

        Where a server is lost meanwhile, nothing of `begin` is stored, and `work` is done again
        from its beginning."""

        def locked() -> Answer:
            with self._exclusive():
                return work()

        return self._retrying(locked)

    # --- attributes of the study

    def study_attributes(self) -> dict[str, Any]:
        """The attributes of the study (JSON values), by name."""

        def read() -> dict[str, Any]:
            with _database_errors(self.address):
                return self.optuna_storage.get_study_user_attrs(self.study_id)

        return self._retrying(read)

    def set_study_attribute(self, name: str, value: Json) -> None:
        """Store an attribute of the study in place of its old value."""

        def store() -> None:
            with _database_errors(self.address):
                self.optuna_storage.set_study_user_attr(self.study_id, name, value)

        self._retrying(store)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Let one process at a time, of all that share the study, run what is inside. The lock ends
        with its process."""
        if self.file is not None:
            with self._creation_lock():
                yield
            return
        lock = _server_lock(self.optuna_storage.engine, f"danlu {self.study_id}")
        with _database_errors(self.address), lock as self._lock_connection:
            try:
                yield
            finally:
                self._lock_connection = None

    # --- trials

    def read(self, after: int = -1, numbers: Sequence[int] = ()) -> list[StoredTrial]:
        """The trials with a number above `after`, and those with the given numbers, by number."""

        def read() -> list[StoredTrial]:
            with self._table() as table:
                return table.read(after, numbers)

        return self._retrying(read)

    def begin(self, first: int, attributes: Sequence[Mapping[str, Any]]) -> list[StoredTrial]:
        """Store new running trials with the numbers `first`, first + 1, ..., all or none.

        Each has its attributes, among them `values`: the plain values by dotted name. Call it
        inside `exclusively`: on a server the trials are stored by the transaction that holds the
        lock, so a lock that is lost stores nothing.
        """
        trials = [
            NewTrial(of_trial, self._parameters(of_trial["values"])) for of_trial in attributes
        ]
        with self._table() as table:
            return table.add(first, trials, self._lock_connection)

    def _parameters(self, values: Mapping[str, Any]) -> dict[str, Parameter]:
        """Values as Optuna's tools read them; a choice that is a list or a mapping is its JSON
        text."""
        return {name: _parameter(self.space[name], value) for name, value in values.items()}

    def set_owner(self, trial: StoredTrial, owner: str) -> None:
        """Have a running trial belong to another process. Call it inside `exclusively`."""
        with _database_errors(self.address):
            self.optuna_storage.set_trial_user_attr(trial.key, "owner", owner)
            if self.on_server:
                self.table.beat([trial.key])
        trial.attributes["owner"] = owner

    def release(self, trials: Sequence[StoredTrial]) -> None:
        """Have running trials belong to no process, except those that got another owner
        meanwhile."""

        def replace() -> None:
            with self._table(decides=True) as table:
                table.replace_attribute(trials, "owner", "")

        self._retrying(replace)

    def store_curves(self, curves: Mapping[int, Mapping[int, float]]) -> None:
        """Store new points of running trials' curves, by the trials' keys; a trial that another
        process ended keeps its own."""

        def store() -> None:
            with self._table() as table:
                table.store_curves(curves)

        self._retrying(store)

    def finish(
        self,
        trial: StoredTrial,
        state: str,
        scores: Sequence[float] | None,
        ending: Mapping[str, Any],
        curve: Mapping[int, float],
    ) -> bool:
        """Store how a trial ended (`ending`: its cause and facts) and new points of its curve;
        False where another process has ended it before. Call it outside of `exclusively`."""
        attributes = {"told": dict(ending)}

        def store() -> bool:
            with self._table(decides=True) as table:
                if table.finish(trial, state, scores, attributes, curve):
                    return True
                # A server that was lost while it stored the end may have stored it.
                stored = table.read(trial.number, [trial.number])[0]
                same_owner = stored.attributes.get("owner") == trial.attributes.get("owner")
                return same_owner and stored.attributes.get("told") == attributes["told"]

        if not self._retrying(store):
            return False
        trial.state, trial.scores = state, None if scores is None else tuple(scores)
        trial.attributes |= attributes
        return True

    @contextmanager
    def _table(self, decides: bool = False) -> Iterator[TrialTable]:
        """The table; where it is not atomic, calls that decide something hold the lock."""
        locked = decides and not self.table.atomic
        lock = self._exclusive() if locked else contextlib.nullcontext()
        with _database_errors(self.address), lock:
            yield self.table

    # --- heartbeats

    def start_heartbeat(self, trials: Sequence[StoredTrial]) -> None:
        """From now on store heartbeats for these running trials, in place of those before; only
        where machines share a server."""
        if not self.on_server:
            return
        if self.heartbeat is None:
            self.heartbeat = _Heartbeat(self.table)
        self.heartbeat.keys = tuple(trial.key for trial in trials)
        self.heartbeat.beat_once()

    def silent(self, trials: Sequence[StoredTrial]) -> set[int]:
        """The numbers of those running trials that had no heartbeat for GRACE seconds."""

        def read() -> set[int]:
            with self._table() as table:
                return table.silent(trials, GRACE)

        return self._retrying(read)


class _Heartbeat:
    """A thread that stores heartbeats."""

    def __init__(self, table: TrialTable) -> None:
        self.table = table
        self.keys: tuple[int, ...] = ()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.thread.start()

    def beat_once(self) -> None:
        for key in self.keys:
            # A server that cannot be reached now may be at the next heartbeat.
            with contextlib.suppress(Exception):
                self.table.beat([key])

    def _run(self) -> None:
        while not self.ended.wait(HEARTBEAT):
            self.beat_once()

    def stop(self) -> None:
        self.ended.set()
        self.thread.join(5)


def _note_lost(lost: ConnectionLost, seconds: float) -> None:
    print(
        f"{lost.problem.message} It is tried again for {seconds:.0f} s.",
        file=sys.stderr,
        flush=True,
    )


def _import_libraries(address: DatabaseAddress) -> None:
    """Import what the address needs. Raises MissingExtra."""
    for library, module in (("Optuna", "optuna"), ("SQLAlchemy", "sqlalchemy.exc")):
        try:
            importlib.import_module(module)
        except ImportError:
            raise MissingExtra(library, "tune", "tuning") from None
    if address.file is None:
        driver = DRIVERS[address.kind]
        try:
            importlib.import_module(driver)
        except ImportError:
            raise MissingExtra(driver, "databases", f"a study in {address.kind}") from None


def _server_url(address: DatabaseAddress) -> str:
    """The address of a server for SQLAlchemy, without options."""
    import sqlalchemy

    url = sqlalchemy.URL.create(
        f"{address.kind}+{DRIVERS[address.kind]}",
        address.user,
        address.password,
        address.host,
        address.port,
        address.database,
    )
    return url.render_as_string(hide_password=False)


def _connect_arguments(address: DatabaseAddress) -> dict[str, Any]:
    """The options of a server's address, as its library takes them. Raises RunError for a
    certificate file that is none."""
    for name in CERTIFICATE_OPTIONS:
        value = address.options.get(name)
        if value not in (None, "system") and not Path(value).is_file():
            raise RunError(f"{name} names no file: {value}.", where=str(address))
    if address.kind == "postgresql":
        return {"connect_timeout": str(_CONNECT_SECONDS), **address.options}
    arguments: dict[str, Any] = {
        name: int(value) if name.endswith("_timeout") else value
        for name, value in address.options.items()
        if not name.startswith("ssl_")
    }
    if "ssl_ca" in address.options:
        by_name = address.options.get("ssl_check_hostname") != "false"
        arguments["ssl"] = {"ca": address.options["ssl_ca"], "check_hostname": by_name}
    # Else the server could ask for any file of this machine in answer to a query.
    return {"connect_timeout": _CONNECT_SECONDS, **arguments, "local_infile": False}


def _create_engine(address: DatabaseAddress, **options: Any) -> Engine:
    import sqlalchemy

    return sqlalchemy.create_engine(
        _server_url(address), connect_args=_connect_arguments(address), **options
    )


def _open_optuna_storage(address: DatabaseAddress, create: bool) -> RDBStorage:
    """Optuna's storage; its tables are made where they are missing and `create` is True."""
    import optuna
    from sqlalchemy import event

    file = address.file
    if file is not None:
        # Optuna fills in words in braces, so it does not get the file's name.
        return optuna.storages.RDBStorage(
            "sqlite:///study.sqlite",
            engine_kwargs={"creator": lambda: _connect_sqlite(file)},
            skip_table_creation=not create,
        )
    storage = optuna.storages.RDBStorage(
        _server_url(address).replace("{", "{{").replace("}", "}}"),
        engine_kwargs={"connect_args": _connect_arguments(address), "pool_pre_ping": True},
        skip_table_creation=not create,
    )
    event.listen(storage.engine, "connect", _use_utc)
    storage.engine.dispose()  # connections that were made before
    return storage


def _use_utc(connection: Any, record: object) -> None:
    """Have a server's session compare times as all other sessions do, whatever the time zone of
    its machine or user is."""
    is_mysql = type(connection).__module__.startswith("pymysql")
    with connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+00:00'" if is_mysql else "SET TIME ZONE 'UTC'")
    connection.commit()


def _refuse_other_tables(file: Path) -> None:
    """Raise RunError where a file is a database of something else, or no database file at all."""
    if not file.exists():
        return
    if not file.is_file():
        raise RunError(
            "the study's storage cannot be used: it is no regular file.",
            where=str(file),
            hint="name a file of its own as tune.storage",
        )
    with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection:
        try:
            rows = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
        except sqlite3.Error as error:
            raise RunError(
                f"the study's storage cannot be used: {error}.",
                where=str(file),
                hint="name a file of its own as tune.storage",
            ) from None
    other = sorted({name for (name,) in rows} - own_tables())
    if other:
        raise RunError(
            f"this database holds tables that are of no study: {', '.join(other[:5])}.",
            where=str(file),
            hint="name a file of its own as tune.storage; nothing was changed in this one",
        )


@contextmanager
def _server_lock(engine: Engine, name: str) -> Iterator[Connection]:
    """Hold a lock of the server's; wait for the process that holds it. It ends with the connection,
    so with its process. What is stored by the connection meanwhile is stored at the end."""
    import sqlalchemy

    key = zlib.crc32(name.encode())
    with engine.connect() as connection:
        if engine.name == "postgresql":
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield connection
            connection.commit()
            return
        # To wait without end is -1 in MySQL; MariaDB then does not wait at all.
        get_lock = sqlalchemy.text("SELECT GET_LOCK(:key, 3600)")
        while (got := connection.execute(get_lock, {"key": f"danlu{key}"}).scalar()) != 1:
            if got is None:
                raise RunError("the server gives no lock (GET_LOCK).", where=str(engine.url))
        try:
            yield connection
            connection.commit()
        finally:
            connection.execute(sqlalchemy.text("SELECT RELEASE_LOCK(:key)"), {"key": f"danlu{key}"})


def _connect_sqlite(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=60, check_same_thread=False)
    for setting in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "busy_timeout=60000",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {setting}").close()
    return connection


def _parameter(dimension: Dimension, value: Any) -> Parameter:
    from optuna.distributions import CategoricalDistribution

    from danlu.search.samplers._optuna import distribution, to_optuna

    if dimension.kind != "choice":
        distributed = distribution(dimension)
        return Parameter(value, distributed.to_internal_repr(value), distributed)
    labels = _labels(dimension.choices)
    index = to_optuna(dimension, value)
    return Parameter(labels[index], float(index), CategoricalDistribution(tuple(labels)))


def _labels(choices: Sequence[Any]) -> list[Any]:
    """What Optuna's tools show for each choice: the choice itself where all are texts, or all are
    numbers; else its JSON text.

    >>> _labels(["sgd", "adam"])
    ['sgd', 'adam']
    >>> _labels([[8], [8, 4]])
    ['[8]', '[8, 4]']
    """
    simple = all(isinstance(choice, str) for choice in choices) or all(
        type(choice) in (int, float) for choice in choices
    )
    repeated = any(
        same_value(choice, earlier)
        for number, choice in enumerate(choices)
        for earlier in choices[:number]
    )
    if simple and not repeated:
        return list(choices)
    return [json.dumps(choice, ensure_ascii=False) for choice in choices]


@contextmanager
def _database_errors(address: DatabaseAddress) -> Iterator[None]:
    """Raise what a database reports as RunError (ConnectionLost where that may pass): it cannot be
    reached, refuses the password, is full or locked."""
    import optuna.exceptions
    import sqlalchemy.exc

    try:
        yield
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise _storage_error(address, error) from None
    except OSError as error:
        reason = OSError(f"{error.filename}: {error.strerror}") if error.filename else error
        raise _storage_error(address, reason) from None
    except optuna.exceptions.StorageInternalError as error:
        raise _storage_error(address, error.__cause__ or error) from None


def _storage_error(address: DatabaseAddress, error: BaseException) -> RunError:
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

    # What the driver said, without the statement that SQLAlchemy adds.
    reason = error.orig if isinstance(error, DBAPIError) and error.orig else error
    lines = str(reason).strip().splitlines()
    lost = isinstance(error, OperationalError | InterfaceError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )
    kind = ConnectionLost if lost and address.file is None else RunError
    return kind(
        f"the study's storage cannot be used: {lines[0] if lines else type(error).__name__}.",
        where=str(address),
        hint="look at tune.storage, and whether the database runs, lets you in and has room",
    )
