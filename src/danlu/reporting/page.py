"""A study as ONE self-contained HTML page, safe whatever the names and values in it contain.

All text is escaped. The data of the trials is JSON with its angle brackets and ampersands escaped.
The page's content security policy lets the browser run only the one script whose hash it names,
load nothing, and send nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from danlu.reporting import svg
from danlu.reporting.figure import Figure
from danlu.reporting.importance import Importance
from danlu.reporting.study_data import (
    Bilingual,
    ReportedTrial,
    StudyData,
    clean,
    number,
    short,
    text_of,
)
from danlu.system import machine

MAX_ROWS = 1000  # of the table of trials; all of them are in the CSV

_STATES = {
    "complete": Bilingual("complete", "完成"),
    "pruned": Bilingual("pruned", "被剪枝"),
    "failed": Bilingual("failed", "失败"),
    "running": Bilingual("not finished", "未完成"),
}
_TEXTS = {
    "skip": Bilingual("Skip to the table of trials", "跳到试验表"),
    "kicker": Bilingual("A tuning study of danlu", "丹炉调参报告"),
    "best": Bilingual("Best", "最好"),
    "none": Bilingual("No trial has finished with a score.", "还没有一个试验得出成绩。"),
    "recipe": Bilingual("The recipe of the best trial:", "最好试验的配方："),
    "trial": Bilingual("trial", "试验"),
    "trials": Bilingual("trials", "试验"),
    "higher": Bilingual("(higher is better)", "（越高越好）"),
    "lower": Bilingual("(lower is better)", "（越低越好）"),
    "charts": Bilingual("Charts", "图表"),
    "failures": Bilingual("What failed", "失败的试验"),
    "cause": Bilingual("cause", "原因"),
    "count": Bilingual("count", "个数"),
    "numbers": Bilingual("The same in numbers", "同样内容的数字"),
    "option": Bilingual("option", "选项"),
    "objective": Bilingual("objective", "目标"),
    "how": Bilingual(
        "Point at a mark, or focus a chart and press ← →: the same trial is shown in every chart. "
        "Esc lets go of it.",
        "用鼠标指向图中的点或线，或选中一张图后按 ← →：所有图里同一个试验会一起标出。按 Esc 取消。",
    ),
    "files": Bilingual(
        "Also in trials.csv and trials.parquet beside this page.",
        "同目录下的 trials.csv 与 trials.parquet 含有同样内容。",
    ),
    "up": Bilingual("to the top", "回到顶部"),
}
_HEADS = {
    "state": Bilingual("state", "状态"),
    "seconds": Bilingual("seconds", "秒"),
    "steps": Bilingual("steps", "步数"),
    "cause": Bilingual("cause", "原因"),
}


def html_page(
    study: StudyData, figures: Sequence[Figure], importances: Sequence[Importance]
) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    env = Environment(
        loader=PackageLoader("danlu.reporting", "."), autoescape=True, undefined=StrictUndefined
    )
    script = svg.style("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shown = _rows_shown(study)
    left_out = len(study.trials) - len(shown)
    return env.get_template("study.html").render(
        name=clean(study.name),
        version=machine.versions()["danlu"],
        say={**_TEXTS, "lead": _lead(study)},
        objectives=study.objectives,
        options=[dimension.name for dimension in study.space],
        best=[_best(study, trial) for trial in study.best_trials[:50]],
        recipe=clean(study.best),
        facts=[(subject, clean(value)) for subject, value in study.facts],
        figures=[
            {
                "name": figure.name,
                "title": figure.title,
                "caption": figure.caption,
                "notes": figure.notes,
                "svg": Markup(svg.draw(figure)),  # every text in it is escaped where it is drawn
            }
            for figure in figures
        ],
        importances=importances,
        failures=_failures(study),
        heads=_heads(study),
        rows=[_row(study, trial) for trial in shown],
        left_out=Bilingual(
            f"This table shows the best {len(shown):,} of {len(study.trials):,}.",
            f"本表只列出 {len(study.trials):,} 个中最好的 {len(shown):,} 个。",
        )
        if left_out
        else None,
        data=Markup(
            _json(
                {
                    "trials": [_script_entry(study, trial) for trial in study.trials],
                    "words": _script_words(),
                }
            )
        ),
        style=Markup(svg.style("chart.css") + svg.style("page.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _json(value: Any) -> str:
    """JSON in which no HTML parser finds markup."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _script_words() -> dict[str, dict[str, str]]:
    words = {**_STATES, "trial": _TEXTS["trial"]}
    return {
        "en": {name: text.en for name, text in words.items()},
        "zh": {name: text.zh for name, text in words.items()},
    }


def _lead(study: StudyData) -> Bilingual:
    done, pruned, failed, running = (
        study.count(state) for state in ("complete", "pruned", "failed", "running")
    )
    en = [
        f"{done:,} complete",
        *([f"{pruned:,} pruned"] if pruned else []),
        *([f"{failed:,} failed"] if failed else []),
    ]
    zh = [
        f"完成 {done:,} 个",
        *([f"剪枝 {pruned:,} 个"] if pruned else []),
        *([f"失败 {failed:,} 个"] if failed else []),
    ]
    en += [f"{running:,} not finished"] if running else []
    zh += [f"未完成 {running:,} 个"] if running else []
    count = len(study.trials)
    return Bilingual(f"{count:,} trials: {', '.join(en)}.", f"{count:,} 个试验：{'，'.join(zh)}。")


def _best(study: StudyData, trial: ReportedTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "scores": [number(float(score)) for score in trial.scores or ()],
        "options": [
            short(text_of(trial.values[dimension.name]), 60)
            if dimension.name in trial.values
            else "–"
            for dimension in study.space
        ],
    }


def _failures(study: StudyData) -> list[dict[str, Any]]:
    """The causes of failures, the most frequent first, with the numbers of some trials of each."""
    failed = [
        (clean(trial.cause) or "unknown", trial.number)
        for trial in study.trials
        if trial.state == "failed"
    ]
    entries = []
    for cause, count in Counter(cause for cause, _ in failed).most_common(30):
        numbers = [str(trial) for other, trial in failed if other == cause]
        entries.append(
            {
                "cause": short(cause, 300),
                "count": count,
                "trials": ", ".join(numbers[:20]) + (" …" if count > 20 else ""),
            }
        )
    return entries


def _heads(study: StudyData) -> list[dict[str, Any]]:
    heads: list[tuple[Bilingual, bool]] = [(_TEXTS["trial"], False), (_HEADS["state"], False)]
    heads += [
        (Bilingual(objective.metric, objective.metric), True) for objective in study.objectives
    ]
    heads += [
        (Bilingual(dimension.name, dimension.name), dimension.kind != "choice")
        for dimension in study.space
    ]
    heads += [(_HEADS["seconds"], True), (_HEADS["steps"], True), (_HEADS["cause"], False)]
    return [{"words": words, "number": numeric} for words, numeric in heads]


def _rows_shown(study: StudyData) -> list[ReportedTrial]:
    """All trials by number; of more than MAX_ROWS the best ones, best first."""
    if len(study.trials) <= MAX_ROWS:
        return list(study.trials)
    ranked = sorted(study.complete, key=lambda trial: -study.merits(trial)[0])
    placed = {trial.number for trial in ranked}
    rest = [trial for trial in study.trials if trial.number not in placed]
    return [*ranked, *rest][:MAX_ROWS]


def _row(study: StudyData, trial: ReportedTrial) -> dict[str, Any]:
    cells = []
    for index in range(len(study.objectives)):
        cells.append(_cell(study.score(trial, index), True))
    for dimension in study.space:
        cells.append(
            _cell(
                trial.values.get(dimension.name),
                dimension.kind != "choice",
                dimension.name in trial.values,
            )
        )
    cells += [_cell(round(trial.seconds, 2), True), _cell(trial.steps, True)]
    cells.append(_cell(trial.cause or None, False))
    return {
        "number": trial.number,
        "state": trial.state,
        "state_words": _STATES.get(trial.state, Bilingual(trial.state, trial.state)),
        "cells": cells,
    }


def _cell(value: Any, numeric: bool, there: bool = True) -> dict[str, Any]:
    text = text_of(value) if there and (value is not None or not numeric) else ""
    text = "" if value is None and numeric else text
    shown = short(text, 60)
    sort = value if isinstance(value, int | float) and not isinstance(value, bool) else text
    return {"text": shown, "value": sort, "number": numeric, "full": text if shown != text else ""}


def _script_entry(study: StudyData, trial: ReportedTrial) -> dict[str, Any]:
    """What the script shows of a selected trial."""
    scored = [
        (objective.metric, study.score(trial, index))
        for index, objective in enumerate(study.objectives)
    ]
    scores = [[metric, number(score)] for metric, score in scored if score is not None]
    options = [
        [dimension.name, short(text_of(trial.values[dimension.name]), 80)]
        for dimension in study.space
        if dimension.name in trial.values
    ]
    entry = {"number": trial.number, "state": trial.state, "scores": scores, "options": options}
    return {**entry, "cause": short(clean(trial.cause), 200)} if trial.cause else entry
