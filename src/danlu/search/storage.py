"""The trials of a study in Optuna's storage: SQLite, PostgreSQL or MySQL; any tool that reads Optuna's studies reads it.

A trial costs three transactions: begun with all its values, its curve from time to time, ended with
all that was measured. What decides (who takes which trial) happens inside `alone`, one process at a
time: a locked file beside an SQLite database, an advisory lock in a server. SQLite keeps a journal
ahead of the file (WAL) and does not wait for the disk at each commit: a killed process loses
nothing, a power cut the last trials at most."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from danlu.errors import MissingExtra, RunError
from danlu.recipe import Space, same_value
from danlu.system.locks import exclusive

_NAME_OF_STATE = {
    "running": "RUNNING",
    "complete": "COMPLETE",
    "pruned": "PRUNED",
    "failed": "FAIL",
}
_STATE_OF_NAME = {state: name for name, state in _NAME_OF_STATE.items()} | {"WAITING": "running"}
_DRIVERS = {"postgresql": ("psycopg", "postgresql+psycopg"), "mysql": ("pymysql", "mysql+pymysql")}
HEARTBEAT = (
    10.0  # seconds between two signs of life, where processes of several machines share a server
)
GRACE = 60  # seconds without one after which a process counts as dead


@dataclass
class StoredTrial:
    """A trial as it is stored. `about` is what danlu keeps with it: values, batch, owner, what the
    sampler wants kept; later facts and cause."""

    number: int
    key: int
    state: str
    attributes: dict[str, Any]
    scores: tuple[float, ...] | None = None
    curve: dict[int, float] = field(default_factory=dict)


class TrialStorage:
    """One study's trials. Opens the storage, and begins the study `name` where there is none."""

    def __init__(self, url: str, name: str, directions: Sequence[str], space: Space) -> None:
        self.url = url
        self.space = {dimension.name: dimension for dimension in space}
        self.file = sqlite_file(url)
        _import_libraries(url)
        with _database_errors(url):
            import optuna

            named: list[Any] = [
                "maximize" if each == "higher" else "minimize" for each in directions
            ]
            with (
                self._first()
            ):  # two processes that make the tables at once are in each other's way
                self.storage = _open_optuna_storage(url, self.file)
                study = optuna.create_study(
                    storage=self.storage, study_name=name, directions=named, load_if_exists=True
                )
            self.study = self.storage.get_study_id_from_name(name)
            found = ["higher" if each.name == "MAXIMIZE" else "lower" for each in study.directions]
        if found != list(directions):
            raise RunError(
                f"the study {name} has the objectives' directions {', '.join(found)}, not {', '.join(directions)}.",
                where=url,
                hint="choose another --study folder",
            )
        from optuna.storages._rdb import models

        self.models = models
        self.heartbeat: _Heartbeat | None = None

    @contextmanager
    def _first(self) -> Iterator[None]:
        """One process at a time begins a study in a file, or in a server's database."""
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
        """Whether processes of other machines may share it."""
        return self.file is None

    def close(self) -> None:
        """Let go of the database."""
        if self.heartbeat is not None:
            self.heartbeat.stop()
        self.storage.remove_session()
        self.storage.engine.dispose()

    # --- what is decided once

    def notes(self) -> dict[str, Any]:
        """What was noted of the study."""
        return self.storage.get_study_user_attrs(self.study)

    def note(self, name: str, value: Any) -> None:
        """Note something of the study, in place of what stood under the name."""
        self.storage.set_study_user_attr(self.study, name, value)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """What happens inside happens in one process of all that share the study; it ends with the
        process."""
        if self.file is not None:
            with self._first():
                yield
            return
        with _database_errors(self.url), _server_lock(self.storage.engine, f"danlu {self.study}"):
            yield

    # --- trials

    def read(self, after: int = -1, those: Sequence[int] = ()) -> list[StoredTrial]:
        """The trials with a number above `after`, and `those`, by number."""
        sql, m = _sqlalchemy(), self.models
        with self._session() as session:
            wanted = sql.or_(m.TrialModel.number > after, m.TrialModel.number.in_(list(those)))
            rows = session.execute(
                sql.select(m.TrialModel.number, m.TrialModel.trial_id, m.TrialModel.state)
                .where(m.TrialModel.study_id == self.study, wanted)
                .order_by(m.TrialModel.number)
            ).all()
            entries = {
                key: StoredTrial(number, key, _STATE_OF_NAME[state.name], {})
                for number, key, state in rows
            }
            if not entries:
                return []
            inside = sql.select(m.TrialModel.trial_id).where(
                m.TrialModel.study_id == self.study, wanted
            )
            about = m.TrialUserAttributeModel
            for key, name, text in session.execute(
                sql.select(about.trial_id, about.key, about.value_json).where(
                    about.trial_id.in_(inside)
                )
            ):
                if key in entries:
                    entries[key].attributes[name] = json.loads(text)
            value = m.TrialValueModel
            for key, _, score in session.execute(
                sql.select(value.trial_id, value.objective, value.value)
                .where(value.trial_id.in_(inside))
                .order_by(value.trial_id, value.objective)
            ):
                if key in entries:
                    entries[key].scores = (*(entries[key].scores or ()), float(score))
            step = m.TrialIntermediateValueModel
            for key, evaluations, score in session.execute(
                sql.select(step.trial_id, step.step, step.intermediate_value)
                .where(step.trial_id.in_(inside))
                .order_by(step.step)
            ):
                if key in entries:
                    entries[key].curve[int(evaluations)] = float(score)
        return list(entries.values())

    def begin(self, first: int, abouts: Sequence[Mapping[str, Any]]) -> list[StoredTrial]:
        """New running trials with the numbers `first`, first + 1, ..., all or none. Call it inside
        `alone`."""
        import optuna

        m, entries = self.models, []
        now = datetime.datetime.now()
        with self._session() as session:
            for number, about in enumerate(abouts, start=first):
                trial = m.TrialModel(
                    study_id=self.study,
                    number=number,
                    state=optuna.trial.TrialState.RUNNING,
                    datetime_start=now,
                )
                session.add(trial)
                session.flush()
                key = int(trial.trial_id)
                self._add_values(session, key, about["values"])
                for name, value in about.items():
                    session.add(
                        m.TrialUserAttributeModel(
                            trial_id=key, key=name, value_json=json.dumps(value)
                        )
                    )
                entries.append(StoredTrial(number, key, "running", dict(about)))
        return entries

    def _add_values(self, session: Any, key: int, values: Mapping[str, Any]) -> None:
        """The values as Optuna's tools read them; choices that are lists or mappings by their
        text."""
        import optuna

        from danlu.search.samplers._optuna import distribution, to_optuna

        for name, value in values.items():
            dimension = self.space[name]
            about = distribution(dimension)
            if dimension.kind == "choice":
                about = optuna.distributions.CategoricalDistribution(
                    tuple(_labels(dimension.choices))
                )
                stored = float(to_optuna(dimension, value))
            else:
                stored = about.to_internal_repr(value)
            session.add(
                self.models.TrialParamModel(
                    trial_id=key,
                    param_name=name,
                    param_value=stored,
                    distribution_json=optuna.distributions.distribution_to_json(about),
                )
            )

    def own(self, entry: StoredTrial, owner: str) -> None:
        """Have a running trial belong to another process. Call it inside `alone`."""
        self.storage.set_trial_user_attr(entry.key, "owner", owner)
        entry.attributes["owner"] = owner

    def release(self, entries: Sequence[StoredTrial]) -> None:
        """Have running trials belong to nobody, those that did not get another owner meanwhile."""
        sql, about = _sqlalchemy(), self.models.TrialUserAttributeModel
        with self._session() as session:
            for entry in entries:
                ours = (
                    about.trial_id == entry.key,
                    about.key == "owner",
                    about.value_json == json.dumps(entry.attributes["owner"]),
                )
                nobody = sql.update(about).where(*ours).values(value_json=json.dumps(""))
                session.execute(nobody.execution_options(synchronize_session=False))

    def keep(self, curves: Mapping[int, Mapping[int, float]]) -> None:
        """Store what is new in the curves of running trials, by their key; those that another
        process ended keep theirs."""
        import optuna

        sql, m = _sqlalchemy(), self.models
        with self._session() as session:
            running = sql.select(m.TrialModel.trial_id).where(
                m.TrialModel.trial_id.in_(list(curves)),
                m.TrialModel.state == optuna.trial.TrialState.RUNNING,
            )
            self._keep(session, {key: curves[key] for key in session.execute(running).scalars()})

    def _keep(self, session: Any, curves: Mapping[int, Mapping[int, float]]) -> None:
        sql, step = _sqlalchemy(), self.models.TrialIntermediateValueModel
        rows = [
            {
                "trial_id": key,
                "step": evaluations,
                "intermediate_value": value,
                "intermediate_value_type": step.TrialIntermediateValueType.FINITE,
            }
            for key, curve in curves.items()
            for evaluations, value in curve.items()
        ]
        if rows:
            for key, curve in curves.items():
                was = sql.delete(step).where(step.trial_id == key, step.step.in_(list(curve)))
                session.execute(was.execution_options(synchronize_session=False))
            session.execute(sql.insert(step), rows)

    def end(
        self,
        entry: StoredTrial,
        state: str,
        scores: Sequence[float] | None,
        told: Mapping[str, Any],
        curve: Mapping[int, float],
    ) -> bool:
        """Store how a trial ended, with what is new of its curve; False where another process has
        done so before."""
        import optuna

        sql, m = _sqlalchemy(), self.models
        running = optuna.trial.TrialState.RUNNING
        with self._session() as session:
            ended = session.execute(
                sql.update(m.TrialModel)
                .where(m.TrialModel.trial_id == entry.key, m.TrialModel.state == running)
                .values(
                    state=optuna.trial.TrialState[_NAME_OF_STATE[state]],
                    datetime_complete=datetime.datetime.now(),
                )
                .execution_options(synchronize_session=False)
            )
            if ended.rowcount == 0:
                return False
            self._keep(session, {entry.key: curve})
            for objective, score in enumerate(scores or ()):
                kind = m.TrialValueModel.TrialValueType.FINITE
                session.add(
                    m.TrialValueModel(
                        trial_id=entry.key, objective=objective, value=float(score), value_type=kind
                    )
                )
            session.add(
                m.TrialUserAttributeModel(
                    trial_id=entry.key, key="told", value_json=json.dumps(dict(told))
                )
            )
        entry.state, entry.scores = state, None if scores is None else tuple(scores)
        entry.attributes["told"] = dict(told)
        return True

    # --- signs of life

    def beat(self, entries: Sequence[StoredTrial]) -> None:
        """From now on give signs of life for these running trials (in place of those before), where
        machines share a server."""
        if not self.on_server:
            return
        if self.heartbeat is None:
            self.heartbeat = _Heartbeat(self.storage)
        self.heartbeat.keys = tuple(entry.key for entry in entries)
        self.heartbeat.once()

    def silent(self, entries: Sequence[StoredTrial]) -> set[int]:
        """The numbers of those running trials of which no sign of life came for GRACE seconds."""
        sql, m = _sqlalchemy(), self.models
        with self._session() as session:
            now = session.execute(sql.func.now()).scalar()
            beats = m.TrialHeartbeatModel
            seen = dict(
                session.execute(
                    sql.select(beats.trial_id, beats.heartbeat).where(
                        beats.trial_id.in_([each.key for each in entries])
                    )
                ).all()
            )
        assert isinstance(now, datetime.datetime)
        late = now.replace(tzinfo=None) - datetime.timedelta(seconds=GRACE)
        return {
            each.number
            for each in entries
            if each.key not in seen or seen[each.key].replace(tzinfo=None) < late
        }

    @contextmanager
    def _session(self) -> Iterator[Any]:
        from sqlalchemy.orm import Session

        with _database_errors(self.url), Session(self.storage.engine) as session, session.begin():
            yield session


class _Heartbeat:
    """A thread that gives signs of life."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage
        self.keys: tuple[int, ...] = ()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.thread.start()

    def once(self) -> None:
        for key in self.keys:
            with contextlib.suppress(
                Exception
            ):  # a server that cannot be reached now may be at the next beat
                self.storage.record_heartbeat(key)

    def _run(self) -> None:
        while not self.ended.wait(HEARTBEAT):
            self.once()

    def stop(self) -> None:
        self.ended.set()
        self.thread.join(5)


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite URL; None for a server."""
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
    """The URL of a server with the driver that danlu uses, where it names none."""
    head, _, rest = url.partition("://")
    return f"{_DRIVERS[head][1]}://{rest}" if head in _DRIVERS else url


def _open_optuna_storage(url: str, file: Path | None) -> Any:
    """Optuna's storage at the URL."""
    import optuna

    if file is None:
        return optuna.storages.RDBStorage(_with_driver(url))
    return optuna.storages.RDBStorage(
        f"sqlite:///{file}", engine_kwargs={"creator": lambda: _connect_sqlite(file)}
    )


@contextmanager
def _server_lock(engine: Any, name: str) -> Iterator[None]:
    """Hold a lock of the server's; wait for who holds it. It ends with the connection, so with the
    process."""
    import sqlalchemy

    key = zlib.crc32(name.encode())
    with engine.connect() as connection:
        if engine.name == "postgresql":
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
            yield
            connection.commit()
            return
        taken = sqlalchemy.text(
            "SELECT GET_LOCK(:key, 3600)"
        )  # without end is -1 to MySQL, and not at all to MariaDB
        while (got := connection.execute(taken, {"key": f"danlu{key}"}).scalar()) != 1:
            if got is None:
                raise RunError(
                    "the server gives no lock (GET_LOCK).", where=_without_password(str(engine.url))
                )
        try:
            yield
        finally:
            connection.execute(sqlalchemy.text("SELECT RELEASE_LOCK(:key)"), {"key": f"danlu{key}"})


def _connect_sqlite(file: Path) -> Any:
    import sqlite3

    connection = sqlite3.connect(file, timeout=60, check_same_thread=False)
    for setting in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "busy_timeout=60000",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {setting}").close()
    return connection


def _sqlalchemy() -> Any:
    import sqlalchemy

    return sqlalchemy


def _labels(choices: Sequence[Any]) -> list[Any]:
    """What stands for each choice: itself where all are texts, or all numbers; else its JSON
    text."""
    plain = all(isinstance(each, str) for each in choices) or all(
        type(each) in (int, float) for each in choices
    )
    twice = any(
        same_value(each, other) for number, each in enumerate(choices) for other in choices[:number]
    )
    return (
        list(choices)
        if plain and not twice
        else [json.dumps(each, ensure_ascii=False) for each in choices]
    )


@contextmanager
def _database_errors(url: str) -> Iterator[None]:
    """What a database says, in words: it cannot be reached, refuses the password, is full or
    locked."""
    import sqlalchemy.exc

    try:
        yield
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise _storage_error(url, error) from None
    except OSError as error:
        raise _storage_error(
            url, OSError(f"{error.filename}: {error.strerror}" if error.filename else error)
        ) from None
    except Exception as error:
        if type(error).__name__ != "StorageInternalError":
            raise
        raise _storage_error(url, error.__cause__ or error) from None


def _storage_error(url: str, error: BaseException) -> RunError:
    said = str(getattr(error, "orig", None) or error).strip().splitlines()
    return RunError(
        f"the study's storage cannot be used: {said[0] if said else type(error).__name__}.",
        where=_without_password(url),
        hint="look at tune.storage, and whether the database runs, lets you in and has room",
    )


def _without_password(url: str) -> str:
    head, _, rest = url.partition("://")
    login, at, place = rest.rpartition("@")
    return f"{head}://{login.partition(':')[0]}:***@{place}" if at and ":" in login else url
