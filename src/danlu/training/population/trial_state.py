"""What each trial of a population keeps to itself: its module, rate, schedule, plan, scores, and
why it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from danlu import registry
from danlu.parts.schedules._base import Schedule, ScoreSchedule
from danlu.parts.watchers._base import RunInfo, Watchers
from danlu.recipe import Part, Recipe
from danlu.terms import Scores, TrainingEvent
from danlu.training.evaluation import as_plain_scores, deciding_score, without_nonfinite
from danlu.training.population.grouping import STOPPING_WATCHERS
from danlu.training.run_folder import RunFolder
from danlu.training.setup import Plan


@dataclass
class TrialState:
    """One trial.

    number       its index among the recipes
    keeps_best   whether its scores are those of its best step
    state        "" while it trains; then "complete", "pruned" or "failed", and `cause` says why
    curve        (step, deciding score) of each evaluation; `losses` (step, training loss)
    """

    number: int
    recipe: Recipe
    module: nn.Module
    plan: Plan
    schedule: Schedule | ScoreSchedule
    rate: float
    watchers: Watchers
    metric: str
    better: Literal["higher", "lower"]
    keeps_best: bool
    parameters: int
    loss_sum: float = 0.0
    loss_count: float = 0.0
    best_score: float | None = None
    best_step: int = -1
    scores: dict[str, object] = field(default_factory=dict[str, object])
    curve: list[tuple[int, float | None]] = field(default_factory=list[tuple[int, float | None]])
    losses: list[tuple[int, float | None]] = field(default_factory=list[tuple[int, float | None]])
    step: int = 0
    state: str = ""
    cause: str = ""
    seconds: float = 0.0

    def record_loss(self, n: int, epoch: float) -> None:
        """Report the training loss since the last report; the trial fails where a watcher sees it
        diverge."""
        count = float(self.loss_count)
        loss = without_nonfinite(float(self.loss_sum) / count) if count else None
        self.losses.append((n, loss))
        self.loss_sum, self.loss_count = 0.0, 0.0
        stop = self.watchers.hear(TrainingEvent("train", n, epoch, {"loss": loss}))
        if stop:
            self.end("failed" if stop.startswith("diverged") else "complete", stop)

    def record_scores(self, n: int, epoch: float, scores: Scores) -> float | None:
        """Take the scores of an evaluation; the deciding one, None where it has no meaning."""
        values = without_nonfinite(as_plain_scores(scores))
        score = deciding_score(values, self.metric)
        sign = 1.0 if self.better == "higher" else -1.0
        if score is not None and (self.best_score is None or sign * (score - self.best_score) > 0):
            self.best_score, self.best_step = score, n
            self.scores = dict(values)
        if not self.keeps_best:
            self.scores = dict(values)
        self.curve.append((n, score))
        if isinstance(self.schedule, ScoreSchedule):
            self.schedule.observe(score, self.better)
        stop = self.watchers.hear(TrainingEvent("validation", n, epoch, values))
        if stop:
            self.end("complete", stop)
        return score

    def end(self, state: str, cause: str = "") -> None:
        """Say how the trial ended; the first word stands."""
        if not self.state:
            self.state, self.cause = state, cause


def stopping_watchers(
    recipe: Recipe,
    folder: RunFolder | None,
    plan: Plan,
    metric: str,
    better: Literal["higher", "lower"],
) -> Watchers:
    """The watchers of a trial that may ask to stop."""
    stopping = recipe.regularization.early_stopping
    parts: list[Part] = [
        watcher for watcher in recipe.watchers if watcher.name in STOPPING_WATCHERS
    ]
    parts += [stopping] if stopping is not None else []
    run = RunInfo(
        folder.path if folder else None,  # type: ignore[arg-type]  # these watchers write no file
        recipe,
        plan.total_steps,
        plan.steps_per_epoch,
        metric,
        better,
        0,
        "quiet",
    )
    return Watchers(parts, [registry.build_watcher(part, run) for part in parts])
