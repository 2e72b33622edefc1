"""How a request is refused: an HTTP status and a message that names field, row and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic_core import to_json

from danlu.errors import DanluError
from danlu.serving.protocol.messages import ErrorFields

_ROW = re.compile(r"\brow ([\d,]+)")
_COLUMN = re.compile(r"\bcolumn (.+)$")
_LONGEST = 1000  # characters of a message, name or hint: they quote what a client sent


class Refusal(Exception):
    """A request that the server does not answer.

    status   the HTTP status, 4xx or 5xx
    field    the field of a row, or the option, that is wrong
    row      the row of the request, counted from 1
    hint     what the client can do about it

    >>> Refusal("the number is too large.", field="age", row=3).as_dict()
    {'message': 'the number is too large.', 'field': 'age', 'row': 3, 'hint': ''}
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        field: str | None = None,
        row: int | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = _cut(message)
        self.field = None if field is None else _cut(field)
        self.row = row
        self.hint = _cut(hint)

    @classmethod
    def from_error(cls, error: DanluError) -> Refusal:
        """A refusal with the message of an error about rows that were read (status 400)."""
        problem = error.problem
        row, column = _ROW.search(problem.where), _COLUMN.search(problem.where)
        return cls(
            problem.message,
            field=column[1] if column else None,
            row=int(row[1].replace(",", "")) if row else None,
            hint=problem.hint,
        )

    def as_dict(self) -> ErrorFields:
        """The error as plain data."""
        return {"message": self.message, "field": self.field, "row": self.row, "hint": self.hint}

    def body(self) -> bytes:
        """The body of the HTTP answer: {"error": {"message", "field", "row", "hint"}}."""
        return to_json({"error": self.as_dict()})


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


@contextmanager
def errors_as_refusals() -> Iterator[None]:
    """Turn every error raised inside the `with` into a Refusal.

    It encloses the reading of what a client sent: libraries raise errors of every kind on hostile
    bytes, and all of them are the client's to mend."""
    try:
        yield
    except Refusal:
        raise
    except DanluError as error:
        raise Refusal.from_error(error) from None
    except Exception as error:
        raise Refusal(f"this cannot be read ({type(error).__name__}: {error}).") from error
