"""Slices: the score over each option of the space by itself."""

from __future__ import annotations

from danlu.reporting.drawing import SHADES, Figure, Panel, Points, thinned
from danlu.reporting.scores import OptionAxis, beyond, score_axis
from danlu.reporting.told import StudyTold, Words

MOST_DOTS = 500  # of one slice


def slices(told: StudyTold) -> Figure | None:
    """A panel an option and objective; None where no trial has a score."""
    if not told.complete or not told.space:
        return None
    panels, far = [], 0
    last = max(trial.number for trial in told.complete) or 1
    for place, objective in enumerate(told.objectives):
        scores, out = score_axis(
            [float((trial.scores or ())[place]) for trial in told.complete], objective
        )
        far = max(far, out)
        for dimension in told.space:
            found = OptionAxis(dimension, told.complete)
            trials = [trial for trial in told.complete if found.place(trial) is not None]
            trials = [trials[index] for index in thinned(len(trials), MOST_DOTS)]
            if not trials:
                continue
            roles = [
                f"r{min(2 + trial.number * (SHADES - 2) // (last + 1), SHADES - 1)}"
                for trial in trials
            ]
            x = [float(found.place(trial) or 0.0) for trial in trials]
            y = [float((trial.scores or ())[place]) for trial in trials]
            panels.append(
                Panel(
                    found.axis,
                    scores,
                    [Points(x, y, "r5", [trial.number for trial in trials], roles)],
                )
            )
    columns = 2 if len(panels) > 1 else 1
    return Figure(
        "slices",
        Words("Slices", "切片"),
        Words(
            "The score over one option at a time. The later a trial, the stronger its dot: where a sampler learns, late dots gather.",
            "成绩随单个选项的变化。试验越晚，点越醒目：采样器若有所学，后来的点会聚拢。",
        ),
        panels,
        columns,
        height=250,
        legend=[
            ("r3", Words("early trial", "较早的试验")),
            ("r9", Words("late trial", "较晚的试验")),
        ],
        notes=beyond(far),
    )
