"""The trials of a study as CSV and as Parquet, one row per trial."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

from danlu.reporting.study_data import ReportedTrial, StudyData, clean
from danlu.system.atomic_files import replace_file

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*", re.IGNORECASE)


def columns(study: StudyData) -> dict[str, list[Any]]:
    """The columns by name: number, state, each option, each objective (None where there is no
    score), seconds, steps, cause.

    An option that is a list or a mapping is written as JSON. An objective with the name of an
    option or of another column is called score.NAME.
    """
    fixed = {"number", "state", "seconds", "steps", "cause"}
    options = [dimension.name for dimension in study.space]
    names = [
        objective.metric
        if objective.metric not in {*fixed, *options}
        else f"score.{objective.metric}"
        for objective in study.objectives
    ]
    table: dict[str, list[Any]] = {
        "number": [trial.number for trial in study.trials],
        "state": [trial.state for trial in study.trials],
    }
    for name in options:
        table[name] = _one_type([_cell(trial.values.get(name)) for trial in study.trials])
    for index, name in enumerate(names):
        table[name] = [_score(trial, index) for trial in study.trials]
    table["seconds"] = [float(trial.seconds) for trial in study.trials]
    table["steps"] = [int(trial.steps) for trial in study.trials]
    table["cause"] = [clean(trial.cause) for trial in study.trials]
    return table


def write_tables(folder: Path, study: StudyData) -> None:
    """Write trials.csv and trials.parquet into the folder, each replaced atomically."""
    table = columns(study)
    replace_file(folder / "trials.csv", as_csv(table))
    replace_file(folder / "trials.parquet", as_parquet(table))


def as_csv(table: dict[str, list[Any]]) -> bytes:
    """CSV in UTF-8 with a header; lines end with a line feed, missing values are empty.

    A text that a spreadsheet would run as a formula gets an apostrophe in front (without_formula);
    Parquet keeps it unchanged.

    >>> as_csv({"number": [0, 1], "name": ["sgd", None]}).decode().split()
    ['number,name', '0,sgd', '1,']
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, table))
    for row in zip(*table.values()):
        writer.writerow([csv_cell(value) for value in row])
    return text.getvalue().encode("utf-8")


def as_parquet(table: dict[str, list[Any]]) -> bytes:
    """The same table as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(pa.table({name: pa.array(values) for name, values in table.items()}), sink)
    return sink.getvalue()


def csv_cell(value: object) -> object:
    """A value as CSV holds it: missing ones are empty, and no text is a formula.

    >>> csv_cell("=1+1"), csv_cell(None), csv_cell(True)
    ("'=1+1", '', 'true')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return without_formula(value)


def without_formula(value: object) -> object:
    """A value that no spreadsheet runs: a text that begins like a formula (=, +, -, @, also after
    white space or as a wide character of Chinese and Japanese) gets an apostrophe in front.
    Numbers stay, also those written as text.

    >>> [without_formula(value) for value in ("=1+1", " @SUM(A1)", "-3.5", -3.5, "a=b", None)]
    ["'=1+1", "' @SUM(A1)", '-3.5', -3.5, 'a=b', None]
    """
    if not isinstance(value, str):
        return value
    is_formula = value[:1] in ("\t", "\r", "\n") or value.lstrip()[:1] in tuple("=+-@＝＋－＠")
    return f"'{value}" if is_formula and not _NUMBER.fullmatch(value) else value


def _score(trial: ReportedTrial, objective: int) -> float | None:
    scores = trial.scores or ()
    return (
        float(scores[objective])
        if objective < len(scores) and math.isfinite(scores[objective])
        else None
    )


def _cell(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    return (
        value
        if value is None or isinstance(value, bool | int | float)
        else clean(json.dumps(value, ensure_ascii=False, default=str))
    )


def _one_type(values: list[Any]) -> list[Any]:
    """The values of a column in one type: numbers, booleans, or text where types are mixed."""
    kinds = {
        bool if isinstance(value, bool) else float if isinstance(value, int | float) else str
        for value in values
        if value is not None
    }
    if kinds == {float} and any(isinstance(value, float) for value in values):
        return [None if value is None else float(value) for value in values]
    if len(kinds) < 2:
        return values
    return [
        value if value is None or isinstance(value, str) else json.dumps(value) for value in values
    ]
