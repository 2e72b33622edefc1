"""Run a program of danlu's in a process of its own, because what it reads may end it or fill the
memory.

The program limits itself (memory, processor seconds) before it reads anything. It gets no
environment but what it needs, and neither the user's site packages nor the current folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_KEPT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")
_TOLD = 4096  # characters of the last message


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, and the last line of what it wrote to standard error."""

    code: int
    message: str

    @property
    def cause(self) -> str:
        """Why it did not end with 0, as the rest of a sentence; "" where it did.

        >>> Ended(-6, "").cause
        'it ended the process that read it (SIGABRT)'
        """
        if self.code == 0:
            return ""
        if self.code < 0:
            number = -self.code
            if number == getattr(signal, "SIGXCPU", None) or number == signal.SIGTERM:
                return "reading it took too long"
            return f"it ended the process that read it ({signal.Signals(number).name})"
        return self.message or f"the process that read it ended with code {self.code}"


def run_limited(
    program: Path,
    arguments: Sequence[str] = (),
    data: bytes = b"",
    seconds: float = 120.0,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run a file of Python with `data` on its standard input, for at most `seconds`.

    The folders of sys.path are its first arguments, then "--", then `arguments`. Raises OSError
    where no process can be started."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(program), *filter(None, sys.path), "--", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**kept, **(environment or {})},
    )
    try:
        _, errors = process.communicate(data, timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.kill()
        process.communicate()
        return Ended(-signal.SIGTERM, "")
    except BaseException:
        process.kill()
        process.communicate()
        raise
    lines = errors[-_TOLD:].decode("utf-8", "replace").strip().splitlines()
    return Ended(process.returncode, lines[-1].strip() if lines else "")


__all__ = ["Ended", "run_limited"]
