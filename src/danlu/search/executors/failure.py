"""Why a trial ended: what an exception means for its study, in one sentence."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Literal

from danlu.errors import DanluError, Interrupted, RunHeld

_LONGEST = 2000  # characters of a sentence that a study keeps
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
)  # RuntimeErrors of torch on a CPU, and on others
AGAIN = ("memory", "disk", "held")  # kinds of causes that another time may not be


@dataclass(frozen=True)
class Cause:
    """`kind`: error (the same trial would end so again), one of AGAIN, or interrupted (somebody
    asked)."""

    kind: Literal["error", "memory", "disk", "held", "interrupted"]
    sentence: str


def cause_of(error: BaseException) -> Cause:
    """What an exception that ended a trial's training says."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return Cause("interrupted", "interrupted")
    chain = _chain(error)
    if any(isinstance(each, OSError) and each.errno in _NO_ROOM for each in chain):
        return Cause("disk", _short(f"disk full: {_said(error)}"))
    if any(_is_memory(each) for each in chain):
        return Cause("memory", _short(f"out of memory: {_said(error)}"))
    if isinstance(error, RunHeld):
        return Cause("held", _said(error))
    return Cause("error", _short(_said(error)))


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and those it was made of, also where it hides them (`from None`)."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in found:
        found.append(each)
        each = each.__cause__ or each.__context__
    return found


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    ):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _said(error: BaseException) -> str:
    if isinstance(error, DanluError):
        problem = error.problem
        return f"{problem.where}: {problem.message}" if problem.where else problem.message
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _short(sentence: str) -> str:
    return sentence if len(sentence) <= _LONGEST else sentence[: _LONGEST - 1] + "…"
