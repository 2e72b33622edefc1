"""Which rows are answered next: dynamic batching without a clock.

A step takes the rows that arrived while the step before it was computed, up to `step_rows`. Under
little load a row is answered at once and alone; under much load steps grow until they are
efficient. No row waits for others to arrive: its wait is bounded by the step that runs and by the
rows before it. A request of many rows is cut into pieces: each step gives every request an equal
share and the rest to the oldest ones, so that a request of one row does not wait for one of a
thousand.

`step_rows` follows the measured time of a row: a step is to take about STEP_SECONDS, so that a slow
model answers in small steps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from danlu.serving.protocol.messages import Answer
from danlu.serving.worker.decode_values import Columns

STEP_SECONDS = 0.05
MAX_ROWS = 256  # of a step, whatever its time: beyond it a row gets no cheaper


@dataclass
class Job:
    """A request of rows being answered.

    deadline   moment of time.monotonic() after which its rows are not answered any more
    begun      how many of its rows are answered or in the present step
    answers    those of its first rows
    """

    id: int
    columns: Columns
    deadline: float
    begun: int = 0
    answers: list[Answer] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Rows that no step has taken."""
        return self.columns.count - self.begun


@dataclass(frozen=True)
class Share:
    """The rows `start` to `stop` (exclusive) of a job, in one step."""

    job: Job
    start: int
    stop: int


class Batcher:
    """The jobs that wait, and what the next step takes of them.

    limit       the largest value of `step_rows`
    step_rows   rows of a step at most, at present
    """

    def __init__(self, limit: int = MAX_ROWS) -> None:
        self.limit = limit
        self.step_rows = limit
        # By the key of their columns, jobs in the order in which they came.
        self._queues: OrderedDict[Hashable, OrderedDict[int, Job]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, job: Job) -> None:
        """Add a job. One whose columns have no key is answered in a step of its own."""
        key = ("alone", job.id) if job.columns.key is None else job.columns.key
        self._queues.setdefault(key, OrderedDict())[job.id] = job

    def drop(self, id: int) -> None:
        """Forget a job."""
        for key, jobs in list(self._queues.items()):
            if jobs.pop(id, None) is not None and not jobs:
                del self._queues[key]

    def learn(self, rows: int, seconds: float) -> None:
        """Adapt `step_rows`: a step of `rows` rows took `seconds`."""
        if rows:
            fitting = STEP_SECONDS * rows / max(seconds, 1e-6)
            # One odd step changes the size by a factor of two at most.
            target = min(max(fitting, self.step_rows / 2, 1.0), 2.0 * self.step_rows)
            self.step_rows = max(1, min(self.limit, round(target)))

    def next(self, now: float) -> list[Share]:
        """What the next step answers. Jobs whose deadline is before `now` are forgotten; keys take
        turns."""
        while self._queues:
            key, jobs = self._queues.popitem(last=False)
            for late in [job.id for job in jobs.values() if job.deadline < now]:
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
        rows: dict[int, int] = {}
        room = self.step_rows
        chosen = list(jobs.values())[:room]
        equal = max(1, room // len(chosen))
        for job in chosen:
            rows[job.id] = min(job.left, equal, room)
            room -= rows[job.id]
        for job in chosen:  # the rows that are left over go to the oldest jobs
            more = min(job.left - rows[job.id], room)
            rows[job.id] += more
            room -= more
        return [Share(job, job.begun, job.begun + rows[job.id]) for job in chosen if rows[job.id]]
