"""Signals that ask training to end: the first lets the running step end and saves, the second ends at once."""

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


class Interruption:
    """`asked` is the exit code of the first signal, 0 while there was none. A context manager; handlers are put back at its end."""

    def __init__(self) -> None:
        self.asked = 0
        self.name = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: object) -> None:
        if self.asked:
            os.write(sys.stderr.fileno(), b"\nstopped at once; the last checkpoint is whole\n")
            os._exit(EXIT_CODES[signal.Signals(number)])
        self.asked = EXIT_CODES[signal.Signals(number)]
        self.name = signal.Signals(number).name
