"""Anomalies on series: rows a forecaster misses by, a threshold learnt on rows it was not fitted to, labels that are no input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import danlu
from danlu import registry
from danlu.data.dataset import prepare
from danlu.errors import DataError, RecipeError
from danlu.parts.tasks import anomaly_detection
from danlu.recipe import Part, Recipe
from danlu.terms import Batch, Column

COUNT, BAD = 600, [70, 150, 200, 290, 333, 500, 521, 540, 577]


def signals() -> tuple[np.ndarray, np.ndarray]:
    """Two waves with a little noise; every second bad row is off in the first, the others in the
    second."""
    draw = np.random.default_rng(0)
    place = np.arange(COUNT)
    flow, heat = (
        np.sin(place * 2 * np.pi / each) + 0.05 * draw.normal(size=COUNT) for each in (24, 12)
    )
    flow[BAD[::2]] += 1.0
    heat[BAD[1::2]] -= 1.0
    return flow, heat


def written(path: Path, labels: bool = True) -> Path:
    flow, heat = signals()
    lines = ["time,flow,heat" + ",bad" * labels]
    for place in range(COUNT):
        moment = str(np.datetime64("2024-01-01T00:00") + place * np.timedelta64(1, "h"))
        lines.append(
            f"{moment},{flow[place]:.5f},{heat[place]:.5f}" + f",{int(place in BAD)}" * labels
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def recipe(path: Path, **task: Any) -> Recipe:
    return danlu.read_recipe(
        {
            "task": {"name": "anomaly_detection", "context": 24, **task},
            "data": {
                "source": {"name": "csv", "path": str(path)},
                "target": ["flow", "heat"],
                "split": {"name": "in_order", "validation": 0.2, "test": 0.25},
                "cache": False,
            },
            "model": "linear_forecaster",
            "optimizer": {"name": "adamw", "learning_rate": 0.02},
            "train": {"steps": 150, "threads": 1},
            "watchers": [],
        }
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, danlu.Artifact]:
    home = tmp_path_factory.mktemp("anomalies")
    written(home / "plain.csv", labels=False)
    return home, danlu.train(
        recipe(written(home / "a.csv"), labels="bad", expected=0.01), home / "run", output="quiet"
    )


def test_rows_off_their_course_are_flagged_with_the_variable_that_is(
    trained: tuple[Path, danlu.Artifact],
) -> None:
    home, artifact = trained
    answers = danlu.load(home / "run").predict(
        str(home / "plain.csv")
    )  # labels are not needed to find what they call
    assert len(answers) == COUNT
    assert all(
        answer["prediction"] is None and answer["score"] is None for answer in answers[:24]
    ), "too little of a past"
    flagged = {place for place, answer in enumerate(answers) if answer["prediction"]}
    alone = {place for place in flagged if not any(place - 24 <= bad <= place for bad in BAD)}
    # of 576 rows 1 % may be flagged, and as many again by chance; more are where the past holds an
    # anomaly
    assert set(BAD) <= flagged and len(alone) <= 12
    for number, place in enumerate(BAD):
        assert answers[place]["variable"] == ("heat" if number % 2 else "flow")
        assert answers[place]["score"] > 1 and answers[place]["time"].startswith("2024-01-")
    assert artifact.scores["test"]["anomalies/recall"] == 1.0
    assert artifact.scores["test"]["anomalies/average_precision"] > 0.8
    assert artifact.scores["test"]["mae"] < artifact.scores["baseline"]["repeat_last/mae"]


def test_the_threshold_travels_with_the_artifact(trained: tuple[Path, danlu.Artifact]) -> None:
    home, artifact = trained
    again = danlu.load(home / "run")
    assert (
        again.task.threshold == artifact.task.threshold
        and again.task.spread == artifact.task.spread
    )
    found = danlu.evaluate(again).values
    assert {name: found[name] for name in found} == {
        name: artifact.scores["test"][name] for name in found
    }


def test_known_anomalies_teach_nothing_and_are_no_input(tmp_path: Path) -> None:
    with_labels = prepare(recipe(written(tmp_path / "a.csv"), labels="bad"))
    without = prepare(recipe(written(tmp_path / "b.csv", labels=False)))
    left_out = set(without.splits["train"]) - set(with_labels.splits["train"])
    assert left_out == {place for place in BAD if 24 <= place < 330}
    assert with_labels.examples.input_specs["series"].names == ("flow", "heat")
    assert "bad" not in with_labels.preprocessor.row_schema


def test_each_row_with_a_past_is_judged_once_and_by_its_past_alone(tmp_path: Path) -> None:
    data = prepare(recipe(written(tmp_path / "a.csv", labels=False)))
    assert data.splits["test"].tolist() == list(range(450, 600))
    assert data.splits["validation"].tolist() == list(range(330, 450))
    series, target = data.examples.inputs["series"], data.examples.target
    flow = (signals()[0] - data.task.mean[0]) / data.task.deviation[0]
    ids = data.splits["test"]
    np.testing.assert_allclose(
        series.at(ids)[:, :, 0], [flow[row - 24 : row] for row in ids], atol=1e-4
    )  # five digits in the file
    np.testing.assert_allclose(target.at(ids)[:, 0, 0], flow[ids], atol=1e-4)  # type: ignore[union-attr]


def task_of_two() -> anomaly_detection.AnomalyDetection:
    columns = {name: Column(name, "number", np.arange(5.0)) for name in ("a", "b")}
    return anomaly_detection.build(anomaly_detection.Config(expected=0.25), columns)


def batch_of(target: torch.Tensor, marks: list[int]) -> Batch:
    return Batch({"anomaly": torch.tensor(marks)}, target, torch.arange(len(target)))


def test_the_threshold_is_passed_by_as_many_ordinary_rows_as_expected() -> None:
    task = task_of_two()
    target = torch.zeros(9, 1, 2)
    outputs = torch.tensor(
        [[1.0, 0], [2, 0], [3, 0], [4, 0], [0, 10], [0, 20], [0, 30], [0, 40], [0, 4000]]
    )[:, None]
    marks = [0, -1, 0, 0, 0, 0, 0, 0, 1]  # the last is a known anomaly
    pairs = [
        (outputs[:4], batch_of(target[:4], marks[:4])),
        (outputs[4:], batch_of(target[4:], marks[4:])),
    ]
    task.calibrate(iter(pairs))
    assert task.spread == pytest.approx([np.sqrt(30 / 8), 10 * np.sqrt(30 / 8)], rel=1e-6)
    scores = task.anomaly_scores(outputs, target)
    assert int((scores[:8] > task.threshold).sum()) == 2 and scores[8] > task.threshold
    metric = registry.build_metric(
        Part("anomalies", registry.config("metrics", "anomalies")()), task
    )
    found = metric.score(metric.count(outputs, batch_of(target, marks)))
    assert found["anomalies/flagged"] == pytest.approx(3 / 9)
    assert found["anomalies/precision"] == pytest.approx(1 / 3) and found["anomalies/recall"] == 1.0
    assert found["anomalies/average_precision"] == 1.0


def test_without_labels_or_threshold_nothing_is_claimed() -> None:
    task = task_of_two()
    metric = registry.build_metric(
        Part("anomalies", registry.config("metrics", "anomalies")()), task
    )
    found = metric.score(
        metric.count(torch.randn(6, 1, 2), batch_of(torch.randn(6, 1, 2), [-1] * 6))
    )
    assert found == {"anomalies/average_precision": None}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1, 2] * 9, r"only 1 \(anomaly\) and 0 \(none\) are labels"),
        (["fine", "broken", "fine"] * 9, r"'broken' is neither|'fine' is neither"),
    ],
)
def test_labels_that_say_neither_are_refused(tmp_path: Path, labels: list[Any], said: str) -> None:
    rows = [f"{place},{place % 7},{label}" for place, label in enumerate(labels)]
    (tmp_path / "a.csv").write_text("\n".join(["t,flow,bad", *rows]) + "\n")
    wrong = danlu.read_recipe(
        {
            "task": {"name": "anomaly_detection", "context": 2, "labels": "bad", "time": "t"},
            "data": {
                "source": {"name": "csv", "path": str(tmp_path / "a.csv")},
                "target": "flow",
                "cache": False,
            },
            "model": "linear_forecaster",
        }
    )
    with pytest.raises(DataError, match=said):
        prepare(wrong)


def test_the_metric_of_anomalies_fits_no_forecast() -> None:
    from danlu.parts.tasks import forecasting

    task = forecasting.build(forecasting.Config(), {"a": Column("a", "number", np.arange(5.0))})
    with pytest.raises(RecipeError, match="belongs to task: anomaly_detection"):
        registry.build_metric(Part("anomalies", registry.config("metrics", "anomalies")()), task)


# --- by reconstruction ------------------------------------------------------------------------------------------------------


def by_reconstruction(path: Path, **task: Any) -> Recipe:
    return danlu.read_recipe(
        {
            "task": {"name": "anomaly_detection", "by": "reconstruction", "context": 24, **task},
            "data": {
                "source": {"name": "csv", "path": str(path)},
                "target": ["flow", "heat"],
                "split": {"name": "in_order", "validation": 0.2, "test": 0.25},
                "cache": False,
            },
            "train": {"steps": 400, "threads": 1},
            "watchers": [],
        },
        overrides=["model.code=4", "model.hidden=[32]"],
    )


def test_an_autoencoder_is_what_reconstruction_takes(tmp_path: Path) -> None:
    read = by_reconstruction(written(tmp_path / "a.csv"))
    assert read.model.name == "autoencoder"
    wrong = read.as_dict() | {"model": "linear_forecaster"}
    with pytest.raises(
        danlu.errors.PartError, match=r"one output a moment(?s:.*)models that fit: .*autoencoder"
    ):
        prepare(danlu.read_recipe(wrong))


def test_a_window_is_its_own_target_and_holds_no_known_anomaly_in_training(tmp_path: Path) -> None:
    data = prepare(by_reconstruction(written(tmp_path / "a.csv"), labels="bad"))
    series, target = data.examples.inputs["series"], data.examples.target
    for split, ids in data.splits.items():
        np.testing.assert_array_equal(series.at(ids), target.at(ids))  # type: ignore[union-attr]
        if split == "train":
            assert not any(row - 24 < bad <= row for row in ids for bad in BAD)
    flow = (signals()[0] - data.task.mean[0]) / data.task.deviation[0]
    ids = data.splits["test"]
    assert ids.tolist() == list(range(450, 600))
    np.testing.assert_allclose(
        series.at(ids)[:, :, 0], [flow[row - 23 : row + 1] for row in ids], atol=1e-4
    )  # five digits in the file
    assert data.splits["train"].min() == 23


def test_rows_that_the_code_cannot_hold_are_flagged(tmp_path: Path) -> None:
    recipe = by_reconstruction(written(tmp_path / "a.csv"), labels="bad", expected=0.01)
    artifact = danlu.train(recipe, tmp_path / "run", output="quiet")
    written(tmp_path / "plain.csv", labels=False)
    answers = danlu.load(tmp_path / "run").predict(str(tmp_path / "plain.csv"))
    assert len(answers) == COUNT
    assert [answer["score"] is None for answer in answers] == [place < 23 for place in range(COUNT)]
    flagged = {place for place, answer in enumerate(answers) if answer["prediction"]}
    assert set(BAD) <= flagged
    for number, place in enumerate(BAD):
        assert answers[place]["variable"] == ("heat" if number % 2 else "flow")
    assert artifact.scores["test"]["anomalies/recall"] == 1.0
    assert artifact.scores["test"]["anomalies/average_precision"] > 0.8
    assert artifact.scores["test"]["mae"] < artifact.scores["baseline"]["mean/mae"]
