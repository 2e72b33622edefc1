"""A study as ONE HTML page: no request goes out of it, whatever the names and values in it say.

Text reaches the page escaped; the data of the trials stands in it as JSON whose angle brackets and
ampersands are escaped; and its own policy lets the browser run only the one script whose hash it
names, load nothing and send nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from danlu.reporting import svg
from danlu.reporting.drawing import Figure
from danlu.reporting.importance import Importance
from danlu.reporting.told import StudyTold, Trial, Words, clean, number, short, text_of
from danlu.system import machine

MOST_ROWS = 1000  # of the table of trials; all of them are in the CSV

_STATES = {
    "complete": Words("complete", "完成"),
    "pruned": Words("pruned", "被剪枝"),
    "failed": Words("failed", "失败"),
    "running": Words("not finished", "未完成"),
}
_SAY = {
    "skip": Words("Skip to the table of trials", "跳到试验表"),
    "kicker": Words("A tuning study of danlu", "丹炉调参报告"),
    "best": Words("Best", "最好"),
    "none": Words("No trial has finished with a score.", "还没有一个试验得出成绩。"),
    "recipe": Words("The recipe of the best trial:", "最好试验的配方："),
    "trial": Words("trial", "试验"),
    "trials": Words("trials", "试验"),
    "higher": Words("(higher is better)", "（越高越好）"),
    "lower": Words("(lower is better)", "（越低越好）"),
    "charts": Words("Charts", "图表"),
    "failures": Words("What failed", "失败的试验"),
    "cause": Words("cause", "原因"),
    "count": Words("count", "个数"),
    "numbers": Words("The same in numbers", "同样内容的数字"),
    "option": Words("option", "选项"),
    "objective": Words("objective", "目标"),
    "how": Words(
        "Point at a mark, or focus a chart and press ← →: the same trial is shown in every chart. Esc lets go of it.",
        "用鼠标指向图中的点或线，或选中一张图后按 ← →：所有图里同一个试验会一起标出。按 Esc 取消。",
    ),
    "files": Words(
        "Also in trials.csv and trials.parquet beside this page.",
        "同目录下的 trials.csv 与 trials.parquet 含有同样内容。",
    ),
    "up": Words("to the top", "回到顶部"),
}
_HEADS = {
    "state": Words("state", "状态"),
    "seconds": Words("seconds", "秒"),
    "steps": Words("steps", "步数"),
    "cause": Words("cause", "原因"),
}


def page(told: StudyTold, figures: Sequence[Figure], found: Sequence[Importance]) -> str:
    """The whole page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    env = Environment(
        loader=PackageLoader("danlu.reporting", "."), autoescape=True, undefined=StrictUndefined
    )
    script = svg.style("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    shown = _rows_shown(told)
    left_out = len(told.trials) - len(shown)
    return env.get_template("study.html").render(
        name=clean(told.name),
        version=machine.versions()["danlu"],
        say={**_SAY, "lead": _lead(told)},
        objectives=told.objectives,
        options=[each.name for each in told.space],
        best=[_best(told, trial) for trial in told.front[:50]],
        recipe=clean(told.best),
        facts=[(subject, clean(value)) for subject, value in told.facts],
        figures=[
            {
                "name": figure.name,
                "title": figure.title,
                "says": figure.says,
                "notes": figure.notes,
                "svg": Markup(svg.draw(figure)),  # every text in it is escaped where it is drawn
            }
            for figure in figures
        ],
        importances=found,
        failures=_failures(told),
        heads=_heads(told),
        rows=[_row(told, trial) for trial in shown],
        left_out=Words(
            f"This table shows the best {len(shown):,} of {len(told.trials):,}.",
            f"本表只列出 {len(told.trials):,} 个中最好的 {len(shown):,} 个。",
        )
        if left_out
        else None,
        data=Markup(
            _json(
                {"trials": [_told(told, trial) for trial in told.trials], "words": _script_words()}
            )
        ),
        style=Markup(svg.style("chart.css") + svg.style("page.css")),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def _json(value: Any) -> str:
    """JSON that no HTML parser takes for markup."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _script_words() -> dict[str, dict[str, str]]:
    words = {**_STATES, "trial": _SAY["trial"]}
    return {
        "en": {name: each.en for name, each in words.items()},
        "zh": {name: each.zh for name, each in words.items()},
    }


def _lead(told: StudyTold) -> Words:
    done, pruned, failed, running = (
        told.count(state) for state in ("complete", "pruned", "failed", "running")
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
    count = len(told.trials)
    return Words(f"{count:,} trials: {', '.join(en)}.", f"{count:,} 个试验：{'，'.join(zh)}。")


def _best(told: StudyTold, trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "scores": [number(float(score)) for score in trial.scores or ()],
        "options": [
            short(text_of(trial.values[each.name]), 60) if each.name in trial.values else "–"
            for each in told.space
        ],
    }


def _failures(told: StudyTold) -> list[dict[str, Any]]:
    """Causes, the most frequent first, with the numbers of some trials of each."""
    failed = [
        (clean(trial.cause) or "unknown", trial.number)
        for trial in told.trials
        if trial.state == "failed"
    ]
    told_of = []
    for cause, count in Counter(cause for cause, _ in failed).most_common(30):
        numbers = [str(trial) for other, trial in failed if other == cause]
        told_of.append(
            {
                "cause": short(cause, 300),
                "count": count,
                "trials": ", ".join(numbers[:20]) + (" …" if count > 20 else ""),
            }
        )
    return told_of


def _heads(told: StudyTold) -> list[dict[str, Any]]:
    heads: list[tuple[Words, bool]] = [(_SAY["trial"], False), (_HEADS["state"], False)]
    heads += [(Words(each.metric, each.metric), True) for each in told.objectives]
    heads += [(Words(each.name, each.name), each.kind != "choice") for each in told.space]
    heads += [(_HEADS["seconds"], True), (_HEADS["steps"], True), (_HEADS["cause"], False)]
    return [{"words": words, "number": numeric} for words, numeric in heads]


def _rows_shown(told: StudyTold) -> list[Trial]:
    """All trials in their order, or the best thousand in theirs."""
    if len(told.trials) <= MOST_ROWS:
        return list(told.trials)
    ranked = sorted(told.complete, key=lambda trial: -told.merits(trial)[0])
    placed = {trial.number for trial in ranked}
    rest = [trial for trial in told.trials if trial.number not in placed]
    return [*ranked, *rest][:MOST_ROWS]


def _row(told: StudyTold, trial: Trial) -> dict[str, Any]:
    cells = []
    for place in range(len(told.objectives)):
        cells.append(_cell(told.score(trial, place), True))
    for each in told.space:
        cells.append(
            _cell(trial.values.get(each.name), each.kind != "choice", each.name in trial.values)
        )
    cells += [_cell(round(trial.seconds, 2), True), _cell(trial.steps, True)]
    cells.append(_cell(trial.cause or None, False))
    return {
        "number": trial.number,
        "state": trial.state,
        "state_words": _STATES.get(trial.state, Words(trial.state, trial.state)),
        "cells": cells,
    }


def _cell(value: Any, numeric: bool, there: bool = True) -> dict[str, Any]:
    text = text_of(value) if there and (value is not None or not numeric) else ""
    text = "" if value is None and numeric else text
    shown = short(text, 60)
    sort = value if isinstance(value, int | float) and not isinstance(value, bool) else text
    return {"text": shown, "value": sort, "number": numeric, "full": text if shown != text else ""}


def _told(told: StudyTold, trial: Trial) -> dict[str, Any]:
    """What the script shows of a picked trial."""
    found = [(each.metric, told.score(trial, place)) for place, each in enumerate(told.objectives)]
    scores = [[metric, number(score)] for metric, score in found if score is not None]
    options = [
        [each.name, short(text_of(trial.values[each.name]), 80)]
        for each in told.space
        if each.name in trial.values
    ]
    entry = {"number": trial.number, "state": trial.state, "scores": scores, "options": options}
    return {**entry, "cause": short(clean(trial.cause), 200)} if trial.cause else entry
