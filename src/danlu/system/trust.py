"""What may be done besides reading the data: whether code of the user's own may run, and whether a name may be looked up.

Code of the user's own runs only where the caller says so.

A recipe or an artifact can name a Python object (models/python); importing it runs what stands in
its file. So danlu imports it only after `allow_code()`, which the command line calls for
--allow-code and Python callers call themselves. No recipe and no artifact can call it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType

_alone: ContextVar[bool] = ContextVar("on_its_own", default=False)
_allowed: ContextVar[bool] = ContextVar("code_is_allowed", default=False)


def code_is_allowed() -> bool:
    """Whether the caller permits to import and run code of the user's own."""
    return _allowed.get()


class allow_code:  # noqa: N801 - called like a function
    """Permits the user's own code from now on; used as `with allow_code():`, until the end of the
    block. This thread and its tasks only.

    allow_code(False) forbids it again.
    """

    def __init__(self, allowed: bool = True) -> None:
        self._before: Token[bool] = _allowed.set(allowed)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _allowed.reset(self._before)


@contextmanager
def without_lookups() -> Iterator[None]:
    """Until the end of the block nothing outside is looked at that a recipe names, no file and no
    address: what is built comes from an artifact, whose recipe anybody may have written."""
    before = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(before)


def lookups_are_allowed() -> bool:
    """Whether a part may read a file that its options name, or fetch it."""
    return not _alone.get()
