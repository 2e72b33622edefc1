"""The history of a study: every trial in its order, the best score so far, and learning curves."""

from __future__ import annotations

from danlu.reporting.axes import clipped_note, score_axis
from danlu.reporting.figure import Figure, Line, Mark, Panel, Points, Text, axis, thinned
from danlu.reporting.study_data import Bilingual, ReportedTrial, StudyData

MAX_DOTS = 2000  # of a chart
MAX_CURVES = 200

_KINDS: dict[str, Bilingual] = {
    "complete": Bilingual("complete", "完成"),
    "pruned": Bilingual("pruned (what it reported last)", "被剪枝（最后报告的值）"),
    "failed": Bilingual("failed", "失败"),
}


def history(study: StudyData) -> Figure | None:
    """Objective by trial number, one panel per objective; None where no trial has a score."""
    if not study.complete:
        return None
    panels, clipped, states = [], 0, set()
    for objective_index, objective in enumerate(study.objectives):
        dots: dict[str, list[tuple[ReportedTrial, float]]] = {
            "complete": [],
            "pruned": [],
            "failed": [],
        }
        for trial in study.trials:
            if trial.state not in ("complete", "pruned"):
                continue
            value = study.score(trial, objective_index)
            if value is not None:
                dots[trial.state].append((trial, value))
        scores, outliers = score_axis(
            [value for kind in dots.values() for _, value in kind], objective
        )
        worst = scores.low if objective.direction == "higher" else scores.high
        dots["failed"] = [(trial, worst) for trial in study.trials if trial.state == "failed"]
        numbers = axis(
            [0, max(trial.number for trial in study.trials)],
            Bilingual("trial", "试验"),
            whole=True,
            room=0.02,
        )
        marks: list[Mark] = [_best_so_far(study, objective_index)] if study.complete else []
        for kind, dots_of_kind in dots.items():
            kept = [dots_of_kind[index] for index in thinned(len(dots_of_kind), MAX_DOTS)]
            if kept:
                states.add(kind)
                marks.append(
                    Points(
                        [trial.number for trial, _ in kept],
                        [value for _, value in kept],
                        kind,
                        [trial.number for trial, _ in kept],
                    )
                )
        clipped += outliers
        panels.append(Panel(numbers, scores, marks))
    legend: list[tuple[str, Text]] = [
        (kind, words) for kind, words in _KINDS.items() if kind in states
    ]
    return Figure(
        "history",
        Bilingual("History", "历程"),
        Bilingual(
            "Every trial in the order it was begun; the line is the best score until then.",
            "每个试验按开始的先后排列；折线是到那时为止的最好成绩。",
        ),
        panels,
        legend=[*legend, ("line so-far", Bilingual("best so far", "迄今最好"))],
        notes=clipped_note(clipped),
    )


def _best_so_far(study: StudyData, objective: int) -> Line:
    x, y, best = [], [], None
    for trial in study.complete:
        merit = study.merits(trial)[objective]
        if best is None or merit > best:
            best = merit
            x.append(float(trial.number))
            y.append(best * study.objectives[objective].sign)
    return Line([*x, float(study.trials[-1].number)], [*y, y[-1]], "so-far", steps=True)


def curves(study: StudyData) -> Figure | None:
    """The learning curve of each trial; None where no trial has two reported scores."""
    long = [trial for trial in study.trials if len(trial.curve) > 1]
    if not long:
        return None
    best = {trial.number for trial in study.best_trials}
    chosen = [long[index] for index in thinned(len(long), MAX_CURVES)]
    there = {trial.number for trial in chosen}
    chosen += [trial for trial in long if trial.number in best and trial.number not in there]
    scores, far = score_axis(
        [value for trial in chosen for _, value in trial.curve], study.objectives[0]
    )
    steps = axis(
        [1, *(step for trial in chosen for step, _ in trial.curve)],
        Bilingual("evaluation", "第几次评估"),
        whole=True,
        room=0.02,
    )
    marks: list[Mark] = []
    for trial in sorted(
        chosen, key=lambda trial: (trial.number in best, trial.state == "complete")
    ):
        points = [
            (step, value)
            for step, value in trial.curve
            if value == value and abs(value) != float("inf")
        ]
        role = (
            "front" if trial.number in best else "trial" if trial.state == "complete" else "pruned"
        )
        marks.append(
            Line([step for step, _ in points], [value for _, value in points], role, trial.number)
        )
    notes = (
        [
            Bilingual(
                "Scores far worse than the others are drawn at the edge.",
                "比其他差得太远的成绩画在边缘上。",
            )
        ]
        if far
        else []
    )
    if len(long) > len(chosen):
        notes.append(
            Bilingual(
                f"{len(chosen)} of {len(long)} trials are drawn.",
                f"画出 {len(long)} 个试验中的 {len(chosen)} 个。",
            )
        )
    return Figure(
        "curves",
        Bilingual("Learning curves", "学习曲线"),
        Bilingual(
            "The validation score that each trial reported while it trained.",
            "每个试验在训练途中报告的验证成绩。",
        ),
        [Panel(steps, scores, marks)],
        legend=[
            ("line trial", Bilingual("complete", "完成")),
            ("line pruned", Bilingual("pruned or failed", "被剪枝或失败")),
            ("line front", Bilingual("best", "最好")),
        ],
        notes=notes,
    )
