"""One JSON object a report in metrics.jsonl; a resumed run leaves the same bytes as an unbroken one.

Only what a same-seed run repeats goes in; timings stand in timings.jsonl beside it. The checkpoint remembers how long the file was, and a
resumed run cuts it back to there.
"""

from __future__ import annotations

import json
import os
from typing import Any

from danlu.errors import RunError
from danlu.recipe import Options
from danlu.terms import Report
from danlu.watching import Setting


class Config(Options):
    """No options."""


class Jsonl:
    """Writes metrics.jsonl and timings.jsonl in the run folder."""

    def __init__(self, setting: Setting) -> None:
        self.path = setting.folder / "metrics.jsonl"
        self.file = self.path.open("ab", buffering=0)
        self.timings = (setting.folder / "timings.jsonl").open("ab", buffering=0)

    def hear(self, report: Report) -> None:
        if report.kind not in ("train", "validation", "test"):
            return
        entry = {"step": report.step, "epoch": round(report.epoch, 6), "split": report.kind, **report.values}
        self.file.write((json.dumps(entry, ensure_ascii=False) + "\n").encode())
        if report.timing:
            self.timings.write((json.dumps({"step": report.step, "split": report.kind, **report.timing}) + "\n").encode())

    def state(self) -> dict[str, Any]:
        os.fsync(self.file.fileno())
        return {"bytes": self.file.seek(0, os.SEEK_END)}

    def load(self, state: dict[str, Any] | None) -> None:
        size = state["bytes"] if state else 0
        found = self.file.seek(0, os.SEEK_END)
        if found < size:
            raise RunError(
                f"metrics.jsonl has {found:,} bytes, and had {size:,} when the checkpoint was saved: it was cut or edited.",
                where=str(self.path),
                hint="restore the file, or start in another --run folder",
            )
        self.file.truncate(size)

    def close(self) -> None:
        self.file.close()
        self.timings.close()


def build(config: Config, setting: Setting) -> Jsonl:
    """A writer of metrics.jsonl."""
    return Jsonl(setting)
