"""Why a trial failed: the kind of an exception, and one sentence for the study."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Literal

from danlu.errors import DanluError, Interrupted, RunHeld

_MAX_CHARACTERS = 2000  # of a sentence that a study stores
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# What the RuntimeErrors of torch say, on a CPU and on other devices.
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
RETRYABLE = ("memory", "disk", "held")  # kinds of failures that may not come again


@dataclass(frozen=True)
class Failure:
    """`kind` is "error" (the same trial would fail again), one of RETRYABLE, or "interrupted" (by a
    signal)."""

    kind: Literal["error", "memory", "disk", "held", "interrupted"]
    message: str


def describe_failure(error: BaseException) -> Failure:
    """The Failure that an exception of a training means.

    >>> describe_failure(ValueError("no such column"))
    Failure(kind='error', message='ValueError: no such column')
    >>> describe_failure(MemoryError()).kind
    'memory'
    """
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return Failure("interrupted", "interrupted")
    chain = _chain(error)
    if any(isinstance(cause, OSError) and cause.errno in _DISK_FULL for cause in chain):
        return Failure("disk", _shortened(f"disk full: {_error_text(error)}"))
    if any(_is_out_of_memory(cause) for cause in chain):
        return Failure("memory", _shortened(f"out of memory: {_error_text(error)}"))
    if isinstance(error, RunHeld):
        return Failure("held", _error_text(error))
    return Failure("error", _shortened(_error_text(error)))


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and its causes, also those that it hides (`from None`)."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    ):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def _error_text(error: BaseException) -> str:
    if isinstance(error, DanluError):
        problem = error.problem
        return f"{problem.where}: {problem.message}" if problem.where else problem.message
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"
