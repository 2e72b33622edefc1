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
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.compat.optuna_storage import NewTrial, Parameter, StoredTrial, open_trial_table
from danlu.errors import MissingExtra, RunError
from danlu.recipe import Dimension, Space, same_value
from danlu.system.locks import exclusive
from danlu.terms import Json

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy import Engine

    from danlu.compat.optuna_storage import TrialTable

_DRIVERS = {"postgresql": ("psycopg", "postgresql+psycopg"), "mysql": ("pymysql", "mysql+pymysql")}
HEARTBEAT = 10.0  # seconds between two heartbeats, where machines share a server
GRACE = 60  # seconds without a heartbeat after which a process counts as dead


class TrialStorage:
    """The stored trials of one study; opened at the URL, and begun there where there is no study
    `name`.

    `directions` says of each objective whether "higher" or "lower" is better. Raises RunError
    where the database cannot be used or the study has other directions, MissingExtra.
    """

    def __init__(self, url: str, name: str, directions: Sequence[str], space: Space) -> None:
        self.url = url
        self.space = {dimension.name: dimension for dimension in space}
        self.file = sqlite_file(url)
        _import_libraries(url)
        with _database_errors(url):
            import optuna

            # Two processes that create the tables at once would be in each other's way.
            with self._creation_lock():
                self.optuna_storage = _open_optuna_storage(url, self.file)
                study = optuna.create_study(
                    storage=self.optuna_storage,
                    study_name=name,
                    directions=[
                        "maximize" if direction == "higher" else "minimize"
                        for direction in directions
                    ],
                    load_if_exists=True,
                )
            self.study_id = self.optuna_storage.get_study_id_from_name(name)
            stored = [
                "higher" if direction.name == "MAXIMIZE" else "lower"
                for direction in study.directions
            ]
        if stored != list(directions):
            raise RunError(
                f"the study {name} has the objectives' directions {', '.join(stored)}, "
                f"not {', '.join(directions)}.",
                where=url,
                hint="choose another --study folder",
            )
        self.table = open_trial_table(self.optuna_storage, self.study_id)
        self.heartbeat: _Heartbeat | None = None

    @contextmanager
    def _creation_lock(self) -> Iterator[None]:
        """Let one process at a time begin a study in a file, or in a server's database."""
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with exclusive(self.file.with_name(f".{self.file.name}.lock")):
                yield
            return
        import sqlalchemy

        engine = sqlalchemy.create_engine(
            _with_driver(self.url), poolclass=sqlalchemy.pool.NullPool
        )
        with _server_lock(engine, "danlu"):
            yield

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

    # --- attributes of the study

    def study_attributes(self) -> dict[str, Any]:
        """The attributes of the study (JSON values), by name."""
        return self.optuna_storage.get_study_user_attrs(self.study_id)

    def set_study_attribute(self, name: str, value: Json) -> None:
        """Store an attribute of the study in place of its old value."""
        self.optuna_storage.set_study_user_attr(self.study_id, name, value)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Let one process at a time, of all that share the study, run what is inside. The lock ends
        with its process."""
        if self.file is not None:
            with self._creation_lock():
                yield
            return
        lock = _server_lock(self.optuna_storage.engine, f"danlu {self.study_id}")
        with _database_errors(self.url), lock:
            yield

    # --- trials

    def read(self, after: int = -1, numbers: Sequence[int] = ()) -> list[StoredTrial]:
        """The trials with a number above `after`, and those with the given numbers, by number."""
        with self._table() as table:
            return table.read(after, numbers)

    def begin(self, first: int, attributes: Sequence[Mapping[str, Any]]) -> list[StoredTrial]:
        """Store new running trials with the numbers `first`, first + 1, ..., all or none.

        Each has its attributes, among them `values`: the plain values by dotted name. Call it
        inside `exclusive`.
        """
        trials = [
            NewTrial(of_trial, self._parameters(of_trial["values"])) for of_trial in attributes
        ]
        with self._table() as table:
            return table.add(first, trials)

    def _parameters(self, values: Mapping[str, Any]) -> dict[str, Parameter]:
        """Values as Optuna's tools read them; a choice that is a list or a mapping is its JSON
        text."""
        return {name: _parameter(self.space[name], value) for name, value in values.items()}

    def set_owner(self, trial: StoredTrial, owner: str) -> None:
        """Have a running trial belong to another process. Call it inside `exclusive`."""
        self.optuna_storage.set_trial_user_attr(trial.key, "owner", owner)
        trial.attributes["owner"] = owner

    def release(self, trials: Sequence[StoredTrial]) -> None:
        """Have running trials belong to no process, except those that got another owner
        meanwhile."""
        with self._table(decides=True) as table:
            table.replace_attribute(trials, "owner", "")

    def store_curves(self, curves: Mapping[int, Mapping[int, float]]) -> None:
        """Store new points of running trials' curves, by the trials' keys; a trial that another
        process ended keeps its own."""
        with self._table() as table:
            table.store_curves(curves)

    def finish(
        self,
        trial: StoredTrial,
        state: str,
        scores: Sequence[float] | None,
        ending: Mapping[str, Any],
        curve: Mapping[int, float],
    ) -> bool:
        """Store how a trial ended (`ending`: its cause and facts) and new points of its curve;
        False where another process has ended it before. Call it outside of `exclusive`."""
        attributes = {"told": dict(ending)}
        with self._table(decides=True) as table:
            if not table.finish(trial, state, scores, attributes, curve):
                return False
        trial.state, trial.scores = state, None if scores is None else tuple(scores)
        trial.attributes |= attributes
        return True

    @contextmanager
    def _table(self, decides: bool = False) -> Iterator[TrialTable]:
        """The table; where it is not atomic, calls that decide something hold the lock."""
        locked = decides and not self.table.atomic
        with _database_errors(self.url), self.exclusive() if locked else contextlib.nullcontext():
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
        with self._table() as table:
            return table.silent(trials, GRACE)


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


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite URL; None for a server.

    >>> sqlite_file("sqlite:///studies/iris/study.sqlite").name
    'study.sqlite'
    >>> sqlite_file("postgresql://me@host/db") is None
    True
    """
    head, _, rest = url.partition("://")
    return Path(rest.removeprefix("/")) if head.startswith("sqlite") else None


def _import_libraries(url: str) -> None:
    """Import what the URL needs. Raises MissingExtra."""
    for library, module in (("Optuna", "optuna"), ("SQLAlchemy", "sqlalchemy.exc")):
        try:
            importlib.import_module(module)
        except ImportError:
            raise MissingExtra(library, "tune", "tuning") from None
    head = url.partition("://")[0]
    if head in _DRIVERS:
        try:
            importlib.import_module(_DRIVERS[head][0])
        except ImportError:
            raise MissingExtra(_DRIVERS[head][0], "databases", f"a study in {head}") from None


def _with_driver(url: str) -> str:
    """The URL of a server, with the driver that danlu uses where the URL names none."""
    head, _, rest = url.partition("://")
    return f"{_DRIVERS[head][1]}://{rest}" if head in _DRIVERS else url


def _open_optuna_storage(url: str, file: Path | None) -> RDBStorage:
    import optuna

    if file is None:
        return optuna.storages.RDBStorage(_with_driver(url))
    return optuna.storages.RDBStorage(
        f"sqlite:///{file}", engine_kwargs={"creator": lambda: _connect_sqlite(file)}
    )


@contextmanager
def _server_lock(engine: Engine, name: str) -> Iterator[None]:
    """Hold a lock of the server's; wait for the process that holds it. It ends with the connection,
    so with its process."""
    import sqlalchemy

    key = zlib.crc32(name.encode())
    with engine.connect() as connection:
        if engine.name == "postgresql":
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield
            connection.commit()
            return
        # To wait without end is -1 in MySQL; MariaDB then does not wait at all.
        get_lock = sqlalchemy.text("SELECT GET_LOCK(:key, 3600)")
        while (got := connection.execute(get_lock, {"key": f"danlu{key}"}).scalar()) != 1:
            if got is None:
                raise RunError(
                    "the server gives no lock (GET_LOCK).", where=_without_password(str(engine.url))
                )
        try:
            yield
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
def _database_errors(url: str) -> Iterator[None]:
    """Raise what a database reports as RunError: it cannot be reached, refuses the password, is
    full or locked."""
    import optuna.exceptions
    import sqlalchemy.exc

    try:
        yield
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise _storage_error(url, error) from None
    except OSError as error:
        reason = OSError(f"{error.filename}: {error.strerror}") if error.filename else error
        raise _storage_error(url, reason) from None
    except optuna.exceptions.StorageInternalError as error:
        raise _storage_error(url, error.__cause__ or error) from None


def _storage_error(url: str, error: BaseException) -> RunError:
    from sqlalchemy.exc import DBAPIError

    # What the driver said, without the statement that SQLAlchemy adds.
    reason = error.orig if isinstance(error, DBAPIError) and error.orig else error
    lines = str(reason).strip().splitlines()
    return RunError(
        f"the study's storage cannot be used: {lines[0] if lines else type(error).__name__}.",
        where=_without_password(url),
        hint="look at tune.storage, and whether the database runs, lets you in and has room",
    )


def _without_password(url: str) -> str:
    """The URL with *** in place of its password.

    >>> _without_password("postgresql://me:secret@host/db")
    'postgresql://me:***@host/db'
    """
    head, _, rest = url.partition("://")
    login, at, server = rest.rpartition("@")
    return f"{head}://{login.partition(':')[0]}:***@{server}" if at and ":" in login else url
