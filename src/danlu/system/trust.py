"""What a recipe or an artifact may make danlu do: import the user's code, read or fetch files,
connect to other machines.

A recipe or an artifact can name a Python object (models/python), and importing it runs whatever
code its file holds. So danlu imports it only after `allow_code()`, which the command line calls for
--allow-code and Python callers call themselves. A recipe can also name what lies outside its own
run: a Ray cluster (whoever answers there can run code here), a database, a download. danlu uses it
only after `allow_remote()`, for --allow-remote. No recipe and no artifact can call either."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType

_no_lookups: ContextVar[bool] = ContextVar("without_lookups", default=False)
_code: ContextVar[bool] = ContextVar("code_is_allowed", default=False)
_remote: ContextVar[bool] = ContextVar("remote_is_allowed", default=False)


def code_is_allowed() -> bool:
    """Whether the caller permits to import and run the user's own code."""
    return _code.get()


def remote_is_allowed() -> bool:
    """Whether the caller permits what recipes name outside their own run: a Ray cluster, a
    database, a download."""
    return _remote.get()


class _Permission:
    """Sets a permission, and sets it back at the end of a `with` block."""

    _permission: ContextVar[bool]

    def __init__(self, allowed: bool = True) -> None:
        self._before: Token[bool] = self._permission.set(allowed)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._permission.reset(self._before)


class allow_code(_Permission):  # noqa: N801 - called like a function
    """Permit the user's own code from now on; as `with allow_code():`, until the end of the block.

    It holds for this thread and its tasks. `allow_code(False)` forbids it again.

    >>> with allow_code():
    ...     code_is_allowed()
    True
    >>> code_is_allowed()
    False
    """

    _permission = _code


class allow_remote(_Permission):  # noqa: N801 - called like a function
    """Permit what recipes name outside their own run (a Ray cluster, a database, a download) from
    now on; as `with allow_remote():`, until the end of the block.

    It holds for this thread and its tasks. `allow_remote(False)` forbids it again.

    >>> with allow_remote():
    ...     remote_is_allowed()
    True
    >>> remote_is_allowed()
    False
    """

    _permission = _remote


@contextmanager
def without_lookups() -> Iterator[None]:
    """Forbid parts to read a file or fetch an address that a recipe names, until the end of the
    block: the recipe comes from an artifact, and anybody may have written that."""
    before = _no_lookups.set(True)
    try:
        yield
    finally:
        _no_lookups.reset(before)


def lookups_are_allowed() -> bool:
    """Whether a part may read, or fetch, a file that its options name.

    >>> with without_lookups():
    ...     lookups_are_allowed()
    False
    """
    return not _no_lookups.get()
