"""The Handler of a worker whose model answers rows: bodies of requests in, JSON answers out."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic_core import to_json

from danlu.errors import DanluError
from danlu.serving.protocol.messages import Answer, ModelDescription, Request, pack
from danlu.serving.protocol.refusals import Refusal, errors_as_refusals
from danlu.serving.worker import decode_values, parse_body
from danlu.serving.worker.batching import Batcher, Job, Share
from danlu.serving.worker.handler import Handler

if TYPE_CHECKING:
    import numpy as np

    from danlu.serving.worker.models import OpenedModel

MAX_ROWS = 4096  # of a request
_WARM_UP_ROWS = 16
_SLOW = 0.25  # seconds of a warm-up step after which no more are made


class PredictionHandler(Handler):
    """The requests of rows that are being answered.

    model      the opened model
    max_rows   rows of a request at most
    batch      rows of a step at most; 0: danlu.serving.worker.batching.MAX_ROWS
    """

    def __init__(self, model: OpenedModel, max_rows: int = MAX_ROWS, batch: int = 0) -> None:
        self.model = model
        self.max_rows = max_rows
        self.batcher = Batcher(batch) if batch else Batcher()
        self.description: ModelDescription = {
            "name": model.name,
            "kind": "rows",
            "fields": model.fields,
            "card": model.card,
            "paces": self._warm_up(),
            "most_rows": max_rows,
        }

    @property
    def step_rows(self) -> int:
        """Rows of a step at most, at present."""
        return self.batcher.step_rows

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.batcher)

    def take(self, request: Request, body: bytes) -> Iterable[bytes]:
        """Read a request; a message only where it is refused."""
        if request["before"] < time.monotonic():
            return ()
        if request["do"] != "answer":
            return (self._no_text(request["id"]),)
        try:
            with errors_as_refusals():
                rows = parse_body.parse(request["kind"], body, self.model.fields, self.max_rows)
                columns = decode_values.decode(rows, self.model.fields)
        except Refusal as refusal:
            return (_refused(request["id"], refusal),)
        if not self.model.independent:
            columns.key = None
        self.batcher.add(Job(request["id"], columns, request["before"]))
        return ()

    def _no_text(self, id: int) -> bytes:
        refusal = Refusal(
            "this model answers rows; it writes no text.",
            hint=f"POST /v1/models/{self.model.name}/predict",
        )
        event = {"say": "event", "id": id, "piece": "", "ended": "refused", "tokens": 0}
        return pack({**event, "status": refusal.status, "error": refusal.as_dict()})

    def cancel(self, id: int) -> None:
        """Forget a request."""
        self.batcher.drop(id)

    def step(self) -> Iterator[bytes]:
        """Answer one batch of rows; the answers of the requests that it completes."""
        began = time.perf_counter()
        shares = self.batcher.next(time.monotonic())
        self.rows = sum(share.stop - share.start for share in shares)
        yield from self._answer(shares)
        self.batcher.learn(self.rows, time.perf_counter() - began)

    def _answer(self, shares: Sequence[Share]) -> Iterator[bytes]:
        if not shares:
            return
        try:
            columns = decode_values.concatenate(
                [share.job.columns.cut(share.start, share.stop) for share in shares]
            )
            answers = self.model.answer(columns)
        except Exception as error:
            if len(shares) > 1:  # one request's fault: each is tried by itself
                for share in shares:
                    yield from self._answer([share])
                return
            self.batcher.drop(shares[0].job.id)
            yield _refused(shares[0].job.id, self._refusal(error, shares[0]))
            return
        if len(shares) == 1 and not self.model.independent:
            yield self._answered(shares[0].job, answers)
            return
        start = 0
        for share in shares:
            size = share.stop - share.start
            share.job.answers += answers[start : start + size]
            start += size
            if share.stop == share.job.columns.count:
                yield self._answered(share.job, share.job.answers)

    def _answered(self, job: Job, answers: list[Answer]) -> bytes:
        body = to_json(
            {"model": self.model.name, "answers": answers},
            inf_nan_mode="null",
            fallback=_python_value,
        )
        return pack({"say": "answer", "id": job.id, "status": 200, "rows": job.columns.count}, body)

    def _refusal(self, error: Exception, share: Share) -> Refusal:
        """Values in an unusual form that a library cannot read are the client's fault (400); any
        other failure is the server's (500)."""
        if isinstance(error, DanluError):
            refusal = Refusal.from_error(error)
            refusal.row = None if refusal.row is None else refusal.row + share.start
            return refusal
        if isinstance(error, MemoryError):
            return Refusal(
                "these rows do not fit into memory.",
                status=413,
                hint="send fewer rows in a request",
            )
        traceback.print_exception(error, file=sys.stderr)
        if share.job.columns.key is None:
            return Refusal(
                f"these rows cannot be answered ({type(error).__name__}).",
                hint="write values as the examples do",
            )
        return Refusal("the model failed on these rows; the server's log says why.", status=500)

    def _warm_up(self) -> list[tuple[int, float]]:
        """Answer the model's own example, alone and several times over; (rows, seconds) of the
        steps but the first. Raises what the model raises."""
        example = {field["name"]: field["example"] for field in self.model.fields}
        paces: list[tuple[int, float]] = []
        for count in (1, 1, _WARM_UP_ROWS):
            began = time.perf_counter()
            columns = decode_values.decode([example] * count, self.model.fields)
            try:
                answers = self.model.answer(columns.values)
            except DanluError:
                if self.model.independent:
                    raise
                break  # a forecast needs a longer past than one moment
            if self.model.independent and len(answers) != count:
                self.model.independent = False
            paces.append((count, time.perf_counter() - began))
            if paces[-1][1] > _SLOW:
                break
        return paces[1:] or paces


def _refused(id: int, refusal: Refusal) -> bytes:
    return pack({"say": "answer", "id": id, "status": refusal.status, "rows": 0}, refusal.body())


def _python_value(value: np.generic | np.ndarray) -> object:
    """A value of numpy as one of Python."""
    return value.tolist()
