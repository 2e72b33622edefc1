"""The files of a comparison: table and curves as CSV and JSON, and the convergence curves drawn."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from danlu.comparison.trainings import Result
from danlu.comparison.verdict import Comparison
from danlu.reporting import png, svg
from danlu.reporting.drawing import SERIES, Axis, Band, Figure, Line, Mark, Panel, Points, axis
from danlu.reporting.scores import score_axis
from danlu.reporting.tables import inert
from danlu.reporting.told import Objective, Words, short
from danlu.system.atomic_files import replace_file

_MOST_BANDS = 4  # more of them cover one another
_FALLS = 3.0  # times


def write_files(found: Comparison, results: Sequence[Result], names: Sequence[str]) -> list[Path]:
    """comparison.json, comparison.csv, curves.csv (every training), and each figure as SVG, as PNG
    too where matplotlib is installed."""
    folder = found.folder
    replace_file(
        folder / "comparison.json",
        json.dumps(found.as_dict(), ensure_ascii=False, indent=1, allow_nan=False).encode(),
    )
    replace_file(folder / "comparison.csv", _csv(*_table(found)))
    replace_file(
        folder / "curves.csv",
        _csv(
            ["contestant", "learning_rate", "seed", "what", "step", "value"],
            _points(results, names, found.metric),
        ),
    )
    written = [folder / name for name in ("comparison.json", "comparison.csv", "curves.csv")]
    for figure in figures(found):
        path = folder / f"{figure.name}.svg"
        replace_file(path, svg.draw(figure, "en", alone=True).encode("utf-8"))
        written.append(path)
        if png.able():
            replace_file(path.with_suffix(".png"), png.draw(figure))
            written.append(path.with_suffix(".png"))
    return written


def figures(found: Comparison) -> list[Figure]:
    """curves (validation score by step), losses (of training, by step), rates (score by the
    learning rate tried)."""
    made = [_curves(found), _losses(found), _rates(found)]
    return [figure for figure in made if figure is not None]


def _table(found: Comparison) -> tuple[list[str], list[list[Any]]]:
    names = (
        "name", "learning_rate", "at_edge", "mean", "margin", "behind", "behind_margin", "steps_to_target", "seconds_to_target",
        "seconds_per_step", "total_steps", "parameters",
    )  # fmt: skip
    heads = [*names, *(f"seed_{seed}" for seed in found.seeds)]
    return heads, [
        [*(getattr(each, name) for name in names), *each.scores] for each in found.standings
    ]


def _points(results: Sequence[Result], names: Sequence[str], metric: str) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for each in results:
        head = [names[each.training.contestant], each.training.rate, each.training.seed]
        rows += [[*head, f"validation {metric}", step, value] for step, value in each.curve]
        rows += [[*head, "training loss", step, value] for step, value in each.losses]
    return rows


def _csv(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([inert(value) for value in row] for row in rows)
    return text.getvalue().encode("utf-8")


def _curves(found: Comparison) -> Figure | None:
    objective = Objective(found.metric, "higher" if found.better == "higher" else "lower")
    figure = _by_step(
        found, "curve", objective, "curves",
        Words(f"Validation {found.metric} by step", f"验证集 {found.metric} 随步数的变化"),
    )  # fmt: skip
    if figure is None or found.target is None:
        return figure
    panel = figure.panels[0]
    marks = [
        Line([panel.x.low, panel.x.high], [found.target, found.target], "target"),
        *panel.marks,
    ]
    return _with(
        figure,
        Panel(panel.x, panel.y, marks),
        [
            *figure.legend,
            ("line target", Words(f"target {found.target:.4g}", f"目标 {found.target:.4g}")),
        ],
    )


def _losses(found: Comparison) -> Figure | None:
    words = Words("Training loss by step", "训练损失随步数的变化")
    return _by_step(found, "losses", Objective("loss", "lower"), "losses", words)


def _by_step(
    found: Comparison, what: str, objective: Objective, name: str, title: Words
) -> Figure | None:
    shown = [
        (place, each, getattr(each, what))
        for place, each in enumerate(found.standings)
        if getattr(each, what)
    ]
    if not shown:
        return None
    banded = len(found.seeds) > 1 and len(shown) <= _MOST_BANDS
    scores = _axis([curve for _, _, curve in shown], objective, banded)
    steps = axis(
        [0, *(step for _, _, curve in shown for step, _, _, _ in curve)],
        Words("step", "步"),
        whole=True,
        room=0.02,
    )
    bands: list[Mark] = []
    lines: list[Mark] = []
    for place, _, curve in shown:
        role = f"s{place % SERIES}"
        x = [step for step, _, _, _ in curve]
        if banded:
            bands.append(
                Band(
                    x,
                    [least for _, _, least, _ in curve],
                    [greatest for _, _, _, greatest in curve],
                    role,
                )
            )
        lines.append(Line(x, [value for _, value, _, _ in curve], role))
    count = len(found.seeds)
    says = Words(f"Mean over {count} seeds.", f"{count} 个种子的平均。")
    if banded:
        says = Words(
            f"{says.en} The band reaches from the least to the greatest.",
            f"{says.zh}色带从最小到最大。",
        )
    legend = [(f"line s{place % SERIES}", short(each.name, 24)) for place, each, _ in shown]
    return Figure(
        name, title, says, [Panel(steps, scores, [*bands, *lines])], height=360, legend=legend
    )


def _axis(
    curves: Sequence[Sequence[tuple[int, float, float, float]]], objective: Objective, banded: bool
) -> Axis:
    """A logarithmic axis for what falls far; else one that leaves out the worst tenth of all
    points: where curves begin says little."""
    means = [value for curve in curves for _, value, _, _ in curve]
    ends = [end for curve in curves for point in curve for end in point[2:]] if banded else means
    if objective.direction == "lower" and min(ends) > 0 and max(means) > _FALLS * min(means):
        return axis(ends, objective.metric, log=True)
    worst = sorted(means, key=lambda value: objective.sign * value)[len(means) // 10]
    best = max(ends, key=lambda value: objective.sign * value)
    return axis([worst, best], objective.metric)


def _rates(found: Comparison) -> Figure | None:
    shown = [
        (place, each, [(rate, score) for rate, score in each.tried if score is not None])
        for place, each in enumerate(found.standings)
        if len(each.tried) > 1
    ]
    points = [point for _, _, tried in shown for point in tried]
    if not points:
        return None
    objective = Objective(found.metric, "higher" if found.better == "higher" else "lower")
    scores, _ = score_axis([score for _, score in points], objective)
    rates = axis([rate for rate, _ in points], Words("learning rate", "学习率"), log=True)
    marks: list[Mark] = []
    for place, _, tried in shown:
        role = f"s{place % SERIES}"
        x, y = [rate for rate, _ in sorted(tried)], [score for _, score in sorted(tried)]
        marks += [Line(x, y, role), Points(x, y, role)]
    return Figure(
        "rates",
        Words(
            f"Validation {found.metric} by learning rate", f"验证集 {found.metric} 随学习率的变化"
        ),
        Words("The search of each contestant's learning rate.", "每个参赛者的学习率搜索。"),
        [Panel(rates, scores, marks)],
        height=360,
        legend=[(f"line s{place % SERIES}", short(each.name, 24)) for place, each, _ in shown],
    )


def _with(figure: Figure, panel: Panel, legend: Sequence[Any]) -> Figure:
    return Figure(
        figure.name, figure.title, figure.says, [panel], height=figure.height, legend=legend
    )
