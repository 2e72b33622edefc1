"""The contract of a watcher, the facts of a run that it gets, and the caller of all watchers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from danlu.recipe import Part, Recipe
from danlu.terms import TrainingEvent


@dataclass(frozen=True)
class RunInfo:
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


class Watcher(ABC):
    """Hears every event of a training; never touches weights.

    Only `hear` must be written; the other methods do nothing unless a watcher writes its own.
    """

    @abstractmethod
    def hear(self, report: TrainingEvent) -> str | None:
        """Take an event. A sentence asks training to stop and says why; None lets it go on."""

    def state(self) -> dict[str, object] | None:
        """JSON values that a checkpoint keeps; None: the watcher has no state."""
        return None

    def load(self, state: Mapping[str, object] | None) -> None:  # noqa: B027 - optional
        """Restore what `state` returned; None where the checkpoint has nothing of this watcher."""

    def sync(self) -> None:  # noqa: B027 - optional
        """Return once what the last `state` refers to is on the disk.

        Called in the thread that writes checkpoints, before the checkpoint, so that the training
        loop does not wait.
        """

    def close(self) -> None:  # noqa: B027 - optional
        """Close files and displays. Called once, after the last event."""


class SpeakingWatcher(Watcher):
    """A watcher that tells the user something: sentences that it appends to `notices`."""

    def __init__(self) -> None:
        self.notices: list[str] = []


class Watchers:
    """All watchers of a run.

    Two of a kind (early stopping with two patiences) keep one state each: the second is named
    `early_stopping_1`, by its position. `beside` is one more, which no recipe names (the reporter
    of a trial in a search).
    """

    def __init__(
        self, parts: Sequence[Part], watchers: Sequence[Watcher], beside: Watcher | None = None
    ) -> None:
        names = [part.name for part in parts]
        names = [
            name if name not in names[:at] else f"{name}_{at}" for at, name in enumerate(names)
        ]
        self.named = list(zip(names, watchers))
        if beside is not None:
            self.named.append(("beside", beside))
        # What a checkpoint holds of watchers that this start left out: they may come back.
        self.absent: dict[str, object] = {}

    def hear(self, report: TrainingEvent) -> str:
        """Give the event to every watcher; the first sentence that asks to stop, or "".

        A notice of one watcher is then given to all others.
        """
        stop = ""
        for _, watcher in self.named:
            sentence = watcher.hear(report)
            stop = stop or sentence or ""
        for name, watcher in self.named:
            if isinstance(watcher, SpeakingWatcher):
                self._spread_notices(name, watcher, report)
        return stop

    def _spread_notices(self, name: str, speaker: SpeakingWatcher, report: TrainingEvent) -> None:
        for message in speaker.notices:
            notice = TrainingEvent("notice", report.step, report.epoch, message=message)
            for other, watcher in self.named:
                if other != name:
                    watcher.hear(notice)
        speaker.notices.clear()

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps of them, by name."""
        states = {name: watcher.state() for name, watcher in self.named}
        return {
            **self.absent,
            **{name: state for name, state in states.items() if state is not None},
        }

    def sync(self) -> None:
        """Return once what the last `state` refers to is on the disk."""
        for _, watcher in self.named:
            watcher.sync()

    def load(self, state: Mapping[str, object]) -> None:
        """Restore what a checkpoint kept; a watcher that it does not name starts fresh."""
        for name, watcher in self.named:
            entry = state.get(name)
            stored = cast("Mapping[str, object]", entry) if isinstance(entry, Mapping) else None
            watcher.load(stored)
        self.absent = {name: entry for name, entry in state.items() if name not in dict(self.named)}

    def close(self) -> None:
        """Close files and displays."""
        for _, watcher in self.named:
            watcher.close()
