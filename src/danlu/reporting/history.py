"""The history of a study: every trial in its order, and the best so far."""

from __future__ import annotations

from danlu.reporting.drawing import Figure, Line, Mark, Panel, Points, Text, axis, thinned
from danlu.reporting.scores import beyond, score_axis
from danlu.reporting.told import StudyTold, Trial, Words

MOST_DOTS = 2000  # of a chart
MOST_CURVES = 200

_KINDS: dict[str, Words] = {
    "complete": Words("complete", "完成"),
    "pruned": Words("pruned (what it reported last)", "被剪枝（最后报告的值）"),
    "failed": Words("failed", "失败"),
}


def history(told: StudyTold) -> Figure | None:
    """Objective by trial number, one panel an objective; None where no trial has a score."""
    if not told.complete:
        return None
    panels, far, states = [], 0, set()
    for place, objective in enumerate(told.objectives):
        dots: dict[str, list[tuple[Trial, float]]] = {"complete": [], "pruned": [], "failed": []}
        for trial in [each for each in told.trials if each.state in ("complete", "pruned")]:
            value = told.score(trial, place)
            if value is not None:
                dots[trial.state].append((trial, value))
        scores, out = score_axis([value for kind in dots.values() for _, value in kind], objective)
        worst = scores.low if objective.direction == "higher" else scores.high
        dots["failed"] = [(trial, worst) for trial in told.trials if trial.state == "failed"]
        numbers = axis(
            [0, max(trial.number for trial in told.trials)],
            Words("trial", "试验"),
            whole=True,
            room=0.02,
        )
        marks: list[Mark] = [_best_so_far(told, place)] if told.complete else []
        for kind, found in dots.items():
            kept = [found[index] for index in thinned(len(found), MOST_DOTS)]
            if kept:
                states.add(kind)
                marks.append(
                    Points(
                        [each.number for each, _ in kept],
                        [value for _, value in kept],
                        kind,
                        [each.number for each, _ in kept],
                    )
                )
        far += out
        panels.append(Panel(numbers, scores, marks))
    legend: list[tuple[str, Text]] = [
        (kind, words) for kind, words in _KINDS.items() if kind in states
    ]
    return Figure(
        "history",
        Words("History", "历程"),
        Words(
            "Every trial in the order it was begun; the line is the best score until then.",
            "每个试验按开始的先后排列；折线是到那时为止的最好成绩。",
        ),
        panels,
        legend=[*legend, ("line so-far", Words("best so far", "迄今最好"))],
        notes=beyond(far),
    )


def _best_so_far(told: StudyTold, place: int) -> Line:
    x, y, best = [], [], None
    for trial in told.complete:
        merit = told.merits(trial)[place]
        if best is None or merit > best:
            best = merit
            x.append(float(trial.number))
            y.append(best * told.objectives[place].sign)
    return Line([*x, float(told.trials[-1].number)], [*y, y[-1]], "so-far", steps=True)


def curves(told: StudyTold) -> Figure | None:
    """What each trial reported on its way; None where none reported twice."""
    long = [trial for trial in told.trials if len(trial.curve) > 1]
    if not long:
        return None
    best = {trial.number for trial in told.front}
    chosen = [long[index] for index in thinned(len(long), MOST_CURVES)]
    there = {trial.number for trial in chosen}
    chosen += [trial for trial in long if trial.number in best and trial.number not in there]
    scores, far = score_axis(
        [value for trial in chosen for _, value in trial.curve], told.objectives[0]
    )
    steps = axis(
        [1, *(step for trial in chosen for step, _ in trial.curve)],
        Words("evaluation", "第几次评估"),
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
            Words(
                "Scores far worse than the others are drawn at the edge.",
                "比其他差得太远的成绩画在边缘上。",
            )
        ]
        if far
        else []
    )
    if len(long) > len(chosen):
        notes.append(
            Words(
                f"{len(chosen)} of {len(long)} trials are drawn.",
                f"画出 {len(long)} 个试验中的 {len(chosen)} 个。",
            )
        )
    return Figure(
        "curves",
        Words("Learning curves", "学习曲线"),
        Words(
            "The validation score that each trial reported while it trained.",
            "每个试验在训练途中报告的验证成绩。",
        ),
        [Panel(steps, scores, marks)],
        legend=[
            ("line trial", Words("complete", "完成")),
            ("line pruned", Words("pruned or failed", "被剪枝或失败")),
            ("line front", Words("best", "最好")),
        ],
        notes=notes,
    )
