"""One JSON object per report in metrics.jsonl; a resumed run writes the same bytes.

metrics.jsonl holds only values that a run with the same seed repeats; timings go to timings.jsonl.
A checkpoint stores the length of metrics.jsonl and its SHA-256. A resumed run checks that the file
still begins with these bytes, and cuts it off behind them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from danlu.errors import RunError
from danlu.parts.watchers._base import RunInfo, Watcher
from danlu.recipe import Options
from danlu.system.atomic_files import append, open_log
from danlu.terms import TrainingEvent


class Config(Options):
    """No options."""


class Jsonl(Watcher):
    """Writes metrics.jsonl and timings.jsonl in the run folder."""

    def __init__(self, run: RunInfo) -> None:
        self.path = run.folder / "metrics.jsonl"
        self.file = open_log(self.path)
        self.digest = hashlib.sha256()
        self.timings = open_log(run.folder / "timings.jsonl")

    def hear(self, report: TrainingEvent) -> None:
        if report.kind not in ("train", "validation", "test"):
            return
        entry = {
            "step": report.step,
            "epoch": round(report.epoch, 6),
            "split": report.kind,
            **report.values,
        }
        line = (json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n").encode(
            "utf-8", "backslashreplace"
        )
        append(self.file, line)
        self.digest.update(line)
        if report.timing:
            append(
                self.timings,
                (
                    json.dumps({"step": report.step, "split": report.kind, **report.timing}) + "\n"
                ).encode(),
            )
        # The artifact is written next, without a checkpoint in between: after a power failure it
        # must not exist without this line.
        if report.kind == "test":
            self.sync()

    def state(self) -> dict[str, object]:
        return {"bytes": self.file.seek(0, os.SEEK_END), "sha256": self.digest.hexdigest()}

    def sync(self) -> None:
        os.fsync(self.file.fileno())

    def load(self, state: Mapping[str, Any] | None) -> None:
        size = state["bytes"] if state else 0
        self.file.seek(0)
        self.digest = hashlib.sha256(self.file.read(size) or b"")
        if state and self.digest.hexdigest() != state["sha256"]:
            size_now = self.file.seek(0, os.SEEK_END)
            how = (
                f"it has {size_now:,} bytes and had {size:,}"
                if size_now < size
                else f"its first {size:,} bytes are others"
            )
            raise RunError(
                f"metrics.jsonl was cut or edited since the checkpoint was saved: {how}.",
                where=str(self.path),
                hint="restore the file, or start in another --run folder",
            )
        self.file.truncate(size)

    def close(self) -> None:
        self.file.close()
        self.timings.close()


def build(config: Config, run: RunInfo) -> Jsonl:
    """A writer of metrics.jsonl."""
    return Jsonl(run)
