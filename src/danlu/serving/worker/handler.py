"""How a worker turns requests into answers: what every kind of model has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Protocol

from danlu.serving.protocol.messages import ModelDescription, Request


class Handler(ABC):
    """Takes requests, and answers them step by step.

    description   what the HTTP process must know of the model
    rows          how many rows (or tokens) the last step answered
    """

    description: ModelDescription
    rows: int = 0

    @property
    @abstractmethod
    def step_rows(self) -> int:
        """How many rows (or texts) a step answers at most, at present."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a step would do anything."""

    @abstractmethod
    def take(self, request: Request, body: bytes) -> Iterable[bytes]:
        """Begin a request; packed messages only where it is refused. A request whose deadline has
        passed is ignored."""

    @abstractmethod
    def cancel(self, id: int) -> None:
        """Forget the request of an id; an unknown id is ignored."""

    @abstractmethod
    def step(self) -> Iterable[bytes]:
        """Do a part of the work; the answers that it completes, as packed messages."""


class TextWriter(Protocol):
    """Writes the texts of danlu.serving.worker.text_handler: danlu.serving.text.engine.EngineTexts.

    description   the keys of a ModelDescription that only a model of texts has
    """

    description: ModelDescription

    @property
    def busy(self) -> bool:
        """Whether a text is being written or waits for a slot."""
        ...

    def submit(self, id: int, request: dict[str, object]) -> None:
        """Begin a text.

        `request` is {"prompt": text} or {"messages": [{"role", "content"}, ...]}, with the options
        of danlu.artifact.generation.GenerationOptions, and where they are wanted "number" and
        "written" of danlu.serving.text.engine.Engine.submit. The same request gives the same text,
        whatever is written beside it.

        Raises DataError (with the option in `where`) for a request that cannot be met, ServerBusy
        where too many texts wait."""
        ...

    def step(self) -> list[dict[str, object]]:
        """Write one token of every text; the events, with the keys of a TextEvent but "say"."""
        ...

    def cancel(self, id: int) -> None:
        """Stop a text; an unknown id is ignored."""
        ...
