"""Answers as files: what a spreadsheet would run is text, unless the caller wants it as it is."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import make
from danlu.cli.answer_files import write_answers

FORMULAS = ['=HYPERLINK("http://x")', "+1+1", "-2+3", "@SUM(A1)", "\t=1", " =1", "＝1", "\r=1"]
HARMLESS = ["yes", "a=b", "-3.5", "+1e5", "丹炉", "", -3.5, 2, None, True]


@pytest.mark.parametrize("value", FORMULAS)
def test_a_formula_in_a_csv_answer_is_text(value: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    answer = {"prediction": value, "probabilities": {value: 0.5}}
    write_answers(path, [answer])
    with path.open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["prediction"] == f"'{value}"
    write_answers(path, [answer], keep_formulas=True)
    with path.open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["prediction"] == value


@pytest.mark.parametrize("value", HARMLESS)
def test_what_is_no_formula_is_written_as_it_is(value: object, tmp_path: Path) -> None:
    for keep in (False, True):
        write_answers(tmp_path / f"{keep}.csv", [{"prediction": value, "b": 1}], keep_formulas=keep)
    assert (tmp_path / "False.csv").read_bytes() == (tmp_path / "True.csv").read_bytes()


def test_danlu_predict_writes_formulas_only_when_told(tmp_path: Path) -> None:
    x = list(range(40))
    make.csv_file(tmp_path / "t.csv", {"x": x, "=1+1": x, "y": ["=2+2", "no"] * 20})
    (tmp_path / "t.yaml").write_text(
        "task: classification\ndata: {source: t.csv, target: y}\nmodel: linear\ntrain: {steps: 2}\n"
    )
    trained = make.command("train", "t.yaml", "--run", "r", "--quiet", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    written = []
    for option in ([], ["--keep-formulas"]):
        done = make.command("predict", "r", "t.csv", "--out", "a.csv", *option, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
            written.append({row["prediction"] for row in csv.DictReader(file)})
    assert all(not value.startswith("=") for value in written[0])
    assert written[1] == {value.removeprefix("'") for value in written[0]}
