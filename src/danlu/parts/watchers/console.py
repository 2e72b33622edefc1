"""Progress on stderr: a live progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from danlu.errors import escape_controls
from danlu.parts.watchers._base import RunInfo, Watcher
from danlu.recipe import Options
from danlu.system.standard_streams import print_line
from danlu.terms import TrainingEvent


class Config(Options):
    """No options."""


def duration(seconds: float) -> str:
    """Seconds as text.

    >>> duration(42), duration(185), duration(7800)
    ('42 s', '3 min 05 s', '2 h 10 min')
    """
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def number(value: Any) -> str:
    """A score with four significant digits; other values as str() gives them.

    >>> number(0.123456), number(12)
    ('0.1235', '12')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Console(Watcher):
    """Prints to stderr; nothing where the output is "quiet" or "json"."""

    def __init__(self, run: RunInfo) -> None:
        self.run = run
        self.live = run.output == "display"
        self.silent = run.output in ("quiet", "json")
        self.train: TrainingEvent | None = None
        self.last_line = 0.0
        self.progress: Any = None
        self.task: Any = None

    def hear(self, report: TrainingEvent) -> None:
        if self.silent:
            return
        if report.kind == "start":
            self._start(report)
        elif report.kind == "notice":
            self._print(f"note: {report.message}")
        elif report.kind == "train":
            self.train = report
            self._train(report)
        elif report.kind == "validation":
            scores = ", ".join(
                f"{name} {number(value)}"
                for name, value in report.values.items()
                if isinstance(value, int | float)
            )
            self._print(f"step {report.step:,} (epoch {report.epoch:.4g})  validation: {scores}")
        elif report.kind == "end":
            self._end(report)

    def _start(self, report: TrainingEvent) -> None:
        for name, value in self.run.facts:
            self._print(f"{name}: {value}")
        if report.message:
            self._print(report.message)
        if self.live:
            from rich.console import Console as Screen
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[said]}", markup=False),
            )
            self.progress = Progress(
                *columns,
                console=Screen(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self.progress.start()
            self.task = self.progress.add_task(
                "training", total=self.run.total_steps, completed=report.step, said=""
            )

    def _progress_text(self, report: TrainingEvent) -> str:
        timing = report.timing
        parts = [f"loss {number(report.values.get('loss'))}"]
        rates = [name for name in timing if name.endswith("_per_second")]
        if rates:  # the last is the finest: tokens per second, where the data has tokens
            parts.append(f"{timing[rates[-1]]:,.0f} {rates[-1].removesuffix('_per_second')}/s")
        if "flop_utilisation" in timing:
            parts.append(f"{100 * timing['flop_utilisation']:.0f} % of peak")
        if "memory_bytes" in timing:
            parts.append(f"{timing['memory_bytes'] / 1e6:,.0f} MB")
        return "  ".join(parts)

    def _train(self, report: TrainingEvent) -> None:
        if self.progress is not None:
            with contextlib.suppress(OSError):
                self.progress.update(
                    self.task, completed=report.step, said=self._progress_text(report)
                )
            return
        now = time.monotonic()
        if now - self.last_line < 5 and report.step < self.run.total_steps:
            return
        self.last_line = now
        eta = report.timing.get("eta_seconds")
        left = f"  {duration(eta)} left" if eta else ""
        self._print(
            f"step {report.step:,}/{self.run.total_steps:,} (epoch {report.epoch:.4g})  "
            f"{self._progress_text(report)}{left}"
        )

    def _end(self, report: TrainingEvent) -> None:
        self.close()
        if report.message:
            self._print(report.message)

    def _print(self, text: str) -> None:
        # a closed terminal, or a full disk behind 2> FILE, must not stop training
        with contextlib.suppress(OSError):
            if self.progress is not None:
                shown = escape_controls(text)
                self.progress.console.print(shown, markup=False, highlight=False)
            else:
                print_line(text)

    def close(self) -> None:
        if self.progress is not None:
            progress, self.progress = self.progress, None
            with contextlib.suppress(OSError):
                progress.stop()


def build(config: Config, run: RunInfo) -> Console:
    """A watcher that prints."""
    return Console(run)
