"""Parallel coordinates: a line a trial through the options it tried, to the score it reached."""

from __future__ import annotations

from danlu.reporting.drawing import SHADES, Axis, Figure, Label, Line, Mark, Panel, Rule, thinned
from danlu.reporting.scores import OptionAxis, score_axis
from danlu.reporting.told import StudyTold, Trial, Words, short

MOST_LINES = 500
_ABSENT = -0.09  # height of what was not asked of a trial; the axis begins at 0


def parallel(told: StudyTold) -> Figure | None:
    """One line a complete trial, the darker the better; None for fewer than two trials or no
    space."""
    if len(told.complete) < 2 or not told.space:
        return None
    chosen = _chosen(told)
    found = [OptionAxis(each, told.complete) for each in told.space]
    found = [each for each in found if any(each.place(trial) is not None for trial in chosen)]
    targets = [
        score_axis([float((trial.scores or ())[place]) for trial in told.complete], each)[0]
        for place, each in enumerate(told.objectives)
    ]
    axes = [*(each.axis for each in found), *targets]
    marks: list[Mark] = []
    rank = {
        trial.number: place
        for place, trial in enumerate(
            sorted(told.complete, key=lambda trial: told.merits(trial)[0])
        )
    }
    absent = False
    for trial in sorted(chosen, key=lambda trial: rank[trial.number]):
        heights: list[float] = []
        for each in found:
            place = each.place(trial)
            absent |= place is None
            heights.append(_ABSENT if place is None else each.axis.share(place))
        heights += [axis.share(float(score)) for axis, score in zip(targets, trial.scores or ())]
        shade = rank[trial.number] * SHADES // len(rank)
        marks.append(Line(list(range(len(axes))), heights, f"r{shade} parallel", trial.number))
    for place, axis in enumerate(axes):
        marks.append(Rule(place))
        name = axis.label if isinstance(axis.label, str) else axis.label.en
        marks.append(
            Label(
                place,
                1.0,
                short(_lean(name), max(8, 96 // len(axes))),
                above=12 + 13 * (place % 2 if len(axes) > 5 else 0),
            )
        )
        marks += [
            Label(place + 0.03, axis.share(value), text, "start") for value, text in axis.ticks
        ]
        if (
            place < len(found)
            and absent
            and any(found[place].place(trial) is None for trial in chosen)
        ):
            marks.append(Label(place + 0.03, _ABSENT, Words("not asked", "不适用"), "start"))
    notes = []
    if len(chosen) < len(told.complete):
        count = len(told.complete)
        notes.append(
            Words(
                f"{len(chosen)} of {count} trials are drawn, the best among them.",
                f"画出 {count} 个试验中的 {len(chosen)} 个，含最好的。",
            )
        )
    return Figure(
        "parallel",
        Words("Parallel coordinates", "平行坐标"),
        Words(
            "Each line is a complete trial: what it tried, from left to right, and at the right what it reached. The better, the stronger.",
            "每条线是一个完成的试验：从左到右是它的取值，最右边是它的成绩。越好越醒目。",
        ),
        [Panel(Axis(-0.2, len(axes) - 0.45), Axis(-0.12, 1.12), marks, grid=False)],
        height=380,
        left=30,
        notes=notes,
    )


def _chosen(told: StudyTold) -> list[Trial]:
    """At most 500 trials: the best fifth of them, and others evenly."""
    if len(told.complete) <= MOST_LINES:
        return told.complete
    ranked = sorted(told.complete, key=lambda trial: -told.merits(trial)[0])
    best, rest = ranked[: MOST_LINES // 5], ranked[MOST_LINES // 5 :]
    return [*best, *(rest[place] for place in thinned(len(rest), MOST_LINES - len(best)))]


def _lean(name: str) -> str:
    """The last word of a dotted name, with its part where it is an option of all parts ("name")."""
    return name.rpartition(".")[2] or name
