"""Signals that end a training: the first saves and ends, the second ends at once.

After the first signal the current step ends and the state is saved. Before the first step and after
the last one there is nothing to save: there the first signal raises KeyboardInterrupt."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from types import FrameType, MethodType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[int, FrameType | None], object] | int | None

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
if hasattr(signal, "SIGUSR1"):  # Windows has none
    EXIT_CODES[signal.SIGUSR1] = 143  # batch systems send it some time before they kill
_SHOW_CURSOR = b"\x1b[?25h"  # a progress display hides it


class Interruption:
    """Whether a signal has asked this process to end. A context manager.

    exit_code  the exit code of the first signal; 0 while there was none
    name       the name of that signal ("SIGINT"), "" while there was none
    deferred   True: whoever runs watches `exit_code`, saves and ends. False: a signal raises
               KeyboardInterrupt at once

    Only the main thread receives signals; elsewhere this does nothing. The previous handlers are
    restored at the end."""

    def __init__(self) -> None:
        self.exit_code = 0
        self.name = ""
        self.deferred = False
        self._before: dict[int, Handler] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in EXIT_CODES:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        code = EXIT_CODES[signal.Signals(number)]
        if self.exit_code:
            _exit_at_once(code)
        self.exit_code, self.name = code, signal.Signals(number).name
        outer = self._before.get(number)
        # an Interruption around this one learns of the signal too: this one may be about to end
        if isinstance(outer, MethodType) and isinstance(outer.__self__, Interruption):
            outer.__self__.exit_code, outer.__self__.name = self.exit_code, self.name
        if not self.deferred:
            raise KeyboardInterrupt


def _exit_at_once(code: int) -> None:
    message = b"\nstopped at once; the last checkpoint is complete\n"
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr may be closed
        os.write(2, _SHOW_CURSOR + message if sys.stderr.isatty() else message)
    os._exit(code)
