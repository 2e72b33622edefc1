"""The trials of an Optuna study, read and written in few transactions by the tables of its storage.

The tables (`optuna.storages._rdb.models`) are private to Optuna. `open_trial_table` uses them where
they are as this file knows them, else Optuna's public storage API, which needs a transaction for
every value of a trial. Both store the same: tests/compat/test_optuna_storage.py compares them.
"""

from __future__ import annotations

import datetime
import itertools
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import TrialState
    from sqlalchemy import Connection

_OPTUNA_STATES = {
    "running": "RUNNING",
    "complete": "COMPLETE",
    "pruned": "PRUNED",
    "failed": "FAIL",
}
_STATES = {name: state for state, name in _OPTUNA_STATES.items()} | {"WAITING": "running"}
_HEARTBEAT = "heartbeat"  # the attribute that counts heartbeats, where the tables are not used


@dataclass
class StoredTrial:
    """A trial as it is stored.

    `key` is Optuna's id of the trial, unique over all studies of the storage. `state` is running,
    complete, pruned or failed. `attributes` are JSON values by name (Optuna's user attributes).
    `scores` has one value per objective, `curve` the first objective by evaluation (1, 2, ...).
    """

    number: int
    key: int
    state: str
    attributes: dict[str, Any]
    scores: tuple[float, ...] | None = None
    curve: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameter:
    """A value of a trial as Optuna's tools read it; `stored` is the number that stands for it in
    the table (of a choice, its index)."""

    value: Any
    stored: float
    distribution: BaseDistribution


@dataclass(frozen=True)
class NewTrial:
    """A trial that is to be added: its attributes and its parameters, by name."""

    attributes: Mapping[str, Any]
    parameters: Mapping[str, Parameter]


class TrialTable(ABC):
    """The trials of one study in an Optuna storage.

    Where `atomic` is False, `add`, `replace_attribute` and `finish` may be interrupted between two
    of their transactions, so they must be called inside a lock that all processes of the study
    respect. Errors of the database are those of SQLAlchemy, or Optuna's StorageInternalError.
    """

    atomic: bool

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        self.storage = storage
        self.study_id = study_id

    @abstractmethod
    def read(self, after: int = -1, numbers: Sequence[int] = ()) -> list[StoredTrial]:
        """The trials with a number above `after`, and those with the given numbers, by number."""

    @abstractmethod
    def add(
        self, first: int, trials: Sequence[NewTrial], connection: Connection | None = None
    ) -> list[StoredTrial]:
        """Add running trials with the numbers `first`, first + 1, ..., the next ones of the
        study. With a `connection` to a server they are part of its transaction, each with a
        heartbeat, where the table is atomic."""

    @abstractmethod
    def replace_attribute(self, trials: Sequence[StoredTrial], name: str, value: Any) -> None:
        """Set an attribute of those trials whose stored value is still the one that `trials`
        has."""

    @abstractmethod
    def store_curves(self, curves: Mapping[int, Mapping[int, float]]) -> None:
        """Store points of curves, by the trials' keys; trials that have ended keep theirs."""

    @abstractmethod
    def finish(
        self,
        trial: StoredTrial,
        state: str,
        scores: Sequence[float] | None,
        attributes: Mapping[str, Any],
        curve: Mapping[int, float],
    ) -> bool:
        """Store how a running trial ended, its attributes and new points of its curve; False, and
        nothing is stored, where it has ended already."""

    @abstractmethod
    def beat(self, keys: Sequence[int]) -> None:
        """Store a heartbeat of trials, by their keys."""

    @abstractmethod
    def silent(self, trials: Sequence[StoredTrial], seconds: float) -> set[int]:
        """The numbers of those trials that had no heartbeat for so many seconds."""


# The tables of an Optuna storage, where they cannot be asked for.
_TABLES = frozenset(
    {
        "alembic_version",
        "studies",
        "study_directions",
        "study_system_attributes",
        "study_user_attributes",
        "trial_heartbeats",
        "trial_intermediate_values",
        "trial_params",
        "trial_system_attributes",
        "trial_user_attributes",
        "trial_values",
        "trials",
        "version_info",
    }
)


def own_tables() -> frozenset[str]:
    """The names of the tables that an Optuna storage may have."""
    try:
        from optuna.storages._rdb import models

        return _TABLES | frozenset(models.BaseModel.metadata.tables)
    except (ImportError, AttributeError):
        return _TABLES


def begin_study(
    storage: RDBStorage, name: str, goals: Sequence[str], attributes: Mapping[str, Any]
) -> None:
    """Add a study without trials. `goals` says "maximize" or "minimize" of each objective.

    It is stored together with its attributes or not at all, where Optuna's own tables are as they
    are known here."""
    from optuna.study import StudyDirection

    directions = [StudyDirection[goal.upper()] for goal in goals]
    try:
        from optuna.storages._rdb import models

        study, direction = models.StudyModel, models.StudyDirectionModel
        attribute = models.StudyUserAttributeModel
    except (ImportError, AttributeError):
        study_id = storage.create_new_study(directions, name)
        for key, value in attributes.items():
            storage.set_study_user_attr(study_id, key, value)
        return
    from sqlalchemy.orm import Session

    with Session(storage.engine) as session, session.begin():
        row = study(study_name=name)
        session.add(row)
        session.flush()  # the database draws the key
        key = row.study_id
        session.add_all(
            direction(study_id=key, direction=goal, objective=objective)
            for objective, goal in enumerate(directions)
        )
        session.add_all(
            attribute(study_id=key, key=name, value_json=json.dumps(value))
            for name, value in attributes.items()
        )


def open_trial_table(storage: RDBStorage, study_id: int) -> TrialTable:
    """The table of a study's trials: by Optuna's own tables where they are as known here, else by
    its public API."""
    try:
        return SqlTrialTable(storage, study_id)
    except (ImportError, AttributeError):
        return ApiTrialTable(storage, study_id)


class SqlTrialTable(TrialTable):
    """Trials by Optuna's private tables: one transaction for a batch, a curve or an end. Raises
    ImportError or AttributeError where Optuna has no such tables."""

    atomic = True

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        super().__init__(storage, study_id)
        import sqlalchemy
        from optuna.storages._rdb import models

        self.sql = sqlalchemy
        self.trials = models.TrialModel
        self.attributes = models.TrialUserAttributeModel
        self.parameters = models.TrialParamModel
        self.values = models.TrialValueModel
        self.points = models.TrialIntermediateValueModel
        self.heartbeats = models.TrialHeartbeatModel
        self.finite_value = models.TrialValueModel.TrialValueType.FINITE
        self.finite_point = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE

    def read(self, after: int = -1, numbers: Sequence[int] = ()) -> list[StoredTrial]:
        """The trials with a number above `after`, and those with the given numbers, by number."""
        sql, trials = self.sql, self.trials
        wanted = sql.or_(trials.number > after, trials.number.in_(list(numbers)))
        ids = sql.select(trials.trial_id).where(trials.study_id == self.study_id, wanted)
        with self._session() as session:
            rows = session.execute(
                sql.select(trials.number, trials.trial_id, trials.state)
                .where(trials.study_id == self.study_id, wanted)
                .order_by(trials.number)
            ).all()
            stored = {
                key: StoredTrial(number, key, _STATES[state.name], {})
                for number, key, state in rows
            }
            if stored:
                self._read_attributes(session, ids, stored)
                self._read_scores(session, ids, stored)
                self._read_curves(session, ids, stored)
        return list(stored.values())

    # A trial may be added between two of these queries: its key is not in `stored`.

    def _read_attributes(self, session: Any, ids: Any, stored: Mapping[int, StoredTrial]) -> None:
        table = self.attributes
        query = self.sql.select(table.trial_id, table.key, table.value_json)
        for key, name, text in session.execute(query.where(table.trial_id.in_(ids))):
            if key in stored:
                stored[key].attributes[name] = json.loads(text)

    def _read_scores(self, session: Any, ids: Any, stored: Mapping[int, StoredTrial]) -> None:
        table = self.values
        query = self.sql.select(table.trial_id, table.value).where(table.trial_id.in_(ids))
        for key, score in session.execute(query.order_by(table.trial_id, table.objective)):
            if key in stored:
                stored[key].scores = (*(stored[key].scores or ()), float(score))

    def _read_curves(self, session: Any, ids: Any, stored: Mapping[int, StoredTrial]) -> None:
        table = self.points
        query = self.sql.select(table.trial_id, table.step, table.intermediate_value)
        for key, evaluation, score in session.execute(
            query.where(table.trial_id.in_(ids)).order_by(table.step)
        ):
            if key in stored:
                stored[key].curve[int(evaluation)] = float(score)

    def add(
        self, first: int, trials: Sequence[NewTrial], connection: Connection | None = None
    ) -> list[StoredTrial]:
        """Add running trials, all or none."""
        from optuna.distributions import distribution_to_json

        added = []
        with self._session(connection) as session:
            for number, new in enumerate(trials, start=first):
                row = self.trials(
                    study_id=self.study_id,
                    number=number,
                    state=_optuna_state("running"),
                    datetime_start=datetime.datetime.now(),
                )
                session.add(row)
                session.flush()  # the database draws the key
                key: int = row.trial_id  # pyright: ignore[reportAssignmentType] - an instance has the value
                session.add_all(
                    self.parameters(
                        trial_id=key,
                        param_name=name,
                        param_value=parameter.stored,
                        distribution_json=distribution_to_json(parameter.distribution),
                    )
                    for name, parameter in new.parameters.items()
                )
                session.add_all(
                    self.attributes(trial_id=key, key=name, value_json=json.dumps(value))
                    for name, value in new.attributes.items()
                )
                if connection is not None:
                    session.add(self.heartbeats(trial_id=key))
                added.append(StoredTrial(number, key, "running", dict(new.attributes)))
        return added

    def replace_attribute(self, trials: Sequence[StoredTrial], name: str, value: Any) -> None:
        """Set an attribute of those trials whose stored value is still the one that `trials`
        has."""
        table = self.attributes
        with self._session() as session:
            for trial in trials:
                update = self.sql.update(table).where(
                    table.trial_id == trial.key,
                    table.key == name,
                    table.value_json == json.dumps(trial.attributes[name]),
                )
                session.execute(
                    update.values(value_json=json.dumps(value)).execution_options(
                        synchronize_session=False
                    )
                )

    def store_curves(self, curves: Mapping[int, Mapping[int, float]]) -> None:
        """Store points of curves, by the trials' keys; trials that have ended keep theirs."""
        with self._session() as session:
            running = self.sql.select(self.trials.trial_id).where(
                self.trials.trial_id.in_(list(curves)),
                self.trials.state == _optuna_state("running"),
            )
            keys = session.execute(running).scalars()
            self._store_points(session, {key: curves[key] for key in keys})

    def _store_points(self, session: Any, curves: Mapping[int, Mapping[int, float]]) -> None:
        table = self.points
        rows = [
            {
                "trial_id": key,
                "step": evaluation,
                "intermediate_value": value,
                "intermediate_value_type": self.finite_point,
            }
            for key, curve in curves.items()
            for evaluation, value in curve.items()
        ]
        if not rows:
            return
        for key, curve in curves.items():
            old = self.sql.delete(table).where(table.trial_id == key, table.step.in_(list(curve)))
            session.execute(old.execution_options(synchronize_session=False))
        session.execute(self.sql.insert(table), rows)

    def finish(
        self,
        trial: StoredTrial,
        state: str,
        scores: Sequence[float] | None,
        attributes: Mapping[str, Any],
        curve: Mapping[int, float],
    ) -> bool:
        """Store how a running trial ended, in one transaction; False where it has ended
        already."""
        with self._session() as session:
            ended = session.execute(
                self.sql.update(self.trials)
                .where(
                    self.trials.trial_id == trial.key,
                    self.trials.state == _optuna_state("running"),
                )
                .values(state=_optuna_state(state), datetime_complete=datetime.datetime.now())
                .execution_options(synchronize_session=False)
            )
            if ended.rowcount == 0:
                return False
            self._store_points(session, {trial.key: curve})
            session.add_all(
                self.values(
                    trial_id=trial.key,
                    objective=objective,
                    value=float(score),
                    value_type=self.finite_value,
                )
                for objective, score in enumerate(scores or ())
            )
            session.add_all(
                self.attributes(trial_id=trial.key, key=name, value_json=json.dumps(value))
                for name, value in attributes.items()
            )
        return True

    def beat(self, keys: Sequence[int]) -> None:
        """Store the server's time as the heartbeat of trials."""
        for key in keys:
            self.storage.record_heartbeat(key)

    def silent(self, trials: Sequence[StoredTrial], seconds: float) -> set[int]:
        """The numbers of those trials whose heartbeat is older than so many seconds, by the
        server's clock."""
        table = self.heartbeats
        with self._session() as session:
            now = session.execute(self.sql.func.now()).scalar()
            query = self.sql.select(table.trial_id, table.heartbeat).where(
                table.trial_id.in_([trial.key for trial in trials])
            )
            heartbeats = dict(session.execute(query).all())
        assert isinstance(now, datetime.datetime)
        limit = now.replace(tzinfo=None) - datetime.timedelta(seconds=seconds)
        return {
            trial.number
            for trial in trials
            if trial.key not in heartbeats or heartbeats[trial.key].replace(tzinfo=None) < limit
        }

    @contextmanager
    def _session(self, connection: Connection | None = None) -> Iterator[Any]:
        """A transaction of its own, or a part of that of a connection."""
        from sqlalchemy.orm import Session

        with Session(connection or self.storage.engine) as session, session.begin():
            yield session


class ApiTrialTable(TrialTable):
    """Trials by Optuna's public storage API, one transaction per value."""

    atomic = False

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        super().__init__(storage, study_id)
        self.beats = itertools.count()
        # By trial: its newest heartbeat, and when this process first saw it.
        self.seen: dict[int, tuple[Any, float]] = {}

    def read(self, after: int = -1, numbers: Sequence[int] = ()) -> list[StoredTrial]:
        """The trials with a number above `after`, and those with the given numbers, by number."""
        stored = []
        for trial in self.storage.get_all_trials(self.study_id, deepcopy=False):
            if trial.number <= after and trial.number not in numbers:
                continue
            key = self.storage.get_trial_id_from_study_id_trial_number(self.study_id, trial.number)
            stored.append(
                StoredTrial(
                    trial.number,
                    key,
                    _STATES[trial.state.name],
                    {name: value for name, value in trial.user_attrs.items() if name != _HEARTBEAT},
                    None if trial.values is None else tuple(map(float, trial.values)),
                    dict(sorted(trial.intermediate_values.items())),
                )
            )
        return sorted(stored, key=lambda trial: trial.number)

    def add(
        self, first: int, trials: Sequence[NewTrial], connection: Connection | None = None
    ) -> list[StoredTrial]:
        """Add running trials, one after another."""
        import optuna

        added = []
        for number, new in enumerate(trials, start=first):
            template = optuna.trial.create_trial(
                state=_optuna_state("running"),
                params={name: parameter.value for name, parameter in new.parameters.items()},
                distributions={
                    name: parameter.distribution for name, parameter in new.parameters.items()
                },
                user_attrs=dict(new.attributes),
            )
            key = self.storage.create_new_trial(self.study_id, template)
            drawn = self.storage.get_trial_number_from_id(key)
            assert drawn == number, (
                f"trial {number} was added as {drawn}: another process added one"
            )
            added.append(StoredTrial(number, key, "running", dict(new.attributes)))
        return added

    def replace_attribute(self, trials: Sequence[StoredTrial], name: str, value: Any) -> None:
        """Set an attribute of those trials whose stored value is still the one that `trials`
        has."""
        for trial in trials:
            stored = self.storage.get_trial(trial.key)
            if (
                not stored.state.is_finished()
                and stored.user_attrs.get(name) == trial.attributes[name]
            ):
                self.storage.set_trial_user_attr(trial.key, name, value)

    def store_curves(self, curves: Mapping[int, Mapping[int, float]]) -> None:
        """Store points of curves, by the trials' keys; trials that have ended keep theirs."""
        from optuna.exceptions import UpdateFinishedTrialError

        for key, curve in curves.items():
            try:
                for evaluation, value in curve.items():
                    self.storage.set_trial_intermediate_value(key, evaluation, value)
            except UpdateFinishedTrialError:
                continue

    def finish(
        self,
        trial: StoredTrial,
        state: str,
        scores: Sequence[float] | None,
        attributes: Mapping[str, Any],
        curve: Mapping[int, float],
    ) -> bool:
        """Store how a running trial ended, its state last; False where it has ended already."""
        from optuna.exceptions import UpdateFinishedTrialError

        if self.storage.get_trial(trial.key).state.is_finished():
            return False
        self.store_curves({trial.key: curve})
        try:
            for name, value in attributes.items():
                self.storage.set_trial_user_attr(trial.key, name, value)
            values = None if scores is None else [float(score) for score in scores]
            return self.storage.set_trial_state_values(trial.key, _optuna_state(state), values)
        except UpdateFinishedTrialError:
            return False

    def beat(self, keys: Sequence[int]) -> None:
        """Change an attribute of trials. A process that reads it needs no clock of the server."""
        from optuna.exceptions import UpdateFinishedTrialError

        for key in keys:
            try:
                self.storage.set_trial_user_attr(key, _HEARTBEAT, next(self.beats))
            except UpdateFinishedTrialError:
                continue

    def silent(self, trials: Sequence[StoredTrial], seconds: float) -> set[int]:
        """The numbers of those trials whose heartbeat has not changed while this process looked at
        it for so many seconds."""
        now = time.monotonic()
        silent = set()
        for trial in trials:
            heartbeat = self.storage.get_trial_user_attrs(trial.key).get(_HEARTBEAT)
            last, since = self.seen.get(trial.key, (None, now))
            self.seen[trial.key] = (heartbeat, since if last == heartbeat else now)
            if heartbeat == last and now - since > seconds:
                silent.add(trial.number)
        return silent


def _optuna_state(state: str) -> TrialState:
    from optuna.trial import TrialState

    return TrialState[_OPTUNA_STATES[state]]
