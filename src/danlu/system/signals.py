"""Signals that ask training to end: the first lets the running step end and saves, the second ends at once.

Before the first step and after the last one there is nothing to save, so there the first signal
ends what runs, by KeyboardInterrupt."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import TracebackType
from typing import Any

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
if hasattr(signal, "SIGUSR1"):
    EXIT_CODES[signal.SIGUSR1] = 143  # what batch systems send some time before they kill
_SHOW_CURSOR = b"\x1b[?25h"  # a progress display hides it


class Interruption:
    """`asked` is the exit code of the first signal, 0 while there was none; `name` is what the
    signal is called.

    `patient` says whether somebody looks at `asked` and saves; else a signal raises
    KeyboardInterrupt. A context manager (only the main thread hears signals); handlers are put back
    at its end."""

    def __init__(self) -> None:
        self.exit_code = 0
        self.name = ""
        self.deferred = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: object) -> None:
        code = EXIT_CODES[signal.Signals(number)]
        if self.exit_code:
            _stop_at_once(code)
        self.exit_code, self.name = code, signal.Signals(number).name
        outer = getattr(self._before.get(number), "__self__", None)
        if isinstance(
            outer, Interruption
        ):  # a signal on the threshold is caught one `with` further out
            outer.exit_code, outer.name = self.exit_code, self.name
        if not self.deferred:
            raise KeyboardInterrupt


def _stop_at_once(code: int) -> None:
    try:
        told = b"\nstopped at once; the last checkpoint is whole\n"
        os.write(2, _SHOW_CURSOR + told if sys.stderr.isatty() else told)
    except (OSError, ValueError):  # nobody reads it any more
        pass
    os._exit(code)
