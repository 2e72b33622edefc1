"""What watchers are told when they are built, and the one place that speaks to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from danlu.recipe import Part, Recipe
from danlu.terms import TrainingEvent


@dataclass(frozen=True)
class Setting:
    """The circumstances of a run, for watchers.

    `metric` and `better` name the validation score that decides what is best. `resumed_step` is 0
    for a fresh run. `facts` holds what is known of the run in plain words: rows of each split,
    parameters, steps, device."""

    folder: Path
    recipe: Recipe
    total_steps: int
    steps_per_epoch: int
    metric: str
    better: Literal["higher", "lower"]
    resumed_step: int = 0
    output: Literal["display", "lines", "quiet", "json"] = "lines"
    trainable: int = 0
    facts: tuple[tuple[str, str], ...] = ()


class Watchers:
    """All watchers of a run. `hear` returns the first sentence that asks to stop, or ''."""

    def __init__(self, parts: Sequence[Part], built: Sequence[Any]) -> None:
        names = [part.name for part in parts]
        # two of a kind (early stopping on two patiences) keep a state each
        names = [
            name if name not in names[:at] else f"{name}_{at}" for at, name in enumerate(names)
        ]
        self.named = list(zip(names, built))
        self.absent: dict[
            str, Any
        ] = {}  # what a checkpoint holds of watchers that this start left out: they may come back

    def hear(self, report: TrainingEvent) -> str:
        """Tell everyone; a notice spoken by one watcher is heard by the others."""
        stop = ""
        for _, watcher in self.named:
            said = watcher.hear(report)
            stop = stop or said or ""
        for name, watcher in self.named:
            for message in getattr(watcher, "notices", ()):
                notice = TrainingEvent("notice", report.step, report.epoch, message=message)
                for other, each in self.named:
                    if other != name:
                        each.hear(notice)
            if getattr(watcher, "notices", None):
                watcher.notices.clear()
        return stop

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of them, by name."""
        return {
            **self.absent,
            **{name: watcher.state() for name, watcher in self.named if hasattr(watcher, "state")},
        }

    def sync(self) -> None:
        """Have what the last `state` speaks of on the disk."""
        for _, watcher in self.named:
            if hasattr(watcher, "sync"):
                watcher.sync()

    def load(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint kept; a watcher without an entry starts fresh."""
        for name, watcher in self.named:
            if hasattr(watcher, "load"):
                watcher.load(state.get(name))
        self.absent = {name: each for name, each in state.items() if name not in dict(self.named)}

    def close(self) -> None:
        """Let go of files and screens."""
        for _, watcher in self.named:
            if hasattr(watcher, "close"):
                watcher.close()
