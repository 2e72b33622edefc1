"""Timings, their spread, and the load of the machine by other programs."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Seconds of wall clock and of the processor that a contestant took from before its first
    update until after its last."""

    steps: int
    wall: float
    cpu: float


class Clock:
    """Measures what runs inside its `with`: `wall` seconds, and `cpu` seconds of all threads of
    this process."""

    wall = 0.0
    cpu = 0.0

    def __enter__(self) -> Clock:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu

    def timing(self, steps: int) -> Timing:
        return Timing(steps, self.wall, self.cpu)


class Neighbours:
    """How many cores other programs used between `start` and `told`, on average: 0.0 on a quiet
    machine; None where unknown."""

    def __init__(self) -> None:
        self._busy, self._own, self._time = _busy_seconds(), _own_seconds(), time.perf_counter()

    def cores(self) -> float | None:
        if self._busy is None:
            return None
        busy, own = (_busy_seconds() or 0.0) - self._busy, _own_seconds() - self._own
        return max(0.0, busy - own) / (time.perf_counter() - self._time)


def _busy_seconds() -> float | None:
    """Processor seconds spent on anything since the machine started."""
    try:
        user, nice, system, _, _, irq, soft, *_ = map(
            int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        )
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """Processor seconds of this process and of its children that have ended."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def spread(values: list[float]) -> tuple[float, float, float]:
    """(median, lowest, highest)."""
    return statistics.median(values), min(values), max(values)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    from danlu.system.machine import cores, instruction_sets, processor

    wide = (
        "AVX-512"
        if "avx512f" in instruction_sets()
        else "AVX2"
        if "avx2" in instruction_sets()
        else "no AVX2"
    )
    return {
        "cores": cores(),
        "architecture": platform.machine(),
        "vectors": wide,
        "processor": processor(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def machine_line(machine_facts: dict[str, Any], neighbours: float | None) -> str:
    """One line on the machine, and whether it was quiet."""
    busy = "unknown" if neighbours is None else f"{neighbours:.2f} cores"
    quiet = (
        " (NOT a quiet machine: trust ratios of pairs, not seconds)"
        if neighbours is not None and neighbours >= 0.5
        else ""
    )
    return (
        f"{machine_facts['cores']}-core {machine_facts['architecture']} CPU with {machine_facts['vectors']}, {machine_facts['system']}, Python {machine_facts['python']}, "
        f"torch {machine_facts['torch']}; used by other programs meanwhile: {busy}{quiet}"
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, columns padded so that it reads well as plain text too; all but the first
    column to the right."""
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths))
        ]
        return f"| {' | '.join(padded)} |"

    rule = (
        "|"
        + "|".join(("-" * (width + 1) + (":" if at else "-")) for at, width in enumerate(widths))
        + "|"
    )
    return "\n".join([line(head), rule, *map(line, rows)])
