"""What whoever runs trials is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from danlu.recipe import Tune
from danlu.system.signals import Interruption

if TYPE_CHECKING:
    from danlu.search.study import Record


def _nothing(record: Record | None = None, message: str = "") -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Setting:
    """The circumstances of a tuning.

    `plan` holds what was decided when the study began (`study.decide` adds to it). `tell` shows
    progress: a trial that ended, or a sentence. `interruption.exit_code` is looked at between trials
    and steps; who sees it saves and raises Interrupted."""

    tune: Tune
    interruption: Interruption
    plan: dict[str, Any]
    output: str = "quiet"  # "display" | "lines" | "quiet" | "json"
    tell: Callable[..., None] = _nothing  # tell(record) or tell(message=...)
