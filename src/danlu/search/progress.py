"""What a search shows while it runs: the best score so far, trials per minute, the time left."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from danlu.errors import escape_controls
from danlu.registry import take as _take
from danlu.system.standard_streams import print_line

if TYPE_CHECKING:
    from danlu.search.study import Study, TrialRecord

_EVERY = 5.0  # seconds between two lines where there is no screen


class Progress:
    """Writes to stderr: a live line on a terminal ("display"), a line now and then ("lines"), or
    nothing. A context manager."""

    def __init__(self, study: Study, executor: str, output: str) -> None:
        self.study = study
        self.executor = executor
        self.output = output
        self.console = _take("watchers", "console")
        self.started_at = time.monotonic()
        self.done_before = self._done()
        self.ended = self.done_before
        self.last_line_at = 0.0  # when the last line was written
        self.reported = 0  # of how many trials it spoke
        self.best: int | None = None
        self.live: Any = None
        self.task: Any = None

    def __enter__(self) -> Progress:
        names = ", ".join(
            f"{metric} ({direction} is better)" for metric, direction in self.study.objectives
        )
        budget = self.study.budget
        limits = [f"{budget:,} trials"] if budget is not None else []
        limits += (
            [f"{self.study.tune.minutes:g} minutes"] if self.study.tune.minutes is not None else []
        )
        sampler = self.study.tune.sampler
        self._print(
            f"search: {len(self.study.space)} options, by {sampler.name if sampler else ''}, "
            f"for {names}; {', '.join(limits)}"
        )
        self._print(f"trials run: {self.executor}")
        if self.done_before:
            self._print(f"going on after {self.done_before:,} trials")
        best = self.study.best()
        self.best = None if best is None else best.number
        if self.output == "display":
            self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live is not None:
            with contextlib.suppress(OSError):
                self.live.stop()
            self.live = None
        if self.ended > max(self.done_before, self.reported):
            self._print(self._status_line())

    def tell(self, record: TrialRecord | None = None, message: str = "") -> None:
        """Show a trial that ended, or a sentence."""
        if message:
            self._print(message)
        if record is None:
            return
        self.ended += 1
        if record.state == "failed":
            self._print(f"trial {record.number} failed: {record.cause}")
        best = self.study.best()
        if best is not None and best.number != self.best:
            self.best = best.number
            self.study.write_best()
            self._print(f"trial {best.number}: {self._scores(best)}  {_values(best)}")
        if self.live is not None:
            with contextlib.suppress(OSError):
                self.live.update(self.task, completed=self.ended, said=self._status_line())
        elif time.monotonic() - self.last_line_at > _EVERY:
            self.last_line_at, self.reported = time.monotonic(), self.ended
            self._print(self._status_line())

    def _done(self) -> int:
        return sum(record.state != "running" for record in self.study.trials())

    def _scores(self, record: TrialRecord) -> str:
        return ", ".join(
            f"{metric} {self.console.number(score)}"
            for (metric, _), score in zip(self.study.objectives, record.scores or ())
        )

    def _status_line(self) -> str:
        """How far the search has come."""
        budget, seconds = self.study.budget, time.monotonic() - self.started_at
        new = self.ended - self.done_before
        parts = [
            f"{self.ended:,}/{budget:,} trials" if budget is not None else f"{self.ended:,} trials"
        ]
        best = self.study.best()
        if best is not None:
            parts.append(f"best {self._scores(best)} (trial {best.number})")
        if new and seconds > 0:
            parts.append(f"{60 * new / seconds:.3g} trials/min")
            left = [(budget - self.ended) * seconds / new] if budget is not None else []
            left += (
                [60 * self.study.tune.minutes - self.study.seconds]
                if self.study.tune.minutes is not None
                else []
            )
            if min(left, default=0) > 0:
                parts.append(f"{self.console.duration(min(left))} left")
        return "  ".join(parts)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns = (BarColumn(), TextColumn("{task.fields[said]}", markup=False))
        self.live = Progress(
            *columns,
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.live.start()
        self.task = self.live.add_task(
            "trials", total=self.study.budget, completed=self.ended, said=self._status_line()
        )

    def _print(self, text: str) -> None:
        if self.output not in ("display", "lines"):
            return
        with contextlib.suppress(OSError):  # nobody reads it: no reason to stop
            if self.live is not None:
                self.live.console.print(escape_controls(text), markup=False, highlight=False)
            else:
                print_line(text)


def _values(record: TrialRecord) -> str:
    """The values of a trial, written as overrides."""
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in record.values.items()
    )
