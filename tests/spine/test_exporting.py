"""Exports: every transform inside the graph, answers equal to the artifact's, and what an opened export refuses."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import danlu
from danlu.errors import ArtifactError, DanluError, DataError

pytest.importorskip("onnxruntime", reason="pip install 'danlu[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'danlu[onnx]'")

ROWS = 400


def write_table(path: Path) -> None:
    """Every kind of column, with gaps, rare names, flags, long tails, and dates before 1970."""
    random = np.random.default_rng(5)
    rows = []
    for number in range(ROWS):
        age, income = random.normal(40, 12), np.exp(random.normal(8, 2))
        town = random.choice(["Paris", "Roma", "Köln", "北京"]) if number % 40 else f"village {number}"
        moment = np.datetime64("1961-03-01T00:00:00") + np.timedelta64(int(random.integers(0, 2_000_000_000)), "s")
        rows.append(
            {
                "age": "" if number % 11 == 3 else f"{age:.3f}",
                "income": f"{income:.4f}",
                "score": f"{random.integers(0, 12)}",
                "town": "?" if number % 17 == 5 else town,
                "size": random.choice(["small", "medium", "large"]),
                "member": "" if number % 13 == 2 else random.choice(["true", "false"]),
                "when": "" if number % 19 == 4 else str(moment).replace("T", " "),
                "label": "yes" if age + 5 * (town == "Roma") + random.normal(0, 3) > 41 else "no",
            }
        )
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


COLUMNS = {
    "usual": {},
    "quantile": {
        "age": {"transforms": ["impute", {"name": "scale", "by": "quantile"}]},
        "income": {"transforms": ["log", {"name": "scale", "by": "robust"}]},
        "score": {"transforms": [{"name": "scale", "by": "quantile", "distribution": "uniform"}]},
        "town": {"transforms": [{"name": "impute", "strategy": "constant", "value": "nowhere"}, "one_hot"]},
        "size": {"transforms": [{"name": "ordinal", "order": ["small", "medium", "large"]}, "scale"]},
        "when": {
            "transforms": [
                {"name": "date_parts", "parts": ["year", "month", "day", "day_of_year", "weekday", "hour", "minute", "second", "days"]},
                "impute",
                "scale",
            ]
        },
    },
    "pieces": {
        "age": {"transforms": [{"name": "impute", "strategy": "mean", "indicator": True}, {"name": "piecewise_linear", "bins": 6}]},
        "income": {"transforms": [{"name": "clip_outliers", "by": "interquartile_range"}, {"name": "scale", "by": "min_max"}]},
        "score": {"transforms": [{"name": "log", "when": "always"}, "clip_outliers", "scale"]},
        "town": {"transforms": [{"name": "group_rare", "minimum": 5}, "encode"]},
        "member": {"transforms": [{"name": "impute", "strategy": "most_frequent"}, "boolean_to_number"]},
        "when": {
            "transforms": [
                {"name": "impute", "strategy": "median"},
                {"name": "date_parts", "parts": ["month", "day_of_year", "hour"], "cyclic": False},
                "scale",
            ]
        },
    },
}
STRANGE = [  # what no training row held
    {"age": None, "income": 0.0, "score": -3, "town": "Atlantis", "size": "large", "member": None, "when": None},
    {"age": "1,234.5", "income": "1e7", "score": "4", "town": " Roma ", "size": "small", "member": "yes", "when": "1899-12-31 23:59:59"},
    {"age": 1e9, "income": 1e-9, "score": 11.5, "town": None, "size": "medium", "member": False, "when": "2096-02-29T12:00:00"},
    {"age": "NA", "income": 5, "score": 5, "town": "北京", "size": "large", "member": True, "when": "1 March 2000"},
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    write_table(folder / "people.csv")
    return folder


def trained(home: Path, name: str, model: Any = "mlp") -> Any:
    run = home / name
    if not (run / "artifact").is_dir():
        danlu.train(
            {
                "task": "classification",
                "data": {"source": str(home / "people.csv"), "target": "label", "checks": "off", "cache": False, "columns": COLUMNS[name]},
                "model": model,
                "train": {"steps": 30, "threads": 1, "seed": 2},
            },
            run=run,
        )
    return danlu.load(run)


@pytest.mark.parametrize("name", COLUMNS)
def test_a_table_is_answered_as_by_its_artifact_with_the_transforms_in_the_graph(name: str, home: Path) -> None:
    artifact = trained(home, name)
    export = danlu.export(artifact, "onnx", home / f"{name}.onnx", rows=str(home / "people.csv"), least_rows=ROWS)
    assert set(export.entering) == set(artifact.inputs), "every column enters the graph raw"
    assert not any(chain.steps for chain in export.entering.values())
    assert export.about["proof"]["rows"] == ROWS
    assert export.about["proof"]["largest_difference"] < 1e-5  # float32 sums of a small network
    wanted, found = artifact.predict(STRANGE), export.predict(STRANGE)
    for one, other in zip(wanted, found, strict=True):
        assert one["prediction"] == other["prediction"]
        assert list(one["probabilities"]) == list(other["probabilities"])
        np.testing.assert_allclose(list(one["probabilities"].values()), list(other["probabilities"].values()), atol=1e-5)


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, *sys.argv[1:]]))
