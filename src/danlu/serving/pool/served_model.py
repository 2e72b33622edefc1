"""What the pool knows of a model that is served, and of a request that a worker is to answer."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from danlu.serving.pool.admission import Admission
from danlu.serving.pool.process import WorkerProcess
from danlu.serving.pool.request_counts import RequestCounts
from danlu.serving.protocol.messages import ModelDescription, Request, TextEvent
from danlu.serving.protocol.model_folder import ModelFolder
from danlu.serving.protocol.settings import Settings

_TEXTS_PER_SLOT = 4  # texts that may wait or be written, for each slot


class PendingRequest:
    """A request that a worker is to answer.

    message        what is sent to the worker, with `body`
    size           bytes that message and body take
    deadline       the moment of time.monotonic() after which it is not answered
    rows           how many rows admission estimates it to hold
    lost_workers   how many workers died while they had it
    future         the answer (status, body), where no `on_answer` was given
    on_answer      called with (status, body)
    events         of a text: its events
    tokens         of a text: the tokens received so far
    """

    __slots__ = (
        "accepted_at",
        "answered",
        "body",
        "deadline",
        "events",
        "future",
        "id",
        "lost_workers",
        "message",
        "model",
        "on_answer",
        "rows",
        "size",
        "tokens",
        "worker",
    )

    def __init__(self, model: ServedModel, message: Request, body: bytes, rows: float) -> None:
        self.model = model
        self.id = message["id"]
        self.message = message
        self.body = body
        self.size = len(body)
        self.deadline = message["before"]
        self.rows = rows
        self.accepted_at = time.monotonic()
        self.lost_workers = 0
        self.answered = False
        self.worker: WorkerProcess | None = None
        self.future: asyncio.Future[tuple[int, bytes]] | None = None
        self.on_answer: Callable[[int, bytes], None] | None = None
        self.events: asyncio.Queue[TextEvent] | None = None
        self.tokens: list[int] = []


class ServedModel:
    """A model that is served.

    path          the folder that the operator named
    folder        the pool's own copy of it
    description   what the worker reports of the model
    retiring      workers of the model before a swap, which still answer what they were given
    pending       accepted requests by id; `unsent` are those that no worker has yet
    suspect       the request that two workers died of: the worker gets it alone
    """

    def __init__(self, name: str, path: Path, settings: Settings) -> None:
        self.name = name
        self.path = path
        self.settings = settings
        self.folder: ModelFolder | None = None
        self.description: ModelDescription = {}
        self.worker: WorkerProcess | None = None
        self.retiring: set[WorkerProcess] = set()
        self.pending: dict[int, PendingRequest] = {}
        self.unsent: deque[PendingRequest] = deque()
        self.suspect: PendingRequest | None = None
        self.admission = Admission(
            settings.longest_wait, settings.queue, settings.batch, settings.most_rows
        )
        self.counts = RequestCounts()
        self.swapping = False
        self.failures = 0
        self.down_since = 0.0

    @property
    def ready(self) -> bool:
        """Whether a worker can answer now."""
        return self.worker is not None and self.worker.state == "ready"

    @property
    def writes_text(self) -> bool:
        """Whether the model writes text instead of answering rows."""
        return self.description.get("kind") == "text"

    @property
    def workers(self) -> list[WorkerProcess]:
        """All its processes, those before a swap among them."""
        return [*self.retiring, *([self.worker] if self.worker is not None else [])]

    def retry_after(self) -> int:
        """0 where one more request may wait, else the seconds after which to ask again."""
        if self.writes_text:
            most = _TEXTS_PER_SLOT * self.description.get("slots", 1)
            return int(self.admission.waiting >= most)
        opening = max(self.description.get("opening", 1.0), 0.05)
        return self.admission.retry_after(0.0 if self.ready else opening)
