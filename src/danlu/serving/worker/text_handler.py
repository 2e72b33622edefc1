"""The desk of a worker whose model writes text: requests in, events out (what writes them is danlu.serving.text.engine)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from danlu.errors import DanluError, ServerBusy
from danlu.serving.messages import pack

if TYPE_CHECKING:
    from danlu.serving.worker.main import Texts


class WritingDesk:
    """Texts that are being written."""

    def __init__(self, texts: Texts, about: dict[str, Any]) -> None:
        self.texts = texts
        self.about = {**about, **texts.about}
        self.rows = 0

    @property
    def most(self) -> int:
        """Texts of a step at most."""
        return int(self.about.get("slots", 1))

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return self.texts.busy

    def take(self, header: dict[str, Any], body: bytes) -> Iterable[bytes]:
        """Begin a text."""
        if header["before"] < time.monotonic():
            return
        if header["do"] != "write":
            yield _refused(
                header["id"],
                "this model writes text; it does not answer rows.",
                hint="POST /v1/completions",
            )
            return
        try:
            self.texts.submit(header["id"], header["request"])
        except DanluError as error:
            status = 503 if isinstance(error, ServerBusy) else 400
            yield _refused(
                header["id"], error.problem.message, error.problem.where, error.problem.hint, status
            )

    def cancel(self, id: int) -> None:
        """Stop writing a text."""
        self.texts.cancel(id)

    def step(self) -> Iterator[bytes]:
        """One token more of every text."""
        events = self.texts.step()
        self.rows = len(events)
        for event in events:
            yield pack({"say": "event", **event})


def _refused(id: int, message: str, field: str = "", hint: str = "", status: int = 400) -> bytes:
    told = {"message": message, "field": field or None, "row": None, "hint": hint}
    return pack(
        {
            "say": "event",
            "id": id,
            "piece": "",
            "ended": "refused",
            "tokens": 0,
            "status": status,
            "error": told,
        }
    )
