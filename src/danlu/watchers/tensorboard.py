"""TensorBoard event files in the run folder: tensorboard --logdir RUN."""

from __future__ import annotations

from typing import Any

from danlu.recipe import Options
from danlu.terms import Report
from danlu.watching import Setting


class Config(Options):
    """No options."""


class TensorBoard:
    """Scalars by split: train/loss, validation/accuracy, ..."""

    def __init__(self, setting: Setting) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        # what a killed run wrote beyond its last checkpoint is hidden by the viewer
        purge = setting.resumed_step + 1 if setting.resumed_step else None
        self.writer: Any = SummaryWriter(str(setting.folder), purge_step=purge)

    def hear(self, report: Report) -> None:
        if report.kind in ("train", "validation", "test"):
            for name, value in (*report.values.items(), *report.timing.items()):
                if isinstance(value, int | float):
                    self.writer.add_scalar(f"{report.kind}/{name}", value, report.step)
        elif report.kind == "notice":
            self.writer.add_text("notices", report.message, report.step)

    def close(self) -> None:
        self.writer.close()


def build(config: Config, setting: Setting) -> TensorBoard:
    """A writer of event files."""
    return TensorBoard(setting)
