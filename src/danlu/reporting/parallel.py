"""Parallel coordinates: one line per trial, through its options to the score it reached."""

from __future__ import annotations

from danlu.reporting.axes import OptionAxis, score_axis
from danlu.reporting.figure import SHADES, Axis, Figure, Label, Line, Mark, Panel, Rule, thinned
from danlu.reporting.study_data import Bilingual, ReportedTrial, StudyData, short

MAX_LINES = 500
_ABSENT_HEIGHT = -0.09  # height of what was not asked of a trial; the axis begins at 0


def parallel(study: StudyData) -> Figure | None:
    """One line per complete trial, the darker the better; None for fewer than two trials or no
    options."""
    if len(study.complete) < 2 or not study.space:
        return None
    chosen = _chosen(study)
    option_axes = [OptionAxis(dimension, study.complete) for dimension in study.space]
    option_axes = [
        option_axis
        for option_axis in option_axes
        if any(option_axis.position(trial) is not None for trial in chosen)
    ]
    targets = [
        score_axis([float((trial.scores or ())[index]) for trial in study.complete], objective)[0]
        for index, objective in enumerate(study.objectives)
    ]
    axes = [*(option_axis.axis for option_axis in option_axes), *targets]
    marks: list[Mark] = []
    rank = {
        trial.number: index
        for index, trial in enumerate(
            sorted(study.complete, key=lambda trial: study.merits(trial)[0])
        )
    }
    absent = False
    for trial in sorted(chosen, key=lambda trial: rank[trial.number]):
        heights: list[float] = []
        for option_axis in option_axes:
            position = option_axis.position(trial)
            absent |= position is None
            heights.append(_ABSENT_HEIGHT if position is None else option_axis.axis.share(position))
        heights += [axis.share(float(score)) for axis, score in zip(targets, trial.scores or ())]
        shade = rank[trial.number] * SHADES // len(rank)
        marks.append(Line(list(range(len(axes))), heights, f"r{shade} parallel", trial.number))
    for index, axis in enumerate(axes):
        marks.append(Rule(index))
        name = axis.label if isinstance(axis.label, str) else axis.label.en
        marks.append(
            Label(
                index,
                1.0,
                short(_last_word(name), max(8, 96 // len(axes))),
                above=12 + 13 * (index % 2 if len(axes) > 5 else 0),
            )
        )
        marks += [
            Label(index + 0.03, axis.share(value), text, "start") for value, text in axis.ticks
        ]
        if (
            index < len(option_axes)
            and absent
            and any(option_axes[index].position(trial) is None for trial in chosen)
        ):
            marks.append(
                Label(index + 0.03, _ABSENT_HEIGHT, Bilingual("not asked", "不适用"), "start")
            )
    notes = []
    if len(chosen) < len(study.complete):
        count = len(study.complete)
        notes.append(
            Bilingual(
                f"{len(chosen)} of {count} trials are drawn, the best among them.",
                f"画出 {count} 个试验中的 {len(chosen)} 个，含最好的。",
            )
        )
    return Figure(
        "parallel",
        Bilingual("Parallel coordinates", "平行坐标"),
        Bilingual(
            "Each line is a complete trial: what it tried, from left to right, and at the right "
            "what it reached. The better, the stronger.",
            "每条线是一个完成的试验：从左到右是它的取值，最右边是它的成绩。越好越醒目。",
        ),
        [Panel(Axis(-0.2, len(axes) - 0.45), Axis(-0.12, 1.12), marks, grid=False)],
        height=380,
        left=30,
        notes=notes,
    )


def _chosen(study: StudyData) -> list[ReportedTrial]:
    """At most MAX_LINES trials: the best fifth of that number, and others evenly spaced by rank."""
    if len(study.complete) <= MAX_LINES:
        return study.complete
    ranked = sorted(study.complete, key=lambda trial: -study.merits(trial)[0])
    best, rest = ranked[: MAX_LINES // 5], ranked[MAX_LINES // 5 :]
    return [*best, *(rest[index] for index in thinned(len(rest), MAX_LINES - len(best)))]


def _last_word(name: str) -> str:
    """The last word of a dotted name."""
    return name.rpartition(".")[2] or name
