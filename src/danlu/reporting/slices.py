"""Slices: the score over each option of the search space separately."""

from __future__ import annotations

from danlu.reporting.axes import OptionAxis, clipped_note, score_axis
from danlu.reporting.figure import SHADES, Figure, Panel, Points, thinned
from danlu.reporting.study_data import Bilingual, StudyData

MAX_DOTS = 500  # of one slice


def slices(study: StudyData) -> Figure | None:
    """One panel per option and objective; None where no trial has a score."""
    if not study.complete or not study.space:
        return None
    panels, clipped = [], 0
    last = max(trial.number for trial in study.complete) or 1
    for objective_index, objective in enumerate(study.objectives):
        scores, outliers = score_axis(
            [float((trial.scores or ())[objective_index]) for trial in study.complete], objective
        )
        clipped = max(clipped, outliers)
        for dimension in study.space:
            option_axis = OptionAxis(dimension, study.complete)
            trials = [trial for trial in study.complete if option_axis.position(trial) is not None]
            trials = [trials[index] for index in thinned(len(trials), MAX_DOTS)]
            if not trials:
                continue
            roles = [
                f"r{min(2 + trial.number * (SHADES - 2) // (last + 1), SHADES - 1)}"
                for trial in trials
            ]
            x = [float(option_axis.position(trial) or 0.0) for trial in trials]
            y = [float((trial.scores or ())[objective_index]) for trial in trials]
            panels.append(
                Panel(
                    option_axis.axis,
                    scores,
                    [Points(x, y, "r5", [trial.number for trial in trials], roles)],
                )
            )
    columns = 2 if len(panels) > 1 else 1
    return Figure(
        "slices",
        Bilingual("Slices", "切片"),
        Bilingual(
            "The score over one option at a time. The later a trial, the stronger its dot: where "
            "a sampler learns, late dots gather.",
            "成绩随单个选项的变化。试验越晚，点越醒目：采样器若有所学，后来的点会聚拢。",
        ),
        panels,
        columns,
        height=250,
        legend=[
            ("r3", Bilingual("early trial", "较早的试验")),
            ("r9", Bilingual("late trial", "较晚的试验")),
        ],
        notes=clipped_note(clipped),
    )
