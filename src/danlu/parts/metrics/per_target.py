"""The metrics of each of several targets, as "target/metric".

Each target takes its task's own default metrics unless `metrics` names others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from danlu import registry
from danlu.errors import Problem, RecipeError, did_you_mean
from danlu.parts.metrics._base import Metric
from danlu.parts.tasks._base import CombinesTasks
from danlu.recipe import Options
from danlu.registry_options import MetricPart, part_of
from danlu.terms import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.recipe import Part

FITS = ("several",)
BETTER = "higher"  # never compared: each target's score has its own direction


class Config(Options):
    """Options of per_target."""

    metrics: dict[str, list[MetricPart]] = Field(
        {},
        description="The metrics of each target by name; targets not named take their task's own.",
    )


class PerTarget(Metric):
    """Counts each target's metrics over its own outputs."""

    # Some of its metrics need all rows; the sums of the others are kept as one entry per batch.
    joined = True

    def __init__(self, task: CombinesTasks, metrics: list[tuple[str, Part, Metric]]) -> None:
        self.task = task
        self.metrics = metrics  # (target, part, metric object)

    def count(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """ "number of the metric/count": per-row values, or the batch's sum with a leading 1."""
        counts = {}
        for number, (target, _, metric) in enumerate(self.metrics):
            own = Batch(batch.inputs, batch.target[target], batch.rows)
            for name, value in metric.count(self.task.outputs_of(target, outputs), own).items():
                counts[f"{number}/{name}"] = value if metric.joined else value[None]
        return counts

    def score(self, total: dict[str, Tensor]) -> dict[str, object]:
        """{"target/metric": score}."""
        scores: dict[str, object] = {}
        for number, (target, part, metric) in enumerate(self.metrics):
            prefix = f"{number}/"
            mine = {
                name.removeprefix(prefix): value
                for name, value in total.items()
                if name.startswith(prefix)
            }
            score = metric.score(
                mine if metric.joined else {name: value.sum(dim=0) for name, value in mine.items()}
            )
            named = score if isinstance(score, dict) else {metric.label or part.name: score}
            scores |= {f"{target}/{name}": value for name, value in named.items()}
        return scores


def build(config: Config, task: CombinesTasks) -> PerTarget:
    """The metrics in the order of the task's targets. RecipeError for a name that is no target and
    for a metric that does not fit."""
    for name in config.metrics:
        if name not in task.tasks:
            targets = list(task.tasks)
            message = (
                f"metrics: per_target names {name}, which is no target; the targets are "
                f"{', '.join(targets)}."
            )
            raise RecipeError([Problem("recipe", message, did_you_mean(name, targets))])
    metrics = []
    for target, inner in task.tasks.items():
        kind = task.parts[target].name
        chosen = config.metrics.get(target)
        if chosen is None:
            chosen = [
                part_of("metrics", choice) for choice in registry.defaults("tasks", kind)["metrics"]
            ]
        fitting = registry.task_facts(kind).metrics
        for part in chosen:
            if part.name not in fitting:
                message = (
                    f"metrics: {part.name} of the target {target} does not fit the task {kind}."
                )
                raise RecipeError([Problem("recipe", message, f"it takes {', '.join(fitting)}")])
            metrics.append((target, part, registry.build_metric(part, inner)))
    return PerTarget(task, metrics)
