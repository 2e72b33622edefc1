"""Answers as a file, and rows from a pipe."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from danlu.errors import DataError
from danlu.reporting.tables import without_formula
from danlu.system.atomic_files import replace_file


def read_lines(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The rows of JSON lines. Raises DataError naming the line that is none."""
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"this line is not JSON: {error}.",
                where=f"stdin line {number:,}",
                hint='one object a line: {"column": value}',
            ) from None
        if not isinstance(row, dict):
            raise DataError(
                "this line is no JSON object.",
                where=f"stdin line {number:,}",
                hint='one object a line: {"column": value}',
            )
        rows.append(row)
    return rows


def flatten(answer: dict[str, Any]) -> dict[str, Any]:
    """One answer as one flat row: {"prediction": ..., "probability of X": ...}."""
    flat: dict[str, Any] = {}
    for key, value in answer.items():
        if key == "probabilities" and isinstance(value, dict):  # of several targets: a dict each
            for name, part in value.items():
                inner = (
                    {f"{name} {of}": p for of, p in part.items()}
                    if isinstance(part, dict)
                    else {name: part}
                )
                flat |= {f"probability of {of}": p for of, p in inner.items()}
        elif isinstance(value, dict):
            flat |= {f"{key} {name}": part for name, part in flatten(value).items()}
        else:
            flat[key] = "|".join(map(str, value)) if isinstance(value, list) else value
    return flat


def write_answers(
    path: Path, answers: Sequence[dict[str, Any]], *, keep_formulas: bool = False
) -> None:
    """Write answers to a .csv, .jsonl or .parquet file, all or nothing. Raises DataError for
    another suffix or an unwritable place.

    In CSV, a text that a spreadsheet would run as a formula gets an apostrophe in front, unless
    `keep_formulas`."""
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        data = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers).encode()
    elif suffix == ".csv":
        rows = [flatten(answer) for answer in answers]
        if not keep_formulas:
            rows = [_without_formulas(row) for row in rows]
        names = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    elif suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([flatten(answer) for answer in answers]), sink)
        data = sink.getvalue().to_pybytes()
    else:
        raise DataError("answers are written as .csv, .jsonl or .parquet.", where=str(path))
    try:
        replace_file(path, data)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror or error}.", where=str(path)) from None


def _without_formulas(row: dict[str, Any]) -> dict[str, Any]:
    return {str(without_formula(name)): without_formula(value) for name, value in row.items()}
