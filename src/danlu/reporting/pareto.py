"""The Pareto front: the trials that no other one beats in every objective."""

from __future__ import annotations

from itertools import combinations

from danlu.reporting.axes import clipped_note, score_axis
from danlu.reporting.figure import Figure, Line, Mark, Panel, Points, thinned
from danlu.reporting.study_data import Bilingual, ReportedTrial, StudyData

MAX_DOTS = 2000


def pareto(study: StudyData) -> Figure | None:
    """One panel per pair of objectives; None for a single objective, or without complete trials."""
    if len(study.objectives) < 2 or not study.complete:
        return None
    front = {trial.number for trial in study.best_trials}
    others = [trial for trial in study.complete if trial.number not in front]
    others = [others[index] for index in thinned(len(others), MAX_DOTS)]
    panels, clipped = [], 0
    for one, other in combinations(range(len(study.objectives)), 2):
        x, first = score_axis(
            [_score(trial, one) for trial in study.complete], study.objectives[one]
        )
        y, second = score_axis(
            [_score(trial, other) for trial in study.complete], study.objectives[other]
        )
        clipped = max(clipped, first + second)
        best = sorted(study.best_trials, key=lambda trial: _score(trial, one))
        marks: list[Mark] = []
        if (
            len(study.objectives) == 2
        ):  # with more the front is a surface, and this pair no line of it
            marks.append(
                Line(
                    [_score(trial, one) for trial in best],
                    [_score(trial, other) for trial in best],
                    "front",
                )
            )
        for trials, role in ((others, "complete"), (best, "front")):
            numbers = [trial.number for trial in trials]
            marks.append(
                Points(
                    [_score(trial, one) for trial in trials],
                    [_score(trial, other) for trial in trials],
                    role,
                    numbers,
                )
            )
        panels.append(Panel(x, y, marks))
    return Figure(
        "pareto",
        Bilingual("Pareto front", "帕累托前沿"),
        Bilingual(
            "Trials on the front are beaten by no other one in every objective: to better one "
            "score there, another must be given up.",
            "前沿上的试验没有被别的试验全面超过：要改善其中一个成绩，就得让出另一个。",
        ),
        panels,
        columns=2 if len(panels) > 1 else 1,
        height=320,
        legend=[
            ("front", Bilingual("on the front", "在前沿上")),
            ("complete", Bilingual("other trials", "其他试验")),
        ],
        notes=clipped_note(clipped),
    )


def _score(trial: ReportedTrial, objective: int) -> float:
    return float((trial.scores or ())[objective])
