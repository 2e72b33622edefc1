"""The desk of a worker whose model answers rows: bodies in, answers out."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from danlu.errors import DanluError
from danlu.serving.messages import pack
from danlu.serving.refusals import Refusal, clients_fault
from danlu.serving.worker import decode_values, parse_body
from danlu.serving.worker.batching import Batcher, Job, Share

if TYPE_CHECKING:
    from danlu.serving.worker.models import ServedModel

MOST_ROWS = 4096  # of a request
_WARM = 16  # rows that are answered together before the model is called ready


class AnsweringDesk:
    """Requests that are being answered."""

    def __init__(self, model: ServedModel, most_rows: int = MOST_ROWS, batch: int = 0) -> None:
        self.model = model
        self.most_rows = most_rows
        self.batcher = Batcher(batch) if batch else Batcher()
        self.rows = 0
        self._began = 0.0
        paces = self._warm_up()
        self.about: dict[str, Any] = {
            "name": model.name, "kind": model.kind, "fields": model.fields, "card": model.card,
            "paces": paces, "most_rows": most_rows,
        }  # fmt: skip

    @property
    def most(self) -> int:
        """Rows of a step at most, at present."""
        return self.batcher.most

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.batcher)

    def take(self, header: dict[str, Any], body: bytes) -> Iterable[bytes]:
        """Read a request; an answer only where it is refused."""
        if header["before"] < time.monotonic():
            return ()
        if header["do"] != "answer":
            refusal = Refusal(
                "this model answers rows; it writes no text.",
                hint=f"POST /v1/models/{self.model.name}/predict",
            )
            return (pack({"say": "event", "id": header["id"], "piece": "", "ended": "refused", "status": 400, "tokens": 0,
                          "error": refusal.as_dict()}),)  # fmt: skip
        try:
            with clients_fault():
                rows = parse_body.read(header["kind"], body, self.model.fields, self.most_rows)
                columns = decode_values.read(rows, self.model.fields)
        except Refusal as refusal:
            return (_refused(header["id"], refusal),)
        if not self.model.independent:
            columns.key = None
        self.batcher.add(Job(header["id"], columns, header["before"]))
        return ()

    def cancel(self, id: int) -> None:
        """Forget a request."""
        self.batcher.drop(id)

    def step(self) -> Iterator[bytes]:
        """Answer one batch of rows; the requests that are whole with it."""
        began = time.perf_counter()
        shares = self.batcher.next(time.monotonic())
        self.rows = sum(share.stop - share.start for share in shares)
        yield from self._answer(shares)
        self.batcher.measured(self.rows, time.perf_counter() - began)

    def _answer(self, shares: Sequence[Share]) -> Iterator[bytes]:
        if not shares:
            return
        try:
            asked = decode_values.together(
                [share.job.columns.cut(share.start, share.stop) for share in shares]
            )
            answers = self.model.answer(asked)
        except Exception as error:
            if len(shares) > 1:  # somebody's fault: each on its own
                for share in shares:
                    yield from self._answer([share])
                return
            self.batcher.drop(shares[0].job.id)
            yield _refused(shares[0].job.id, self._blame(error, shares[0]))
            return
        if len(shares) == 1 and not self.model.independent:
            yield self._answered(shares[0].job, answers)
            return
        place = 0
        for share in shares:
            size = share.stop - share.start
            share.job.answers += answers[place : place + size]
            place += size
            if share.stop == share.job.columns.count:
                yield self._answered(share.job, share.job.answers)

    def _answered(self, job: Job, answers: list[dict[str, Any]]) -> bytes:
        body = to_json(
            {"model": self.model.name, "answers": answers}, inf_nan_mode="null", fallback=_plain
        )
        return pack({"say": "answer", "id": job.id, "status": 200, "rows": job.columns.count}, body)

    def _blame(self, error: Exception, share: Share) -> Refusal:
        """Rows written in an odd way that a library cannot take are the client's; all else is
        ours."""
        if isinstance(error, DanluError):
            refusal = Refusal.of(error)
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
        return Refusal("the model failed at these rows; the server's log says why.", status=500)

    def _warm_up(self) -> list[tuple[int, float]]:
        """Answer the model's own example, alone and several times over; [(rows, seconds)]. Raises
        where it cannot."""
        example = {field["name"]: field["example"] for field in self.model.fields}
        found = []
        for count in (1, 1, _WARM):
            began = time.perf_counter()
            rows = decode_values.read([example] * count, self.model.fields)
            try:
                answers = self.model.answer(rows.values)
            except DanluError:
                if self.model.independent:
                    raise
                break  # a moment alone is not the past that a forecast looks at
            if self.model.independent and len(answers) != count:
                self.model.independent = False
            found.append((count, time.perf_counter() - began))
            if found[-1][1] > 0.25:
                break
        return found[1:] or found


def _refused(id: int, refusal: Refusal) -> bytes:
    return pack({"say": "answer", "id": id, "status": refusal.status, "rows": 0}, refusal.body())


def _plain(value: Any) -> Any:
    """A number of numpy's as one of Python's."""
    return value.tolist()
