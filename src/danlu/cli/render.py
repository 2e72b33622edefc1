"""Results as lines of text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from danlu.errors import escape_controls

if TYPE_CHECKING:
    from danlu.compression.compress import CompressionReport
    from danlu.search.study import TrialRecord
    from danlu.training.learning_rate_range import RangeTest

MOST_LINES = 25  # of a table of named rows; --json shows all of it
WIDEST_BAR = 50  # letters
_MOST_CLASSES = 30  # of a confusion matrix that is printed
_LONGEST_CLASS = 12  # letters of a class in the margin of a confusion matrix


def scores(values: Mapping[str, object], classes: Sequence[object] = ()) -> str:
    """One line per score; a confusion matrix with its classes, true in rows, predicted in columns.

    >>> print(scores({"rows": 30, "accuracy": 0.9, "errors": 3}))
      accuracy  0.9
      errors    3
    """
    shown = {_cell(name): value for name, value in values.items() if name != "rows"}
    width = max((len(name) for name in shown), default=0)
    lines: list[str] = []
    for name, value in shown.items():
        if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
            lines.append(f"  {name} (rows: true, columns: predicted)")
            lines += _confusion_matrix(value, [str(label) for label in classes])
        elif (
            isinstance(value, dict)
            and value
            and all(isinstance(row, dict) for row in value.values())
        ):
            lines += [f"  {name}", *_named_rows(value)]
        else:
            lines.append(f"  {name:<{width}}  {number(value)}")
    return "\n".join(lines)


def _confusion_matrix(rows: list[list[int]], classes: list[str]) -> list[str]:
    if len(rows) > _MOST_CLASSES:
        return [f"    {len(rows)} classes: see --json"]
    names = classes if len(classes) == len(rows) else [str(index) for index in range(len(rows))]
    names = [_cell(name) for name in names]
    short = [
        name if len(name) <= _LONGEST_CLASS else name[: _LONGEST_CLASS - 1] + "…" for name in names
    ]
    width = max(len(f"{count:,}") for row in rows for count in row)
    width = max(width, *(len(name) for name in short)) if len(rows) <= 8 else max(width, 4)
    margin = max(len(name) for name in short)
    return [
        "    " + " " * margin + "".join(f"  {name[:width]:>{width}}" for name in short),
        *(
            "    " + f"{name:<{margin}}" + "".join(f"  {count:>{width},}" for count in row)
            for name, row in zip(short, rows)
        ),
    ]


def _named_rows(rows: dict[str, dict[str, object]]) -> list[str]:
    """One line per named row of numbers, under a heading; of many rows MOST_LINES of them, evenly
    spread, the first and the last among them."""
    columns = list(next(iter(rows.values())))
    if len(rows) > MOST_LINES:
        chosen = {round(line * (len(rows) - 1) / (MOST_LINES - 1)) for line in range(MOST_LINES)}
        rows = {name: row for index, (name, row) in enumerate(rows.items()) if index in chosen}
    cells = [
        ["", *columns],
        *([name, *(number(row[column]) for column in columns)] for name, row in rows.items()),
    ]
    return ["    " + line for line in table(cells).split("\n")]


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells with their columns aligned.

    >>> print(table([["", "steps"], ["adam", "120"]]))
          steps
    adam  120
    """
    shown = [[_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(shown[0]))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip() for row in shown
    )


def _cell(text: str) -> str:
    """A name or value from data, on one line and without a terminal's control characters."""
    return escape_controls(text, one_line=True)


def number(value: object) -> str:
    """One score.

    >>> number(0.123456789), number(12345), number(None)
    ('0.123457', '12,345', 'not defined on these rows')
    """
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    if value is None:
        return "not defined on these rows"
    return json.dumps(value, ensure_ascii=False)


def answer(values: Mapping[str, object]) -> str:
    """One line for the answer to one row: what is predicted, and its probability.

    >>> answer({"prediction": "setosa", "probabilities": {"setosa": 0.98, "other": 0.02}})
    'setosa  0.9800'
    """
    predicted = values["prediction"]
    probabilities = values.get("probabilities", {})
    is_text = isinstance(predicted, str)
    text = _cell(predicted) if is_text else json.dumps(predicted, ensure_ascii=False)
    if (
        isinstance(predicted, list | dict)
        or not isinstance(probabilities, dict)
        or predicted not in probabilities
    ):
        return text
    return f"{text}  {probabilities[predicted]:.4f}"


def learning_rates(test: RangeTest) -> str:
    """A bar per learning rate, as long as its loss is high, and the suggested rate."""
    lowest = min(test.losses)
    highest = min(max(test.losses), 4 * max(lowest, 1e-12))
    lines: list[str] = []
    for rate, loss in list(zip(test.rates, test.losses))[:: max(1, len(test.rates) // 30)]:
        share = (min(loss, highest) - lowest) / max(highest - lowest, 1e-12)
        lines.append(f"{rate:10.2e}  {loss:10.4g}  {'#' * (1 + round(WIDEST_BAR * share))}")
    return "\n".join([*lines, f"suggestion: optimizer.learning_rate={test.suggestion:.2g}"])


def folds(count: int, mean: Mapping[str, float], deviation: Mapping[str, float]) -> str:
    """The validation scores of a cross-validation."""
    width = max(map(len, mean), default=0)
    return "\n".join(
        [
            f"validation scores over {count} folds (mean, standard deviation)",
            *(f"  {name:<{width}}  {mean[name]:.6g}  {deviation[name]:.2g}" for name in mean),
        ]
    )


def trial_counts(trials: Sequence[TrialRecord]) -> str:
    """How many trials a study holds, and how they ended."""
    states = [trial.state for trial in trials]
    counts = ", ".join(
        f"{states.count(state):,} {state}"
        for state in ("complete", "pruned", "failed", "running")
        if state in states
    )
    return f"{len(states):,} trials: {counts}"


def compression(report: CompressionReport) -> str:
    """An artifact before and after its compression, as a table."""
    threads = f"{report.threads} thread{'s' if report.threads > 1 else ''}"
    return f"{report.split} split ({report.rows:,} rows), {threads}\n{table(report.table())}"


def parts(summaries: Mapping[str, str]) -> str:
    """One line per part of a shelf: its name and what it is."""
    width = max((len(name) for name in summaries), default=0)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in summaries.items())


def facts(values: Mapping[str, object]) -> str:
    """One line per fact.

    >>> print(facts({"cores": 2, "versions": {"numpy": "2.0"}}))
    cores: 2
    versions: numpy 2.0
    """
    return "\n".join(
        f"{name}: {', '.join(f'{key} {inner}' for key, inner in value.items())}"
        if isinstance(value, dict)
        else f"{name}: {value}"
        for name, value in values.items()
    )


def lines(paths: Iterable[str]) -> str:
    """One line for each path.

    >>> lines(["a.csv", "b.csv"])
    'a.csv\\nb.csv'
    """
    return "\n".join(map(_cell, paths))


def texts(written: Iterable[str]) -> str:
    """Several generated texts, a line of dashes between them."""
    return "\n----\n".join(written)
