"""Which rows are answered next: dynamic batching without a clock.

A step takes what has come while the one before it was computed, up to `most` rows: under little
load a row goes at once and alone, under much load steps grow until they pay. So no row waits for
others to come, and the wait of a row is bounded by the step that runs and by the rows before it. A
request of many rows is cut into pieces: each step gives every request its share, those that came
first the rest, and a request of one row is not held up by one of a thousand.

`most` follows the measured time of a row: a step is to take about STEP seconds, so that a slow
model answers in small steps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from danlu.serving.worker.decode_values import Columns

STEP = 0.05  # seconds a step is to take
MOST_ROWS = 256  # of a step, whatever its time: beyond it a row gets no cheaper


@dataclass
class Job:
    """A request being answered: `begun` of its rows are answered or in the present step."""

    id: int
    columns: Columns
    before: float
    begun: int = 0
    answers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Rows that no step has taken."""
        return self.columns.count - self.begun


@dataclass(frozen=True)
class Share:
    """Some rows of a job in a step."""

    job: Job
    start: int
    stop: int


class Batcher:
    """The jobs that wait, and what the next step takes of them."""

    def __init__(self, most: int = MOST_ROWS) -> None:
        self.limit = most
        self.most = most
        self._queues: OrderedDict[Hashable, OrderedDict[int, Job]] = (
            OrderedDict()
        )  # by key, jobs in the order they came

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, job: Job) -> None:
        """A job more; one whose key is None is answered in a step of its own."""
        key = ("alone", job.id) if job.columns.key is None else job.columns.key
        self._queues.setdefault(key, OrderedDict())[job.id] = job

    def drop(self, id: int) -> None:
        """Forget a job."""
        for key, jobs in list(self._queues.items()):
            if jobs.pop(id, None) is not None and not jobs:
                del self._queues[key]

    def measured(self, rows: int, seconds: float) -> None:
        """Learn what a step took."""
        if rows:
            fitting = STEP * rows / max(seconds, 1e-6)
            aim = min(
                max(fitting, self.most / 2, 1.0), 2.0 * self.most
            )  # one odd step does not upset it
            self.most = max(1, min(self.limit, round(aim)))

    def next(self, now: float) -> list[Share]:
        """What the next step answers; jobs whose time is over are forgotten. Keys take turns."""
        while self._queues:
            key, jobs = self._queues.popitem(last=False)
            for late in [job.id for job in jobs.values() if job.before < now]:
                del jobs[late]
            if not jobs:
                continue
            alone = isinstance(key, tuple) and key[:1] == ("alone",)
            shares = (
                [Share(job, 0, job.columns.count) for job in jobs.values()]
                if alone
                else self._shares(jobs)
            )
            for share in shares:
                share.job.begun = share.stop
                if not share.job.left:
                    del jobs[share.job.id]
            if jobs:
                self._queues[key] = jobs
            return shares
        return []

    def _shares(self, jobs: OrderedDict[int, Job]) -> list[Share]:
        taken: dict[int, int] = {}
        room = self.most
        chosen = list(jobs.values())[:room]
        even = max(1, room // len(chosen))
        for job in chosen:  # a share for each, ...
            taken[job.id] = min(job.left, even, room)
            room -= taken[job.id]
        for job in chosen:  # ... and what is left to those who came first
            more = min(job.left - taken[job.id], room)
            taken[job.id] += more
            room -= more
        return [Share(job, job.begun, job.begun + taken[job.id]) for job in chosen if taken[job.id]]
