"""What a search hands to the executor that runs its trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from danlu.recipe import Tune
from danlu.system.signals import Interruption
from danlu.training.loop import Output

if TYPE_CHECKING:
    from danlu.search.study import Study, TrialRecord


class Notify(Protocol):
    """Shows progress: a trial that ended, or a sentence."""

    def __call__(self, record: TrialRecord | None = None, message: str = "") -> object: ...


def _ignore(record: TrialRecord | None = None, message: str = "") -> None:
    """Shows nothing."""


@dataclass(frozen=True)
class SearchContext:
    """The circumstances of a search, for its executor.

    `plan` holds what was decided when the study began (`Study.decide` adds to it). `notify` shows
    progress. Executors look at `interruption.exit_code` between trials and steps: where it is set,
    they save and raise Interrupted.
    """

    tune: Tune
    interruption: Interruption
    plan: Mapping[str, Any]
    output: Output = "quiet"
    notify: Notify = _ignore


class Executor(Protocol):
    """A module that runs the trials of a study (danlu.search.executors)."""

    def run(self, study: Study, context: SearchContext) -> None:
        """Run trials until `study.take` gives none. Raises Interrupted after a signal, with the
        running trials saved; DanluError for what is wrong with the study as a whole."""
        ...
