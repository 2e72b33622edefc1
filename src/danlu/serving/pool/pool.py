"""The Pool: for each model that is served a worker process, what it was asked, and another process where it dies or hangs.

An answer is a function of the rows, a text of its prompt and seed. So what a worker that is lost
had been asked is asked again of the one that takes its place, and whoever waits sees a longer wait,
not an error; a text goes on from the tokens that were told already. A request that two workers died
of is asked alone, and after a third one given up: it is the one that kills them.

    await pool.answer(name, rows)        the answers of rows
    pool.write(name, request)            the events of a text, as they come
    pool.ask(served, ...)                the body of a request as it came (what the routes use)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from danlu.errors import ArtifactError, DanluError
from danlu.serving.messages import pack
from danlu.serving.metrics import Counts
from danlu.serving.pool.admission import Admission
from danlu.serving.pool.process import WorkerProcess
from danlu.serving.pool.snapshot import Snapshots
from danlu.serving.refusals import Refusal
from danlu.serving.settings import Settings
from danlu.serving.worker.models import Place, locate
from danlu.system import machine

LIVES = 3  # workers that may be lost with a request before it is given up
_TICK = 0.1  # seconds between two looks at deadlines and at workers
_STARVING = 15  # times the silence allowed to a worker that would speak if the machine let it
_SLOWEST_RETRY = 5.0  # seconds between two attempts to open a model
_TEXTS_A_SLOT = 4  # texts that may wait or be written, for each slot

log = logging.getLogger("danlu.serving")


class Asked:
    """A request that a worker is to answer. `rows` is what admission thinks it holds; `lost` counts
    the workers that died with it."""

    __slots__ = (
        "answered",
        "before",
        "began",
        "body",
        "codes",
        "events",
        "future",
        "header",
        "id",
        "lost",
        "rows",
        "served",
        "then",
        "worker",
    )

    def __init__(
        self,
        served: Served,
        id: int,
        header: dict[str, Any],
        body: bytes,
        before: float,
        rows: float,
    ) -> None:
        self.served = served
        self.id = id
        self.header = header
        self.body = body
        self.before = before
        self.rows = rows
        self.began = time.monotonic()
        self.lost = 0
        self.answered = False
        self.worker: WorkerProcess | None = None
        self.future: asyncio.Future[tuple[int, bytes]] | None = None
        self.then: Callable[[int, bytes], None] | None = None
        self.events: asyncio.Queue[dict[str, Any]] | None = None
        self.codes: list[int] = []  # of a text: what was told


class Served:
    """A model that is served. `about` is what its worker tells of it (see
    danlu.serving.worker.main.Desk)."""

    def __init__(self, name: str, path: Path, settings: Settings) -> None:
        self.name = name
        self.path = path
        self.settings = settings
        self.place: Place | None = None  # of the snapshot
        self.about: dict[str, Any] = {}
        self.worker: WorkerProcess | None = None
        self.leaving: set[WorkerProcess] = (
            set()
        )  # of the model before a swap: they answer what they were asked
        self.asked: dict[int, Asked] = {}
        self.unsent: deque[Asked] = deque()
        self.suspect: Asked | None = None  # two workers died of it: it is asked alone
        self.admission = Admission(
            settings.longest_wait, settings.queue, settings.batch, settings.most_rows
        )
        self.counts = Counts()
        self.swapping = False
        self.failures = 0
        self.retry_at = 0.0
        self.down_since = 0.0

    @property
    def ready(self) -> bool:
        """Whether a worker can answer now."""
        return self.worker is not None and self.worker.state == "ready"

    @property
    def writes(self) -> bool:
        """Whether it is a model of texts."""
        return self.about.get("kind") == "text"

    def turns_away(self) -> int:
        """0 where one more request may wait, else the seconds after which to ask again."""
        if self.writes:
            return int(self.admission.waiting >= _TEXTS_A_SLOT * int(self.about.get("slots", 1)))
        return self.admission.turns_away(
            0.0 if self.ready else max(float(self.about.get("opening", 1.0)), 0.05)
        )

    @property
    def workers(self) -> list[WorkerProcess]:
        """All its processes."""
        return [*self.leaving, *([self.worker] if self.worker is not None else [])]


class Pool:
    """Workers of all models. `start` before anything else; everything happens in the thread of its
    event loop."""

    def __init__(self, models: Mapping[str, str | Path], settings: Settings | None = None) -> None:
        self.settings = settings or Settings.model_validate({})
        self.models = {
            name: Served(name, Path(path), self.settings) for name, path in models.items()
        }
        self.threads = self.settings.threads or max(1, machine.cores() - 1)
        self.held_bytes = 0
        self.draining = False
        self._snapshots: Snapshots | None = None
        self._spare: WorkerProcess | None = None
        self._spare_at = 0.0
        self._last_id = 0
        self._owner: dict[WorkerProcess, Served] = {}
        self._opened: dict[WorkerProcess, asyncio.Future[None]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    # --- beginning and end

    async def start(self) -> None:
        """Open every model. Raises DanluError, naming the model, where one cannot be opened."""
        self._snapshots = Snapshots()
        try:
            for served in self.models.values():
                served.place = self._copy(served)
                served.worker = await self._new(served.place.form)
            await asyncio.gather(
                *(
                    self._open(served, served.worker, served.place)
                    for served in self.models.values()
                )
            )  # type: ignore[arg-type]
            for served in self.models.values():
                assert served.worker is not None
                self._learn(served, served.worker)
        except BaseException:
            await self.close()
            raise
        self._watch = asyncio.get_running_loop().create_task(self._keep_watch())

    async def close(self) -> None:
        """End all workers."""
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        for task in list(self._tasks):
            task.cancel()
        workers = [worker for served in self.models.values() for worker in served.workers]
        for worker in [*workers, *([self._spare] if self._spare is not None else [])]:
            worker.kill()
            worker.process.wait()
        if self._snapshots is not None:
            self._snapshots.close()

    @property
    def ready(self) -> bool:
        """Whether every model can answer."""
        return not self.draining and all(served.ready for served in self.models.values())

    @property
    def waiting(self) -> int:
        """Requests accepted and not answered."""
        return sum(len(served.asked) for served in self.models.values())

    @property
    def accepted(self) -> int:
        """Requests accepted since the beginning."""
        return self._last_id

    def find(self, name: str | None) -> Served:
        """The model of a name; None: the only one, or the first. Raises Refusal."""
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise Refusal(
                f"there is no model {name[:100]!r}.",
                status=404,
                field="model",
                hint=f"models: {', '.join(self.models)}",
            )
        return self.models[name]

    # --- asking

    async def answer(
        self, name: str | None, rows: Sequence[Mapping[str, Any]], seconds: float | None = None
    ) -> list[dict[str, Any]]:
        """The answers of rows, as JSON values. Raises Refusal."""
        served = self.find(name)
        status, body = await self.ask(
            served, "application/json", to_json({"rows": list(rows)}), seconds
        )
        told = from_json(body)
        if status != 200:
            error = told["error"]
            raise Refusal(
                error["message"],
                status=status,
                field=error["field"],
                row=error["row"],
                hint=error["hint"],
            )
        return told["answers"]

    async def ask(
        self, served: Served, kind: str, body: bytes, seconds: float | None = None
    ) -> tuple[int, bytes]:
        """(status, body) of the answer to a request's body of a content type. The caller has asked
        `served.turns_away`."""
        asked = self.begin(served, kind, body, seconds)
        assert asked.future is not None
        try:
            return await asked.future
        finally:
            self.leave(asked)

    def begin(
        self,
        served: Served,
        kind: str,
        body: bytes,
        seconds: float | None = None,
        then: Callable[[int, bytes], None] | None = None,
    ) -> Asked:
        """Ask, without waiting: `then` is called with (status, body), or `Asked.future` holds them
        in the end. `leave` is to follow."""
        limit = self.settings.deadline
        before = time.monotonic() + (limit if seconds is None else min(seconds, limit))
        asked = self._enter(
            served,
            {"do": "answer", "kind": kind},
            body,
            before,
            served.admission.rows_of(len(body)),
        )
        if then is None:
            asked.future = asyncio.get_running_loop().create_future()
        asked.then = then
        self._give(asked)
        return asked

    async def write(
        self, name: str | None, request: Mapping[str, Any], seconds: float | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """The events of a text: {"piece", "ended", "tokens", "prompt_tokens", ...}; the last has
        "ended".

        Raises Refusal where the request cannot be met, the server is full (503) or its time is over
        (504). A caller that stops listening (closes the iterator) stops the writing."""
        served = self.find(name)
        if self.draining:
            raise Refusal(
                "the server is about to end.",
                status=503,
                hint="ask another one, or again in a second",
            )
        if not served.writes:
            raise Refusal(
                f"{served.name} writes no text.",
                field="model",
                hint=f"POST /v1/models/{served.name}/predict",
            )
        if served.turns_away():
            served.counts.answers[503] += 1
            raise Refusal(
                "as many texts as can be are being written.",
                status=503,
                hint="ask again in a second",
            )
        limit = self.settings.text_deadline
        before = time.monotonic() + (limit if seconds is None else min(seconds, limit))
        asked = self._enter(served, {"do": "write", "request": dict(request)}, b"", before, 1.0)
        asked.events = asyncio.Queue()
        self._give(asked)
        status = 499  # the client stopped listening
        try:
            while True:
                event = await asked.events.get()
                if event["ended"] == "refused":
                    status, told = event["status"], event["error"]
                    raise Refusal(
                        told["message"], status=status, field=told["field"], hint=told["hint"]
                    )
                if event["piece"] or event["ended"]:
                    yield {key: value for key, value in event.items() if key not in ("say", "id")}
                if event["ended"]:
                    status = 200
                    return
        finally:
            self._count(asked, status)
            self.leave(asked)

    def _enter(
        self, served: Served, header: dict[str, Any], body: bytes, before: float, rows: float
    ) -> Asked:
        self._last_id += 1
        asked = Asked(
            served,
            self._last_id,
            {**header, "id": self._last_id, "before": before},
            body,
            before,
            rows,
        )
        served.asked[asked.id] = asked
        served.admission.enter(rows)
        self.held_bytes += len(body)
        return asked

    def leave(self, asked: Asked) -> None:
        """Nobody waits for it any more: it was answered, or the client has gone."""
        served = asked.served
        if served.asked.pop(asked.id, None) is None:
            return
        served.admission.leave(asked.rows)
        self.held_bytes -= len(asked.body)
        worker = asked.worker
        if worker is not None and worker.state == "ready" and not asked.answered:
            worker.send(pack({"do": "cancel", "id": asked.id}))
        if served.suspect is asked:
            served.suspect = None
        if served.unsent:
            self._give_rest(served)
        if served.leaving:
            self._let_go(served)

    def _give(self, asked: Asked) -> None:
        """Send a request to its model's worker, or keep it until there is one."""
        served = asked.served
        if not served.ready or served.unsent or served.suspect is not None:
            served.unsent.append(asked)
            return
        self._send(asked)

    def _send(self, asked: Asked) -> None:
        worker = asked.served.worker
        assert worker is not None
        asked.worker = worker
        if asked.codes:
            asked.header["request"]["written"] = asked.codes
        worker.send(pack(asked.header, asked.body))

    def _give_rest(self, served: Served) -> None:
        """Send what was kept; what two workers died of goes alone."""
        if not served.ready or served.suspect is not None:
            return
        there = [each for each in served.unsent if each.id in served.asked]
        served.unsent = deque(
            sorted(there, key=lambda each: each.lost < LIVES - 1)
        )  # a sort keeps the order among equals
        while served.unsent:
            asked = served.unsent.popleft()
            suspected = asked.lost >= LIVES - 1
            if suspected and any(each.worker is served.worker for each in served.asked.values()):
                served.unsent.appendleft(asked)  # it waits until the others have their answers
                return
            self._send(asked)
            if suspected:
                served.suspect = asked
                return

    def _count(self, asked: Asked, status: int) -> None:
        counts = asked.served.counts
        counts.answers[status] += 1
        counts.seconds.add(time.monotonic() - asked.began)

    def _finish(self, asked: Asked, status: int, body: bytes) -> None:
        if asked.answered:
            return
        asked.answered = True
        self._count(asked, status)
        if asked.then is not None:
            asked.then(status, body)
        elif asked.future is not None and not asked.future.done():
            asked.future.set_result((status, body))

    def _fail(self, asked: Asked, refusal: Refusal) -> None:
        if asked.events is None:
            self._finish(asked, refusal.status, refusal.body())
        else:
            asked.events.put_nowait(
                {
                    "piece": "",
                    "ended": "refused",
                    "status": refusal.status,
                    "error": refusal.as_dict(),
                }
            )

    # --- hearing

    def _hear(self, worker: WorkerProcess, header: dict[str, Any], body: bytes) -> None:
        said = header["say"]
        if said in ("ready", "refused"):
            waiter = self._opened.get(worker)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
            return
        served = self._owner.get(worker)
        if served is None:
            return
        if said == "step":
            served.counts.steps.add(header["rows"])
            served.counts.busy_seconds += header["seconds"]
            if worker is served.worker:
                served.admission.pace.learn(header["rows"], header["seconds"])
                served.admission.together = header["most"]
        elif (asked := served.asked.get(header["id"])) is not None and asked.worker is worker:
            if said == "answer":
                served.counts.rows += header["rows"]
                served.admission.learn_size(header["rows"], len(asked.body))
                self._finish(asked, header["status"], body)
            elif asked.events is not None:
                asked.codes += header.pop("codes", ())
                served.counts.tokens += 1
                asked.events.put_nowait(header)

    def _gone(self, worker: WorkerProcess) -> None:
        waiter = self._opened.get(worker)
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        served = self._owner.pop(worker, None)
        if self._closed:
            return
        if worker is self._spare:
            self._spare, self._spare_at = None, time.monotonic() + 1.0
        if served is None:
            return
        served.leaving.discard(worker)
        lost = [each for each in served.asked.values() if each.worker is worker]
        if served.suspect is not None and served.suspect.worker is worker:
            served.suspect = None
        for asked in lost:
            asked.worker = None
            asked.lost += 1
            if asked.lost >= LIVES:
                self._fail(
                    asked,
                    Refusal(
                        "the model's worker was lost three times with this request.", status=500
                    ),
                )
        again = [each for each in lost if each.lost < LIVES]
        served.counts.asked_again += len(again)
        served.unsent.extendleft(reversed(again))
        if worker is served.worker:
            served.worker = None
            served.down_since = time.monotonic()
            self._replace(served)
        else:
            self._give_rest(served)

    # --- workers

    def _copy(self, served: Served) -> Place:
        assert self._snapshots is not None
        place = locate(served.path)
        return Place(self._snapshots.take(place.folder), place.form, place.name)

    async def _new(self, form: str) -> WorkerProcess:
        """The spare where it is of that form, else a new process."""
        if (
            self._spare is not None
            and self._spare.form == form
            and self._spare.state in ("importing", "spare")
        ):
            worker, self._spare = self._spare, None
            self._spare_at = (
                0.0  # the next at once: the one that took its place may be lost as soon
            )
            return worker
        worker = WorkerProcess(form, self._hear, self._gone, self.threads)
        await worker.listen()
        return worker

    async def _open(self, served: Served, worker: WorkerProcess, place: Place) -> None:
        """Have a worker open a model. Raises ArtifactError where it cannot."""
        waiter = self._opened[worker] = asyncio.get_running_loop().create_future()
        settings = self.settings
        options = {
            "most_rows": settings.most_rows,
            "batch": settings.batch,
            "slots": settings.slots,
        }
        worker.open({"path": str(place.folder), "name": served.name, "options": options})
        try:
            await asyncio.wait_for(waiter, settings.opening)
        except TimeoutError:
            worker.kill()
            raise ArtifactError(
                f"it was not open after {settings.opening:g} s.", where=str(served.path)
            ) from None
        finally:
            del self._opened[worker]
        if worker.state == "ready":
            self._owner[worker] = served
            return
        told = worker.refusal
        worker.kill()
        if not told:
            raise ArtifactError(
                "the worker ended while it opened the model.", where=str(served.path)
            )
        where = told["where"].replace(str(place.folder), str(served.path))
        raise ArtifactError(told["message"], where=where, hint=told["hint"])

    def _learn(self, served: Served, worker: WorkerProcess) -> None:
        """A worker that is ready takes a model over."""
        served.worker = worker
        served.about = worker.about
        served.failures = 0
        for rows, seconds in worker.about.get("paces", ()):
            served.admission.pace.learn(rows, seconds)
        self._give_rest(served)

    def _replace(self, served: Served) -> None:
        self._start_task(self._replacing(served))

    async def _replacing(self, served: Served) -> None:
        """Another worker for a model whose worker is lost; tried until it opens."""
        assert served.place is not None
        while not self._closed and served.worker is None:
            worker = None
            try:
                worker = await self._new(served.place.form)
                await self._open(served, worker, served.place)
            except (DanluError, OSError) as error:
                served.failures += 1
                log.error("%s: no worker: %s", served.name, error)
                await asyncio.sleep(min(0.1 * 2**served.failures, _SLOWEST_RETRY))
                continue
            if served.worker is not None:  # a swap was quicker
                worker.kill()
                return
            self._learn(served, worker)
            log.warning(
                "%s: a new worker after %.2f s", served.name, time.monotonic() - served.down_since
            )

    async def swap(self, name: str) -> None:
        """Read a model's folder anew: a worker opens it, takes over, and the one before answers
        what it was asked, then ends.

        Raises DanluError where the new one cannot be opened; the old one then goes on as if nothing
        had been."""
        served = self.models[name]
        if served.swapping:
            raise ArtifactError("this model is being read anew at this moment.", where=name)
        served.swapping = True
        place = None
        try:
            place = self._copy(served)
            worker = await self._new(place.form)
            await self._open(served, worker, place)
        except DanluError:
            served.counts.swaps["refused"] += 1
            if place is not None and self._snapshots is not None:
                self._snapshots.drop(place.folder)
            raise
        finally:
            served.swapping = False
        before, old_place = served.worker, served.place
        if before is not None:
            served.leaving.add(before)
        served.place = place
        self._learn(served, worker)
        served.counts.swaps["done"] += 1
        if old_place is not None and self._snapshots is not None:
            self._snapshots.drop(old_place.folder)
        self._let_go(served)

    def _let_go(self, served: Served) -> None:
        """End workers of models before, once they have answered."""
        for worker in list(served.leaving):
            if not any(asked.worker is worker for asked in served.asked.values()):
                served.leaving.discard(worker)
                self._owner.pop(worker, None)
                worker.kill()

    # --- watching

    async def _keep_watch(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            late = (
                now - last > 1.0 + _TICK
            )  # this process itself stood still: what was not heard says nothing
            last = now
            for served in self.models.values():
                self._expire(served, now)
                for worker in served.workers:
                    if late:
                        worker.heard = worker.standing = now
                    elif reason := self._hung(worker, now):
                        served.counts.replaced[reason] += 1
                        log.error(
                            "%s: its worker (process %d) is replaced: %s",
                            served.name,
                            worker.pid,
                            reason,
                        )
                        worker.kill()
            if self._spare is None and now >= self._spare_at and self._wants_spare():
                self._spare_at = now + 5.0
                self._start_task(self._make_spare())

    def _expire(self, served: Served, now: float) -> None:
        for asked in [each for each in served.asked.values() if each.before < now]:
            self._fail(
                asked, Refusal("there was no answer within the time that was given.", status=504)
            )

    def _hung(self, worker: WorkerProcess, now: float) -> str:
        """Why a worker is to be replaced, "" where it is not."""
        if worker.state != "ready":
            return ""
        settings = self.settings
        if now - worker.heard > settings.silence and not (
            worker.wants_to_run() and now - worker.heard < _STARVING * settings.silence
        ):
            return "silent"
        if worker.step > settings.idle_step and now - worker.standing > settings.idle_step:
            return "hung"
        return "too slow" if worker.step > settings.longest_step else ""

    def _wants_spare(self) -> bool:
        forms = [served.place.form for served in self.models.values() if served.place is not None]
        return self.settings.spare and "torch" in forms and not self.draining

    async def _make_spare(self) -> None:
        if self._spare is None:
            self._spare = WorkerProcess("torch", self._hear, self._gone, self.threads)
            await self._spare.listen()

    def _start_task(self, made: Any) -> None:
        task = asyncio.get_running_loop().create_task(made)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
