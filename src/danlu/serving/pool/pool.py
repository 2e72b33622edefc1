"""The Pool: a worker process for each model, the requests it has, and another process when it dies.

An answer is a function of the rows, and a text of its prompt and seed. So the requests of a worker
that died are given to the one that replaces it: clients wait longer and see no error. A text goes
on after the tokens that were received already. A request that two workers died of is given to the
third one alone; when that dies too, the request is refused (500): it is the one that kills them.

    await pool.answer(name, rows)        the answers of rows
    pool.write(name, request)            the events of a text, as they come
    pool.submit(model, kind, body, ...)  the body of an HTTP request as it came (for the routes)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from danlu.errors import ArtifactError, DanluError
from danlu.serving.pool.process import WorkerProcess
from danlu.serving.pool.served_model import PendingRequest, ServedModel
from danlu.serving.pool.snapshot import Snapshots
from danlu.serving.protocol.messages import (
    Answer,
    AnswerRows,
    FromWorker,
    RowsAnswered,
    StepDone,
    TextEvent,
    WriteText,
    pack,
)
from danlu.serving.protocol.model_folder import ModelFolder, locate
from danlu.serving.protocol.refusals import Refusal
from danlu.serving.protocol.settings import Settings
from danlu.system import machine

MAX_LOST_WORKERS = 3  # workers that may die with a request before it is refused
_TICK = 0.1  # seconds between two checks of deadlines and workers
# A worker whose threads are runnable and get no processor may be silent, and may take to open its
# model, for so many times the seconds that others may.
_STARVING = 15
_SLOWEST_RETRY = 5.0  # seconds between two attempts to open a model
_SPARE_RETRY = 5.0  # seconds between two attempts to start a spare worker

log = logging.getLogger("danlu.serving")


class Pool:
    """The workers of all models.

    `start` comes before anything else. All methods run in the thread of the event loop.

    models        the served models by name; the first answers where a request names none
    draining      the server is about to end: no request is accepted any more
    body_bytes    bytes of all bodies in memory
    """

    def __init__(self, models: Mapping[str, str | Path], settings: Settings | None = None) -> None:
        self.settings = settings or Settings.model_validate({})
        self.models = {
            name: ServedModel(name, Path(path), self.settings) for name, path in models.items()
        }
        self.threads = self.settings.threads or max(1, machine.cores() - 1)
        self.body_bytes = 0
        self.draining = False
        self._snapshots: Snapshots | None = None
        self._spare: WorkerProcess | None = None
        self._spare_at = 0.0  # when the next spare worker may be started
        self._last_id = 0
        self._owner: dict[WorkerProcess, ServedModel] = {}
        self._opened: dict[WorkerProcess, asyncio.Future[None]] = {}
        self._watch: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    # --- start and end

    async def start(self) -> None:
        """Open every model. Raises DanluError, naming the model, where one cannot be opened."""
        self._snapshots = Snapshots()
        try:
            started: list[tuple[ServedModel, WorkerProcess, ModelFolder]] = []
            for model in self.models.values():
                model.folder = self._copy(model)
                model.worker = await self._take_worker(model.folder.form)
                started.append((model, model.worker, model.folder))
            await asyncio.gather(*(self._open(*opening) for opening in started))
            for model, worker, _ in started:
                self._install(model, worker)
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
        workers = [worker for model in self.models.values() for worker in model.workers]
        for worker in [*workers, *([self._spare] if self._spare is not None else [])]:
            worker.kill()
            worker.process.wait()
        if self._snapshots is not None:
            self._snapshots.close()

    @property
    def ready(self) -> bool:
        """Whether every model can answer."""
        return not self.draining and all(model.ready for model in self.models.values())

    @property
    def waiting(self) -> int:
        """Requests accepted and not answered."""
        return sum(len(model.pending) for model in self.models.values())

    @property
    def accepted(self) -> int:
        """Requests accepted since the start."""
        return self._last_id

    def find(self, name: str | None) -> ServedModel:
        """The model of a name; None: the first. Raises Refusal (404)."""
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

    # --- requests

    async def answer(
        self, name: str | None, rows: Sequence[Mapping[str, object]], seconds: float | None = None
    ) -> list[Answer]:
        """The answers of rows, as JSON values, within `seconds`. Raises Refusal."""
        body = to_json({"rows": list(rows)})
        request = self.submit(self.find(name), "application/json", body, seconds)
        assert request.future is not None
        try:
            status, answer_body = await request.future
        finally:
            self.release(request)
        answer = from_json(answer_body)
        if status == 200:
            return answer["answers"]
        error = answer["error"]
        raise Refusal(
            error["message"],
            status=status,
            field=error["field"],
            row=error["row"],
            hint=error["hint"],
        )

    def submit(
        self,
        model: ServedModel,
        kind: str,
        body: bytes,
        seconds: float | None = None,
        on_answer: Callable[[int, bytes], None] | None = None,
    ) -> PendingRequest:
        """Give a request to the model's worker, without waiting.

        kind        content type of `body`
        seconds     until its deadline; None: `settings.deadline`
        on_answer   called with (status, body); None: the request's `future` will hold them

        The caller has checked `model.retry_after()`, and calls `release` afterwards."""
        limit = self.settings.deadline
        message: AnswerRows = {
            "do": "answer",
            "kind": kind,
            "id": self._next_id(),
            "before": time.monotonic() + (limit if seconds is None else min(seconds, limit)),
        }
        rows = model.admission.estimate_rows(len(body))
        request = self._accept(PendingRequest(model, message, body, rows))
        if on_answer is None:
            request.future = asyncio.get_running_loop().create_future()
        request.on_answer = on_answer
        self._dispatch(request)
        return request

    async def write(
        self,
        name: str | None,
        request: Mapping[str, object],
        seconds: float | None = None,
        size: int = 0,
    ) -> AsyncGenerator[TextEvent, None]:
        """The events of a text as they come; the last has "ended". `size`: bytes that the request
        takes, which count as those of a body.

        Closing the iterator stops the writing. Raises Refusal where the request cannot be met, the
        server is full (503) or `seconds` are over (504)."""
        model = self.find(name)
        self._check_writing(model)
        limit = self.settings.text_deadline
        message: WriteText = {
            "do": "write",
            "request": dict(request),
            "id": self._next_id(),
            "before": time.monotonic() + (limit if seconds is None else min(seconds, limit)),
        }
        pending = PendingRequest(model, message, b"", 1.0)
        pending.size = size
        self._accept(pending)
        events = pending.events = asyncio.Queue[TextEvent]()
        self._dispatch(pending)
        status = 499  # the client stopped listening
        try:
            while True:
                event = await events.get()
                if event["ended"] == "refused":
                    error = event.get("error")
                    status = event.get("status", 500)
                    assert error is not None
                    raise Refusal(
                        error["message"], status=status, field=error["field"], hint=error["hint"]
                    )
                if event["piece"] or event["ended"]:
                    yield event
                if event["ended"]:
                    status = 200
                    return
        finally:
            self._count(pending, status)
            self.release(pending)

    def _check_writing(self, model: ServedModel) -> None:
        if self.draining:
            raise Refusal(
                "the server is shutting down.",
                status=503,
                hint="ask another server, or ask again in a second",
            )
        if not model.writes_text:
            raise Refusal(
                f"{model.name} writes no text.",
                field="model",
                hint=f"POST /v1/models/{model.name}/predict",
            )
        if model.retry_after() or self.body_bytes > self.settings.queue_bytes:
            model.counts.answers[503] += 1
            raise Refusal(
                "the model is already writing as many texts as it can.",
                status=503,
                hint="ask again in a second",
            )

    def release(self, request: PendingRequest) -> None:
        """Forget a request: it was answered, or its client has gone."""
        model = request.model
        if model.pending.pop(request.id, None) is None:
            return
        model.admission.leave(request.rows)
        self.body_bytes -= request.size
        worker = request.worker
        if worker is not None and worker.state == "ready" and not request.answered:
            worker.send(pack({"do": "cancel", "id": request.id}))
        if model.suspect is request:
            model.suspect = None
        if model.unsent:
            self._dispatch_unsent(model)
        if model.retiring:
            self._end_retired(model)

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _accept(self, request: PendingRequest) -> PendingRequest:
        request.model.pending[request.id] = request
        request.model.admission.enter(request.rows)
        self.body_bytes += request.size
        return request

    def _dispatch(self, request: PendingRequest) -> None:
        """Send a request to its model's worker, or keep it until there is one."""
        model = request.model
        if not model.ready or model.unsent or model.suspect is not None:
            model.unsent.append(request)
            return
        self._send(request)

    def _send(self, request: PendingRequest) -> None:
        worker = request.model.worker
        assert worker is not None
        request.worker = worker
        message = request.message
        if request.tokens and message["do"] == "write":
            message["request"]["written"] = request.tokens
        worker.send(pack(message, request.body))

    def _dispatch_unsent(self, model: ServedModel) -> None:
        """Send the requests that were kept; a suspect goes first, alone, when the worker has no
        other request."""
        if not model.ready or model.suspect is not None:
            return
        waiting = [request for request in model.unsent if request.id in model.pending]
        # A sort keeps the order among equals.
        model.unsent = deque(sorted(waiting, key=lambda request: not _is_suspect(request)))
        while model.unsent:
            request = model.unsent.popleft()
            busy = any(other.worker is model.worker for other in model.pending.values())
            if _is_suspect(request) and busy:
                model.unsent.appendleft(request)
                return
            self._send(request)
            if _is_suspect(request):
                model.suspect = request
                return

    def _count(self, request: PendingRequest, status: int) -> None:
        counts = request.model.counts
        counts.answers[status] += 1
        counts.seconds.add(time.monotonic() - request.accepted_at)

    def _finish(self, request: PendingRequest, status: int, body: bytes) -> None:
        if request.answered:
            return
        request.answered = True
        self._count(request, status)
        if request.on_answer is not None:
            request.on_answer(status, body)
        elif request.future is not None and not request.future.done():
            request.future.set_result((status, body))

    def _refuse(self, request: PendingRequest, refusal: Refusal) -> None:
        if request.events is None:
            self._finish(request, refusal.status, refusal.body())
            return
        request.events.put_nowait(
            {
                "say": "event",
                "id": request.id,
                "piece": "",
                "ended": "refused",
                "tokens": 0,
                "status": refusal.status,
                "error": refusal.as_dict(),
            }
        )

    # --- what workers send

    def _on_message(self, worker: WorkerProcess, header: FromWorker, body: bytes) -> None:
        if header["say"] in ("ready", "refused"):
            self._end_opening(worker)
            return
        model = self._owner.get(worker)
        if model is None:
            return
        if header["say"] == "step":
            _learn_step(model, worker, header)
        elif header["say"] == "answer":
            request = model.pending.get(header["id"])
            if request is not None and request.worker is worker:
                self._on_answer(request, header, body)
        elif header["say"] == "event":
            request = model.pending.get(header["id"])
            if request is not None and request.worker is worker:
                _on_event(request, header)

    def _on_answer(self, request: PendingRequest, header: RowsAnswered, body: bytes) -> None:
        request.model.counts.rows += header["rows"]
        request.model.admission.learn_size(header["rows"], len(request.body))
        self._finish(request, header["status"], body)

    def _end_opening(self, worker: WorkerProcess) -> None:
        opened = self._opened.get(worker)
        if opened is not None and not opened.done():
            opened.set_result(None)

    def _on_worker_end(self, worker: WorkerProcess) -> None:
        self._end_opening(worker)
        model = self._owner.pop(worker, None)
        if self._closed:
            return
        if worker is self._spare:
            self._spare, self._spare_at = None, time.monotonic() + 1.0
        if model is None:
            return
        model.retiring.discard(worker)
        self._keep_lost_requests(model, worker)
        if worker is model.worker:
            model.worker = None
            model.down_since = time.monotonic()
            self._replace(model)
        else:
            self._dispatch_unsent(model)

    def _keep_lost_requests(self, model: ServedModel, worker: WorkerProcess) -> None:
        """The requests of a worker that died go back to the front of the queue, in their order."""
        lost = [request for request in model.pending.values() if request.worker is worker]
        if model.suspect is not None and model.suspect.worker is worker:
            model.suspect = None
        for request in lost:
            request.worker = None
            request.lost_workers += 1
            if request.lost_workers >= MAX_LOST_WORKERS:
                refusal = Refusal(
                    "the model's worker died three times with this request.", status=500
                )
                self._refuse(request, refusal)
        again = [request for request in lost if request.lost_workers < MAX_LOST_WORKERS]
        model.counts.asked_again += len(again)
        model.unsent.extendleft(reversed(again))

    # --- workers

    def _copy(self, model: ServedModel) -> ModelFolder:
        assert self._snapshots is not None
        folder = locate(model.path)
        return ModelFolder(self._snapshots.take(folder.folder), folder.form, folder.name)

    async def _take_worker(self, form: str) -> WorkerProcess:
        """The spare worker where it is of that form, else a new process."""
        spare = self._spare
        if spare is not None and spare.form == form and spare.state in ("importing", "spare"):
            self._spare = None
            self._spare_at = 0.0  # start the next one at once: this one may die as soon
            return spare
        return await self._start_worker(form)

    async def _start_worker(self, form: str) -> WorkerProcess:
        worker = WorkerProcess(form, self._on_message, self._on_worker_end, self.threads)
        await worker.listen()
        return worker

    async def _open(self, model: ServedModel, worker: WorkerProcess, folder: ModelFolder) -> None:
        """Have a worker open a model. Raises ArtifactError where it cannot."""
        opened = self._opened[worker] = asyncio.get_running_loop().create_future()
        settings = self.settings
        worker.open(
            folder.folder,
            model.name,
            {
                "most_rows": settings.most_rows,
                "batch": settings.batch,
                "slots": settings.slots,
            },
        )
        try:
            await self._wait_until_opened(opened, worker)
        except TimeoutError:
            worker.kill()
            raise ArtifactError(
                f"it was not open after {settings.opening:g} s.", where=str(model.path)
            ) from None
        finally:
            del self._opened[worker]
        if worker.state == "ready":
            self._owner[worker] = model
            return
        error = worker.open_error
        worker.kill()
        if error is None:
            raise ArtifactError(
                "the worker ended while it opened the model.", where=str(model.path)
            )
        where = error["where"].replace(str(folder.folder), str(model.path))
        raise ArtifactError(error["message"], where=where, hint=error["hint"])

    async def _wait_until_opened(self, opened: asyncio.Future[None], worker: WorkerProcess) -> None:
        """Raises TimeoutError after `settings.opening` seconds; later where the worker has used
        less processor time than that, since the machine does not let it run."""
        limit = self.settings.opening
        for _ in range(_STARVING):
            await asyncio.wait({opened}, timeout=limit)
            if opened.done():
                return
            if not worker.is_runnable() or worker.cpu_seconds >= limit:
                break
        raise TimeoutError

    def _install(self, model: ServedModel, worker: WorkerProcess) -> None:
        """Let a worker that is ready answer for a model."""
        model.worker = worker
        model.description = worker.description
        model.failures = 0
        for rows, seconds in worker.description.get("paces", ()):
            model.admission.pace.learn(rows, seconds)
        self._dispatch_unsent(model)

    def _replace(self, model: ServedModel) -> None:
        self._start_task(self._open_replacement(model))

    async def _open_replacement(self, model: ServedModel) -> None:
        """Another worker for a model whose worker died; tried until one opens the model."""
        assert model.folder is not None
        while not self._closed and model.worker is None:
            try:
                worker = await self._take_worker(model.folder.form)
                await self._open(model, worker, model.folder)
            except (DanluError, OSError) as error:
                model.failures += 1
                log.error("%s: no worker: %s", model.name, error)
                await asyncio.sleep(min(0.1 * 2**model.failures, _SLOWEST_RETRY))
                continue
            if model.worker is not None:  # a swap was quicker
                worker.kill()
                return
            self._install(model, worker)
            seconds = time.monotonic() - model.down_since
            log.warning("%s: a new worker after %.2f s", model.name, seconds)

    async def swap(self, name: str) -> None:
        """Open a model's folder anew.

        Another worker opens it and answers from then on; the old worker answers what it was given,
        then ends. Raises DanluError where the folder cannot be opened: the old worker then goes on
        unchanged."""
        model = self.models[name]
        if model.swapping:
            raise ArtifactError("this model is being opened anew at this moment.", where=name)
        model.swapping = True
        folder = None
        try:
            folder = self._copy(model)
            worker = await self._take_worker(folder.form)
            await self._open(model, worker, folder)
        except DanluError:
            model.counts.swaps["refused"] += 1
            if folder is not None and self._snapshots is not None:
                self._snapshots.drop(folder.folder)
            raise
        finally:
            model.swapping = False
        old_worker, old_folder = model.worker, model.folder
        if old_worker is not None:
            model.retiring.add(old_worker)
        model.folder = folder
        self._install(model, worker)
        model.counts.swaps["done"] += 1
        if old_folder is not None and self._snapshots is not None:
            self._snapshots.drop(old_folder.folder)
        self._end_retired(model)

    def _end_retired(self, model: ServedModel) -> None:
        """End the workers of the model before a swap, once they have answered."""
        for worker in list(model.retiring):
            if not any(request.worker is worker for request in model.pending.values()):
                model.retiring.discard(worker)
                self._owner.pop(worker, None)
                worker.kill()

    # --- watching

    async def _keep_watch(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            # Where this process itself stood still, what it did not hear says nothing.
            stood_still = now - last > 1.0 + _TICK
            last = now
            for model in self.models.values():
                self._expire(model, now)
                for worker in model.workers:
                    if stood_still:
                        worker.heard_at = worker.idle_since = now
                    elif reason := self._why_replace(worker, now):
                        self._kill_worker(model, worker, reason)
            if self._spare is None and now >= self._spare_at and self._wants_spare():
                self._spare_at = now + _SPARE_RETRY
                self._start_task(self._start_spare())

    def _kill_worker(self, model: ServedModel, worker: WorkerProcess, reason: str) -> None:
        model.counts.replaced[reason] += 1
        log.error("%s: its worker (process %d) is replaced: %s", model.name, worker.pid, reason)
        worker.kill()

    def _expire(self, model: ServedModel, now: float) -> None:
        late = [request for request in model.pending.values() if request.deadline < now]
        for request in late:
            refusal = Refusal("there was no answer before the deadline.", status=504)
            self._refuse(request, refusal)

    def _why_replace(self, worker: WorkerProcess, now: float) -> str:
        """Why a worker is to be replaced, "" where it is not."""
        if worker.state != "ready":
            return ""
        settings = self.settings
        silence = now - worker.heard_at
        if silence > settings.silence:
            may_starve = silence < _STARVING * settings.silence
            if not (may_starve and worker.is_runnable()):
                return "silent"
        idle = now - worker.idle_since > settings.idle_step
        if worker.step_seconds > settings.idle_step and idle:
            return "hung"
        return "too slow" if worker.step_seconds > settings.longest_step else ""

    def _wants_spare(self) -> bool:
        forms = [model.folder.form for model in self.models.values() if model.folder is not None]
        return self.settings.spare and "torch" in forms and not self.draining

    async def _start_spare(self) -> None:
        if self._spare is None:
            worker = WorkerProcess("torch", self._on_message, self._on_worker_end, self.threads)
            self._spare = worker
            await worker.listen()

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_suspect(request: PendingRequest) -> bool:
    return request.lost_workers >= MAX_LOST_WORKERS - 1


def _on_event(request: PendingRequest, event: TextEvent) -> None:
    if request.events is not None:
        request.tokens += event.pop("codes", [])
        request.model.counts.tokens += 1
        request.events.put_nowait(event)


def _learn_step(model: ServedModel, worker: WorkerProcess, step: StepDone) -> None:
    model.counts.steps.add(step["rows"])
    model.counts.busy_seconds += step["seconds"]
    if worker is model.worker:
        model.admission.pace.learn(step["rows"], step["seconds"])
        model.admission.step_rows = step["most"]
