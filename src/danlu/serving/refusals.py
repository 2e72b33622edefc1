"""What a request is refused with: an HTTP status and words that name the field, the row and the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic_core import to_json

from danlu.errors import DanluError

_ROW = re.compile(r"\brow ([\d,]+)")
_COLUMN = re.compile(r"\bcolumn (.+)$")


class Refusal(Exception):
    """A request that cannot be met. `row` counts from 1."""

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
        self.message = message
        self.field = field
        self.row = row
        self.hint = hint

    @classmethod
    def of(cls, error: DanluError) -> Refusal:
        """What an error says of rows that were read, as a refusal."""
        problem = error.problem
        row, column = _ROW.search(problem.where), _COLUMN.search(problem.where)
        return cls(
            problem.message,
            field=column[1] if column else None,
            row=int(row[1].replace(",", "")) if row else None,
            hint=problem.hint,
        )

    def body(self) -> bytes:
        """The body of the answer."""
        return to_json(
            {
                "error": {
                    "message": self.message,
                    "field": self.field,
                    "row": self.row,
                    "hint": self.hint,
                }
            }
        )

    def as_dict(self) -> dict[str, Any]:
        """The error as plain data."""
        return {"message": self.message, "field": self.field, "row": self.row, "hint": self.hint}


@contextmanager
def clients_fault() -> Iterator[None]:
    """Whatever goes wrong while what a client sent is read is a refusal: what hostile bytes raise
    in a library has no end."""
    try:
        yield
    except Refusal:
        raise
    except DanluError as error:
        raise Refusal.of(error) from None
    except Exception as error:
        raise Refusal(f"this cannot be read ({type(error).__name__}: {error}).") from error
