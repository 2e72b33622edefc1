"""danlu report and the end of danlu tune: what a study found, as files; and what Optuna's own tools read of it."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import danlu
from danlu.errors import RunError
from danlu.recipe import parse_address
from danlu.search.report import note_study
from danlu.search.study import Study

optuna = pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    (folder / "line.csv").write_text(
        "x,y\n" + "".join(f"{each:.4f},{2 * each + 0.1 * rng.normal():.4f}\n" for each in x)
    )
    return {
        "name": "line",
        "task": "regression",
        "data": {
            "source": str(folder / "line.csv"),
            "target": "y",
            "split": {"name": "random", "validation": 0.2, "test": 0},
        },
        "model": "linear",
        "train": {"steps": 20, "batch_size": 32, "evaluate_every": 10},
        "tune": {
            "space": {
                "optimizer": ["sgd", "momentum"],
                "optimizer.learning_rate": {"low": 0.001, "high": 0.5, "log": True},
                "optimizer.momentum": {"low": 0.5, "high": 0.9, "when": {"optimizer": "momentum"}},
            },
            "objectives": [{"metric": "rmse"}],
            "trials": 9,
            "on": "one_by_one",
        },
    }


@pytest.fixture(scope="module")
def study(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "line"
    danlu.tune(recipe, folder)
    return folder


def test_a_search_ends_with_its_report(study: Path) -> None:
    assert {"report.html", "trials.csv", "trials.parquet", "best.yaml", "study.json"} <= {
        path.name for path in study.iterdir()
    }
    table = pq.read_table(study / "trials.parquet")
    assert table.num_rows == 9 and set(table.column("state").to_pylist()) == {"complete"}
    page = (study / "report.html").read_text("utf-8")
    best = min(table.column("rmse").to_pylist())
    assert f"{best:.5g}" in page and "Parallel coordinates" in page and "learning_rate" in page


def test_the_report_is_written_anew_without_recipe_and_data(study: Path) -> None:
    before = (study / "report.html").read_bytes()
    (study / "report.html").unlink()
    written = danlu.report(study, plots=False)
    assert written[0] == study / "report.html"
    assert written[0].read_bytes() == before


def test_a_study_without_trials_has_a_report(recipe: dict[str, Any], tmp_path: Path) -> None:
    from danlu import registry
    from danlu.recipe import read

    with Study(read(recipe, registry), tmp_path / "s") as begun:
        note_study(begun, "one_by_one")
        (trial,) = begun.take()
        danlu.report(tmp_path / "s", plots=False)  # while another holds it
    page = (tmp_path / "s" / "report.html").read_text("utf-8")
    assert trial.number == 0 and "1 not finished" in page and "No trial has finished" in page


def test_a_folder_without_a_study_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no study in this folder"):
        danlu.report(tmp_path)
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        danlu.report(tmp_path)


def test_no_password_is_noted() -> None:
    for url, noted in [
        ("postgresql://me:se%2Fcret@host:5432/db", "postgresql://me@host:5432/db"),
        ("mysql://a%40b:c@[::1]/db?ssl_ca=%2Fa%26b", "mysql://a%40b@[::1]/db?ssl_ca=%2Fa%26b"),
        ("sqlite:///a.sqlite", "sqlite:///a.sqlite"),
    ]:
        address = parse_address(url)
        assert address.without_password() == noted
        assert dataclasses.replace(address, password=None) == parse_address(noted)


def test_optuna_reads_the_trials_and_their_values(study: Path) -> None:
    read = optuna.load_study(study_name="line", storage=f"sqlite:///{study / 'study.sqlite'}")
    table = pq.read_table(study / "trials.parquet").to_pylist()
    assert [trial.number for trial in read.trials] == list(
        range(9)
    ) and read.direction.name == "MINIMIZE"
    for trial, row in zip(read.trials, table):
        assert trial.state.name == "COMPLETE" and trial.value == row["rmse"]
        assert trial.params["optimizer"] == row["optimizer"]
        # stored by its position within the bounds: a rounding of the last bit
        assert trial.params["optimizer.learning_rate"] == pytest.approx(
            row["optimizer.learning_rate"], rel=1e-12
        )
        assert ("optimizer.momentum" in trial.params) == (row["optimizer"] == "momentum")
        assert len(trial.intermediate_values) == 2
    assert read.best_trial.number == min(table, key=lambda row: row["rmse"])["number"]
    read._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_the_dashboard_of_optuna_opens_the_storage(study: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    storage = optuna.storages.RDBStorage(f"sqlite:///{study / 'study.sqlite'}")
    app = dashboard.wsgi(storage)
    answered: list[str] = []

    def ask(path: str) -> Any:
        about = {
            "REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "x", "SERVER_PORT": "80", "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr, "QUERY_STRING": "",
        }  # fmt: skip
        return json.loads(
            b"".join(app(about, lambda status, heads, exc=None: answered.append(status)))
        )

    studies = ask("/api/studies")["study_summaries"]
    assert [each["study_name"] for each in studies] == ["line"]
    told = ask(f"/api/studies/{studies[0]['study_id']}")
    assert len(told["trials"]) == 9 and all(status.startswith("200") for status in answered)
    storage.engine.dispose()
