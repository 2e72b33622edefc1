"""The statistics of a comparison: means with confidence intervals, and steps to a target."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from danlu.comparison.runs import ContestantFacts, TrainingResult


@dataclass(frozen=True)
class Standing:
    """The result of one contestant.

    `scores` has one value per seed (None where that training failed; `causes` says why), `mean` is
    their mean, and `margin` half the width of its confidence interval (None for fewer than two
    scores). `behind` is the mean difference to the best contestant over paired seeds,
    `behind_margin` half the width of its interval: a smaller difference may be chance. `tried` are
    the (learning rate, score) of the search; `at_edge` says that the best of them was the smallest
    or largest tried. `steps_to_target` and `seconds_to_target` are read from the mean curve.
    `curve` and `losses` have points (step, mean, lowest, highest over seeds).
    """

    name: str
    learning_rate: float
    at_edge: bool
    tried: list[tuple[float, float | None]]
    scores: list[float | None]
    causes: list[str]
    mean: float | None
    margin: float | None
    behind: float | None
    behind_margin: float | None
    total_steps: int
    parameters: int
    seconds_per_step: float
    steps_to_target: int | None
    seconds_to_target: float | None
    curve: list[tuple[int, float, float, float]] = field(
        default_factory=list
    )  # step, mean, least, greatest
    losses: list[tuple[int, float, float, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds of the updates of one separate training, without reading data and evaluations."""
        return self.seconds_per_step * self.total_steps


@dataclass(frozen=True)
class Comparison:
    """All standings, the best first. `folder` has the files."""

    metric: str
    better: str
    confidence: float
    seeds: list[int]
    target: float | None
    standings: list[Standing]
    folder: Path

    def as_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {**asdict(self), "folder": str(self.folder)}

    def sentence(self) -> str:
        """A summary of the table: the seeds, and which contestants are not distinguishable from the
        best."""
        scored = [standing for standing in self.standings if standing.mean is not None]
        if not scored:
            return "No training has a score; comparison.json says why."
        close = [
            standing.name
            for standing in scored[1:]
            if standing.behind_margin is not None
            and (standing.behind or 0.0) <= standing.behind_margin
        ]
        plural = "s" * (len(self.seeds) > 1)
        text = f"Scores are of the validation split, over {len(self.seeds)} seed{plural}."
        if close:
            text += (
                f" With these seeds {scored[0].name} is not distinguishable from "
                f"{', '.join(close)}."
            )
        edges = [standing.name for standing in scored if standing.at_edge]
        return text + (
            f" The best learning rate is the smallest or largest one tried: {', '.join(edges)}; "
            "more --rates may improve it."
            if edges
            else ""
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """(heads, rows) of the printed table."""
        share = f"{100 * self.confidence:g} %"
        target = f"to {self.target:.4g}" if self.target is not None else "to target"
        heads = [
            "",
            "learning rate",
            f"{self.metric} ({share})",
            "behind the best",
            f"steps {target}",
            f"seconds {target}",
            "ms a step",
        ]
        return heads, [self._table_row(standing) for standing in self.standings]

    def _table_row(self, standing: Standing) -> list[str]:
        if standing.mean is None:
            score = "failed"
        else:
            score = f"{standing.mean:.4f}" if abs(standing.mean) < 100 else f"{standing.mean:.6g}"
            score += f" ± {_two_digits(standing.margin)}" if standing.margin is not None else ""
        failed = sum(score is None for score in standing.scores)
        score += (
            f"  ({failed} of {len(standing.scores)} failed)"
            if failed and standing.mean is not None
            else ""
        )
        behind = (
            ""
            if standing.behind is None or standing is self.standings[0]
            else _two_digits(standing.behind)
        )
        behind += (
            f" ± {_two_digits(standing.behind_margin)}"
            if behind and standing.behind_margin is not None
            else ""
        )
        reached = [
            "–" if standing.steps_to_target is None else f"{standing.steps_to_target:,}",
            "–" if standing.seconds_to_target is None else f"{standing.seconds_to_target:.2g}",
        ]
        rate = f"{standing.learning_rate:g}" + (" (edge)" if standing.at_edge else "")
        return [
            standing.name,
            rate,
            score,
            behind,
            *reached,
            f"{1000 * standing.seconds_per_step:.3g}",
        ]


def summarize(
    names: Sequence[str],
    facts: Sequence[ContestantFacts],
    tried: Sequence[Sequence[tuple[float, float | None]]],
    rates: Sequence[float],
    finals: Sequence[Sequence[TrainingResult]],
    confidence: float,
    target: float | None,
    folder: Path,
) -> Comparison:
    """The Comparison of contestants: one value per contestant in each argument; `finals` has the
    results of its seeds, the same seeds for all in one order."""
    better = facts[0].better
    sign = 1.0 if better == "higher" else -1.0
    curves = [
        mean_curve([result.curve for result in results if result.score is not None])
        for results in finals
    ]
    losses = [
        mean_curve([result.losses for result in results if result.score is not None])
        for results in finals
    ]
    tops = [sign * max(sign * value for _, value, _, _ in curve) for curve in curves if curve]
    if target is None and tops:
        # The best score of the weakest contestant: the others reach it earlier.
        target = sign * min(sign * top for top in tops)
    means = [
        statistics.fmean(scores) if (scores := _scores(results)) else None for results in finals
    ]
    placed = [(sign * mean, -index) for index, mean in enumerate(means) if mean is not None]
    best = finals[-max(placed)[1]] if placed else []
    standings = []
    for index, results in enumerate(finals):
        scores = _scores(results)
        differences = [
            sign * (one.score - other.score)
            for one, other in zip(best, results)
            if one.score is not None and other.score is not None
        ]
        reached = steps_to_reach(curves[index], target, sign)
        rates_tried = [rate for rate, _ in tried[index]]
        standings.append(
            Standing(
                name=names[index],
                learning_rate=rates[index],
                at_edge=len(rates_tried) > 1
                and rates[index] in (min(rates_tried), max(rates_tried)),
                tried=list(tried[index]),
                scores=[result.score for result in results],
                causes=[result.cause for result in results],
                mean=means[index],
                margin=margin(scores, confidence),
                behind=statistics.fmean(differences) if differences else None,
                behind_margin=margin(differences, confidence),
                total_steps=facts[index].total_steps,
                parameters=facts[index].parameters,
                seconds_per_step=facts[index].seconds,
                steps_to_target=reached,
                seconds_to_target=None if reached is None else reached * facts[index].seconds,
                curve=curves[index],
                losses=losses[index],
            )
        )
    standings.sort(key=lambda standing: (standing.mean is None, -sign * (standing.mean or 0.0)))
    seeds = [result.training.seed for result in finals[0]]
    return Comparison(facts[0].metric, better, confidence, seeds, target, standings, folder)


def _scores(results: Sequence[TrainingResult]) -> list[float]:
    return [result.score for result in results if result.score is not None]


def margin(values: Sequence[float], confidence: float) -> float | None:
    """Half the width of the confidence interval of the mean, by Student's t-distribution; None for
    fewer than two values.

    >>> round(margin([1.0, 2.0, 3.0], 0.95), 3)
    2.484

    Source: Student, 1908, Biometrika 6(1), 1-25.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    return (
        float(stdtrit(len(values) - 1, (1 + confidence) / 2))
        * statistics.stdev(values)
        / math.sqrt(len(values))
    )


def mean_curve(
    curves: Sequence[Sequence[tuple[int, float]]],
) -> list[tuple[int, float, float, float]]:
    """(step, mean, lowest, highest) at each step that all curves have.

    >>> mean_curve([[(1, 0.5), (2, 1.0)], [(1, 1.5)]])
    [(1, 1.0, 0.5, 1.5)]
    """
    if not curves:
        return []
    by_step = [dict(curve) for curve in curves]
    common = sorted(set.intersection(*(set(curve_by_step) for curve_by_step in by_step)))
    points = []
    for step in common:
        values = [curve_by_step[step] for curve_by_step in by_step]
        points.append((step, statistics.fmean(values), min(values), max(values)))
    return points


def steps_to_reach(
    curve: Sequence[tuple[int, float, float, float]], target: float | None, sign: float
) -> int | None:
    """The first step at which the mean curve reaches the target; None where it does not.

    >>> steps_to_reach([(1, 0.5, 0.5, 0.5), (2, 0.9, 0.9, 0.9)], 0.8, sign=1.0)
    2
    """
    if target is None:
        return None
    return next((step for step, value, _, _ in curve if sign * value >= sign * target), None)


def _two_digits(value: float | None) -> str:
    return "" if value is None else f"{round(value, 10) + 0.0:.2g}"
