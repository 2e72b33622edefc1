"""Stdin, stdout and stderr: closed ones, full ones, and texts that come from data.

Whatever danlu prints goes through `print_line` (stderr) or `print_result` (stdout): control
characters in it are escaped, because names, cells and answers come from data.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from danlu.errors import DanluError, DataError, escape_controls

_NAMES = ("stdin", "stdout", "stderr")
_closed: set[str] = set()


def open_closed_streams() -> None:
    """Open /dev/null in place of each standard stream that is closed (`<&-`, `>&-`, `2>&-`), and
    let the others print any text.

    Otherwise the next file that is opened, a log or a checkpoint, would take the stream's number,
    and what a library prints would be written into it."""
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            _closed.add(name)
            handle = os.open(os.devnull, os.O_RDWR)
            os.dup2(handle, number)  # inherited by child processes
            if handle != number:
                os.close(handle)
    if "stdout" in _closed or sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if "stderr" in _closed or sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def read_stdin() -> Iterator[str]:
    """The lines of stdin, each with its line feed. Raises DataError where stdin is closed, and for
    a line that is not UTF-8."""
    stream = sys.stdin
    if "stdin" in _closed or stream is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise DataError(
            "stdin is closed, so nothing can be read from it.",
            where="stdin",
            hint="name a file, or pipe something in: command < FILE",
        )
    if not isinstance(stream, io.TextIOWrapper):  # a stand-in for stdin, which holds text
        yield from stream
        return
    for number, line in enumerate(stream.buffer, 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"byte {error.start + 1:,} of this line is not UTF-8.",
                where=f"stdin line {number:,}",
                hint="save it as UTF-8",
            ) from None


def require_stdout(hint: str = "") -> None:
    """Raise DanluError where stdout is closed, for a verb whose only result is what it prints."""
    if "stdout" in _closed:
        raise DanluError("stdout is closed, so the result cannot be printed.", hint=hint)


def print_result(text: str | Path = "", end: str = "\n", flush: bool = False) -> None:
    """Print to stdout; a path on one line. Raises DanluError where stdout is full, BrokenPipeError
    where nobody reads."""
    with _refused_by_stdout():
        shown = escape_controls(str(text), one_line=isinstance(text, Path))
        print(shown, end=end, flush=flush)


def flush_stdout() -> None:
    """Hand over what was printed; raises as `print_result` does."""
    with _refused_by_stdout():
        sys.stdout.flush()


@contextlib.contextmanager
def _refused_by_stdout() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        discard_stdout()
        if isinstance(error, BrokenPipeError):
            raise
        raise DanluError(
            f"the result cannot be printed: {error.strerror or error}.", where="stdout"
        ) from None


def discard_stdout() -> None:
    """Print nothing more: what is still buffered would fail once more at the end of Python."""
    handle = os.open(os.devnull, os.O_WRONLY)
    os.dup2(handle, 1)
    os.close(handle)


def print_line(text: str = "") -> None:
    """Print to stderr. A stderr that is closed, full or gone is no reason to stop."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr is not None:  # pyright: ignore[reportUnnecessaryComparison]
            print(escape_controls(text), file=sys.stderr, flush=True)


def stderr_is_terminal() -> bool:
    """Whether somebody watches stderr."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()  # pyright: ignore[reportUnnecessaryComparison]
    except (OSError, ValueError):
        return False
