"""The Handler of a worker whose model writes text; danlu.serving.text.engine writes the texts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from danlu.errors import DanluError, ServerBusy
from danlu.serving.protocol.messages import ModelDescription, Request, pack
from danlu.serving.worker.handler import Handler, TextWriter


class TextHandler(Handler):
    """The texts that are being written."""

    def __init__(self, texts: TextWriter, description: ModelDescription) -> None:
        self.texts = texts
        self.description = {**description, **texts.description}

    @property
    def step_rows(self) -> int:
        """Texts of a step at most."""
        return self.description.get("slots", 1)

    @property
    def busy(self) -> bool:
        """Whether a text is being written or waits for a slot."""
        return self.texts.busy

    def take(self, request: Request, body: bytes) -> Iterable[bytes]:
        """Begin a text."""
        if request["before"] < time.monotonic():
            return
        if request["do"] != "write":
            message = "this model writes text; it does not answer rows."
            yield _refused(request["id"], message, hint="POST /v1/completions")
            return
        try:
            self.texts.submit(request["id"], request["request"])
        except DanluError as error:
            problem = error.problem
            status = 503 if isinstance(error, ServerBusy) else 400
            yield _refused(request["id"], problem.message, problem.where, problem.hint, status)

    def cancel(self, id: int) -> None:
        """Stop writing a text."""
        self.texts.cancel(id)

    def step(self) -> Iterator[bytes]:
        """Write one token of every text."""
        events = self.texts.step()
        self.rows = len(events)
        for event in events:
            yield pack({"say": "event", **event})


def _refused(id: int, message: str, field: str = "", hint: str = "", status: int = 400) -> bytes:
    error = {"message": message, "field": field or None, "row": None, "hint": hint}
    event = {"say": "event", "id": id, "piece": "", "ended": "refused", "tokens": 0}
    return pack({**event, "status": status, "error": error})
