"""The files of a comparison: its table and curves as CSV and JSON, and charts as SVG and PNG."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from danlu.comparison.runs import TrainingResult
from danlu.comparison.statistics import Comparison
from danlu.reporting import png, svg
from danlu.reporting.axes import score_axis
from danlu.reporting.figure import SERIES, Axis, Band, Figure, Line, Mark, Panel, Points, axis
from danlu.reporting.study_data import Bilingual, Objective, short
from danlu.reporting.tables import csv_cell
from danlu.system.atomic_files import replace_file

_MAX_BANDS = 4  # more of them cover one another
_LOG_RATIO = 3.0  # times


def write_files(
    comparison: Comparison, results: Sequence[TrainingResult], names: Sequence[str]
) -> list[Path]:
    """Write comparison.json, comparison.csv, curves.csv (every training), and each chart as SVG,
    also as PNG where matplotlib is installed; the files written."""
    folder = comparison.folder
    replace_file(
        folder / "comparison.json",
        json.dumps(comparison.as_dict(), ensure_ascii=False, indent=1, allow_nan=False).encode(
            "utf-8", "backslashreplace"
        ),
    )
    replace_file(folder / "comparison.csv", _csv(*_table(comparison)))
    replace_file(
        folder / "curves.csv",
        _csv(
            ["contestant", "learning_rate", "seed", "what", "step", "value"],
            _points(results, names, comparison.metric),
        ),
    )
    written = [folder / name for name in ("comparison.json", "comparison.csv", "curves.csv")]
    for figure in figures(comparison):
        path = folder / f"{figure.name}.svg"
        replace_file(path, svg.draw(figure, "en", alone=True).encode("utf-8"))
        written.append(path)
        if png.is_available():
            replace_file(path.with_suffix(".png"), png.draw(figure))
            written.append(path.with_suffix(".png"))
    return written


def figures(comparison: Comparison) -> list[Figure]:
    """The charts: curves (validation score by step), losses (training loss by step), rates (score
    by learning rate)."""
    candidates = [_curves(comparison), _losses(comparison), _rates(comparison)]
    return [figure for figure in candidates if figure is not None]


def _table(comparison: Comparison) -> tuple[list[str], list[list[Any]]]:
    columns = (
        "name",
        "learning_rate",
        "at_edge",
        "mean",
        "margin",
        "behind",
        "behind_margin",
        "steps_to_target",
        "seconds_to_target",
        "seconds_per_step",
        "total_steps",
        "parameters",
    )
    heads = [*columns, *(f"seed_{seed}" for seed in comparison.seeds)]
    return heads, [
        [*(getattr(standing, name) for name in columns), *standing.scores]
        for standing in comparison.standings
    ]


def _points(
    results: Sequence[TrainingResult], names: Sequence[str], metric: str
) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for result in results:
        head = [names[result.training.contestant], result.training.rate, result.training.seed]
        rows += [[*head, f"validation {metric}", step, value] for step, value in result.curve]
        rows += [[*head, "training loss", step, value] for step, value in result.losses]
    return rows


def _csv(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows([csv_cell(value) for value in row] for row in rows)
    return text.getvalue().encode("utf-8")


def _curves(comparison: Comparison) -> Figure | None:
    objective = Objective(comparison.metric, "higher" if comparison.better == "higher" else "lower")
    figure = _by_step(
        comparison, "curve", objective, "curves",
        Bilingual(
            f"Validation {comparison.metric} by step", f"验证集 {comparison.metric} 随步数的变化"
        ),
    )  # fmt: skip
    if figure is None or comparison.target is None:
        return figure
    panel = figure.panels[0]
    marks = [
        Line([panel.x.low, panel.x.high], [comparison.target, comparison.target], "target"),
        *panel.marks,
    ]
    return _with_panel(
        figure,
        Panel(panel.x, panel.y, marks),
        [
            *figure.legend,
            (
                "line target",
                Bilingual(f"target {comparison.target:.4g}", f"目标 {comparison.target:.4g}"),
            ),
        ],
    )


def _losses(comparison: Comparison) -> Figure | None:
    words = Bilingual("Training loss by step", "训练损失随步数的变化")
    return _by_step(comparison, "losses", Objective("loss", "lower"), "losses", words)


def _by_step(
    comparison: Comparison, attribute: str, objective: Objective, name: str, title: Bilingual
) -> Figure | None:
    shown = [
        (index, standing, getattr(standing, attribute))
        for index, standing in enumerate(comparison.standings)
        if getattr(standing, attribute)
    ]
    if not shown:
        return None
    banded = len(comparison.seeds) > 1 and len(shown) <= _MAX_BANDS
    scores = _axis([curve for _, _, curve in shown], objective, banded)
    steps = axis(
        [0, *(step for _, _, curve in shown for step, _, _, _ in curve)],
        Bilingual("step", "步"),
        whole=True,
        room=0.02,
    )
    bands: list[Mark] = []
    lines: list[Mark] = []
    for index, _, curve in shown:
        role = f"s{index % SERIES}"
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
    count = len(comparison.seeds)
    caption = Bilingual(f"Mean over {count} seeds.", f"{count} 个种子的平均。")
    if banded:
        caption = Bilingual(
            f"{caption.en} The band reaches from the least to the greatest.",
            f"{caption.zh}色带从最小到最大。",
        )
    legend = [(f"line s{index % SERIES}", short(standing.name, 24)) for index, standing, _ in shown]
    return Figure(
        name, title, caption, [Panel(steps, scores, [*bands, *lines])], height=360, legend=legend
    )


def _axis(
    curves: Sequence[Sequence[tuple[int, float, float, float]]], objective: Objective, banded: bool
) -> Axis:
    """A logarithmic axis for curves that fall by a large factor; else one without the worst tenth
    of all points, since the beginnings of curves say little."""
    means = [value for curve in curves for _, value, _, _ in curve]
    ends = [end for curve in curves for point in curve for end in point[2:]] if banded else means
    if objective.direction == "lower" and min(ends) > 0 and max(means) > _LOG_RATIO * min(means):
        return axis(ends, objective.metric, log=True)
    worst = sorted(means, key=lambda value: objective.sign * value)[len(means) // 10]
    best = max(ends, key=lambda value: objective.sign * value)
    return axis([worst, best], objective.metric)


def _rates(comparison: Comparison) -> Figure | None:
    shown = [
        (index, standing, [(rate, score) for rate, score in standing.tried if score is not None])
        for index, standing in enumerate(comparison.standings)
        if len(standing.tried) > 1
    ]
    points = [point for _, _, tried in shown for point in tried]
    if not points:
        return None
    objective = Objective(comparison.metric, "higher" if comparison.better == "higher" else "lower")
    scores, _ = score_axis([score for _, score in points], objective)
    rates = axis([rate for rate, _ in points], Bilingual("learning rate", "学习率"), log=True)
    marks: list[Mark] = []
    for index, _, tried in shown:
        role = f"s{index % SERIES}"
        x, y = [rate for rate, _ in sorted(tried)], [score for _, score in sorted(tried)]
        marks += [Line(x, y, role), Points(x, y, role)]
    return Figure(
        "rates",
        Bilingual(
            f"Validation {comparison.metric} by learning rate",
            f"验证集 {comparison.metric} 随学习率的变化",
        ),
        Bilingual("The search of each contestant's learning rate.", "每个参赛者的学习率搜索。"),
        [Panel(rates, scores, marks)],
        height=360,
        legend=[
            (f"line s{index % SERIES}", short(standing.name, 24)) for index, standing, _ in shown
        ],
    )


def _with_panel(figure: Figure, panel: Panel, legend: Sequence[Any]) -> Figure:
    return Figure(
        figure.name, figure.title, figure.caption, [panel], height=figure.height, legend=legend
    )
