"""Forecasting: windows that keep to their series, splits that leak nothing, scores and answers in time, models of series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import danlu
from danlu import registry
from danlu.data import folds
from danlu.data.dataset import Dataset, prepare
from danlu.data.examples import Windows
from danlu.errors import DataError, PartError, RecipeError
from danlu.parts.models._temporal_convolution import TemporalStack, layers_to_see
from danlu.parts.tasks import forecasting
from danlu.recipe import Part, Recipe
from danlu.series import naive_forecasts
from danlu.series.time_step import TimeStep
from danlu.series.windows import forward_fill, window_origins
from danlu.terms import Batch, Column, InputSpec, OutputSpec, Table

HOUR = np.timedelta64(1, "h")
BEGIN = np.datetime64("2024-03-01T00:00")


def written(path: Path, columns: dict[str, Sequence[Any]], order: np.ndarray | None = None) -> Path:
    """The columns as a CSV file, its rows in `order`; None is an empty cell."""
    rows = list(zip(*columns.values(), strict=True))
    rows = rows if order is None else [rows[row] for row in order]
    cells = [",".join("" if each is None else str(each) for each in row) for row in rows]
    path.write_text("\n".join([",".join(columns), *cells]) + "\n", "utf-8")
    return path


def hours(count: int, without: Sequence[int] = ()) -> list[str]:
    return [
        str(BEGIN + place * HOUR).replace("T", " ")
        for place in range(count)
        if place not in without
    ]


def recipe(
    path: Path, target: Any = "load", task: dict[str, Any] | None = None, **more: Any
) -> Recipe:
    data = {
        "source": {"name": "csv", "path": str(path)},
        "target": target,
        "split": more.pop("split", "in_order"),
        "cache": False,
        **more.pop("data", {}),
    }
    said = {
        "task": {"name": "forecasting", "horizon": 4, "context": 6, **(task or {})},
        "data": data,
        "model": "linear_forecaster",
    }
    return danlu.read_recipe({**said, **more})


def windows_of(data: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """(past, ahead) of a split's windows, the targets of them only, in the units of the data."""
    series, target = data.examples.inputs["series"], data.examples.target
    assert isinstance(series, Windows) and isinstance(target, Windows)
    ids, count = data.splits[split], len(data.task.variables)
    return tuple(
        each * data.task.deviation + data.task.mean
        for each in (series.at(ids)[..., :count], target.at(ids))
    )  # type: ignore[return-value]


def steps_apart(windows: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The differences along past and ahead together."""
    return np.diff(np.concatenate(windows, axis=1), axis=1)


# --- which windows there are


def test_every_window_whose_moments_ahead_lie_in_the_split_is_counted_once(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", {"time": hours(100), "load": range(100)})
    data = prepare(
        recipe(path, split={"name": "in_order", "train": 50, "validation": 20, "test": 20})
    )
    for split, begin, end in (("train", 0, 50), ("validation", 50, 70), ("test", 70, 90)):
        past, ahead = windows_of(data, split)
        first = (
            begin + 6 if split == "train" else begin
        )  # the past of a test window may lie before the border
        np.testing.assert_allclose(
            ahead[:, 0, 0], np.arange(first, end - 4 + 1), atol=1e-3
        )  # float32 on the scale of the model
        np.testing.assert_allclose(past[:, -1, 0], ahead[:, 0, 0] - 1, atol=1e-3)
        np.testing.assert_allclose(steps_apart((past, ahead)), 1, atol=1e-3)


def test_what_comes_after_the_training_rows_changes_nothing_of_training(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=120)
    found = []
    for name, factor in (("a.csv", 1.0), ("b.csv", 1000.0)):
        changed = np.concatenate([values[:96], factor * values[96:]])
        data = prepare(
            recipe(
                written(tmp_path / name, {"time": hours(120), "load": changed, "wind": changed**2})
            )
        )
        ids = data.splits["train"]
        fields = [data.examples.inputs["series"].at(ids), data.examples.target.at(ids)]  # type: ignore[union-attr]
        found.append((fields, data.task.mean, data.task.deviation, data.task.naive_errors))
    (one, *scales), (other, *scales_of_other) = found
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(scales, scales_of_other, strict=True))


def two_series(tmp_path: Path, seed: int | None = None) -> Path:
    """Series a counts from 0, b from 1000; b lacks its hour 30; the rows are shuffled where there
    is a seed."""
    times = [*hours(60), *hours(60, without=[30])]
    load = [*range(60), *(1000 + place for place in range(60) if place != 30)]
    order = None if seed is None else np.random.default_rng(seed).permutation(len(times))
    return written(
        tmp_path / f"{seed}.csv",
        {"time": times, "plant": ["a"] * 60 + ["b"] * 59, "load": load},
        order,
    )


def test_windows_cross_neither_series_nor_gaps(tmp_path: Path) -> None:
    split = {"name": "in_order", "within": "plant", "validation": 0.2, "test": 0.2}
    data = prepare(recipe(two_series(tmp_path), task={"series": "plant"}, split=split))
    for part in ("train", "validation", "test"):
        np.testing.assert_allclose(steps_apart(windows_of(data, part)), 1, atol=1e-2)
    train = windows_of(data, "train")[1][:, 0, 0]
    assert {round(float(each)) for each in train} == {*range(6, 33), *range(1006, 1027)}
    assert any(
        "gap(s)" in each and "2024-03-02T05:00" in each and "plant" not in each
        for each in data.notices
    )


def test_gaps_can_be_passed_over(tmp_path: Path) -> None:
    split = {"name": "in_order", "within": "plant"}
    data = prepare(
        recipe(two_series(tmp_path), task={"series": "plant", "gaps": "ignore"}, split=split)
    )
    assert set(np.unique(steps_apart(windows_of(data, "train")).round())) == {1, 2}


def test_the_order_of_the_rows_in_the_file_is_no_matter(tmp_path: Path) -> None:
    one, other = (
        prepare(recipe(two_series(tmp_path, seed), task={"series": "plant"}, split="in_order"))
        for seed in (None, 3)
    )
    for split in ("train", "validation", "test"):
        for a, b in zip(windows_of(one, split), windows_of(other, split), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_series_that_no_training_row_shows_is_told(tmp_path: Path) -> None:
    data = prepare(
        recipe(
            two_series(tmp_path),
            task={"series": "plant"},
            split={"name": "in_order", "train": 60, "validation": 29, "test": 30},
        )
    )
    assert any(
        "1 series of the test split stand in no training row" in each for each in data.notices
    )


def test_a_training_window_of_a_stride_may_begin_at_any_moment_it_is_moved_to(
    tmp_path: Path,
) -> None:
    split = {"name": "in_order", "within": "plant"}
    data = prepare(recipe(two_series(tmp_path), task={"series": "plant", "stride": 3}, split=split))
    dense = prepare(recipe(two_series(tmp_path), task={"series": "plant"}, split=split))
    moved = np.concatenate([data.splits["train"] + phase for phase in range(data.examples.phase)])
    assert data.examples.phase == 3 and len(np.unique(moved)) == len(moved)
    assert set(moved) <= set(dense.splits["train"])
    assert len(data.splits["train"]) == pytest.approx(
        len(dense.splits["train"]) / 3, abs=3
    )  # less at the ends of three runs


def test_the_context_follows_from_the_horizon_and_the_season(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.csv", {"time": hours(500), "load": np.random.default_rng(0).normal(size=500)}
    )
    for horizon, context in (
        (4, 48),
        (24, 72),
        (300, 50),
    ):  # two days; three horizons; half of what 400 training rows leave
        assert prepare(
            recipe(
                path,
                task={"horizon": horizon, "context": None},
                split={"name": "in_order", "test": 0, "validation": 0},
            )
        ).task.context == (100 if horizon == 300 else context)


# --- what a window holds


def test_missing_targets_are_not_asked_for_and_the_past_holds_the_last_value(
    tmp_path: Path,
) -> None:
    load: list[Any] = [float(place) for place in range(80)]
    load[20] = load[21] = None
    data = prepare(
        recipe(
            written(tmp_path / "a.csv", {"time": hours(80), "load": load}),
            data={"missing_target": "drop"},
        )
    )
    past, ahead = windows_of(data, "train")
    first = int(np.flatnonzero(data.splits["train"] == 19)[0])
    assert np.isnan(ahead[first, :2, 0]).all() and not np.isnan(ahead[first, 2:]).any()
    after = int(np.flatnonzero(data.splits["train"] == 23)[0])
    np.testing.assert_allclose(past[after, :, 0], [18, 19, 19, 19, 22, 23], atol=1e-3)


def test_other_columns_tell_the_past_known_ones_the_future_and_standing_ones_stand_beside(
    tmp_path: Path,
) -> None:
    count = 60
    columns = {
        "time": [*hours(count), *hours(count)],
        "plant": ["a"] * count + ["b"] * count,
        "price": [*np.sin(np.arange(count)), *np.cos(np.arange(count))],
        "wind": np.random.default_rng(0).normal(size=2 * count),
        "size": [3.5] * count + [7.5] * count,
        "load": np.random.default_rng(1).normal(size=2 * count),
    }
    task = {"series": "plant", "known": ["price"], "calendar": ["hour"]}
    split = {"name": "in_order", "within": "plant"}
    data = prepare(recipe(written(tmp_path / "a.csv", columns), task=task, split=split))
    described = data.examples.input_specs
    assert described["series"].names == (
        "load",
        "wind",
        "price",
        "time hour sine",
        "time hour cosine",
    )
    assert described["future"].names == (
        "price",
        "time hour sine",
        "time hour cosine",
    ) and described["future"].shape == (4, 3)
    assert set(described["numbers"].names) == {"plant=a", "plant=b", "size"}
    ids = data.splits["test"]
    series, future = (data.examples.inputs[name] for name in ("series", "future"))
    assert isinstance(series, Windows) and isinstance(future, Windows)
    np.testing.assert_array_equal(
        series.at(ids + 4)[:, -4:, 2:], future.at(ids)
    )  # ahead of now is the past of later


# --- what cannot be


@pytest.mark.parametrize(
    ("columns", "task", "said"),
    [
        (
            {"time": [*hours(40), *hours(40)], "load": range(80)},
            {},
            r"is in two rows .*40 such pair.*\n.*task\.series",
        ),
        (
            {"time": [*hours(40), None], "load": range(41)},
            {},
            r"row 42, column time: 1 row\(s\) have no time",
        ),
        (
            {"time": [str(BEGIN + n**2 * HOUR) for n in range(40)], "load": range(40)},
            {},
            r"have no regular step.*\n.*gaps: ignore",
        ),
        (
            {"time": hours(40), "load": range(40)},
            {"horizon": 20},
            r"validation split \(4 rows\) has no window of 6 \+ 20.*\n.*lower task\.context",
        ),
        (
            {"time": hours(40), "then": hours(40), "load": range(40)},
            {},
            r"2 date-time columns.*\n.*task\.time",
        ),
        ({"time": hours(40), "load": [5] * 40}, {}, r"is 5 in all 32 training rows"),
        (
            {"time": hours(40), "load": range(40)},
            {"known": ["prise"]},
            r"task\.known names the column prise",
        ),
    ],
    ids=["twice", "no time", "no step", "short", "two times", "constant", "unknown"],
)
def test_data_that_allows_no_forecast_is_refused_with_the_remedy(
    tmp_path: Path, columns: dict[str, Any], task: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        prepare(recipe(written(tmp_path / "a.csv", columns), task=task))


def test_a_loss_without_quantiles_is_refused_for_a_task_of_quantiles_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    targets = {"load": Column("load", "number", np.arange(9.0))}
    with_them = forecasting.build(forecasting.Config(quantiles=[0.1, 0.5]), targets)
    with pytest.raises(RecipeError, match=r"trains one number per step.*\n.*loss: quantile"):
        registry.build_loss(Part("mse", registry.config("losses", "mse")()), with_them)
    with pytest.raises(RecipeError, match=r"task\.quantiles names none"):
        registry.build_loss(
            Part("quantile", registry.config("losses", "quantile")()),
            forecasting.build(forecasting.Config(), targets),
        )
    for wrong in ([0.9, 0.5], [0.1, 0.9], [0.0, 0.5]):
        with pytest.raises(ValueError, match=r"0\.5 among them"):
            forecasting.Config(quantiles=wrong)


# --- steps and times


def moments(*said: str) -> np.ndarray:
    return np.array(said, dtype="M8[us]").astype(np.int64)


@pytest.mark.parametrize(
    ("said", "unit", "season", "ahead"),
    [
        (
            ["2024-01-01T00", "2024-01-01T01", "2024-01-01T02"],
            "microseconds",
            24,
            ["2024-01-01T03", "2024-01-01T04"],
        ),
        (
            ["2024-01-01T00:00", "2024-01-01T00:15", "2024-01-01T00:30"],
            "microseconds",
            96,
            ["2024-01-01T00:45", "2024-01-01T01:00"],
        ),
        (
            ["2024-02-27", "2024-02-28", "2024-02-29"],
            "microseconds",
            7,
            ["2024-03-01", "2024-03-02"],
        ),
        (["2023-10-15", "2023-11-15", "2023-12-15"], "months", 12, ["2024-01-15", "2024-02-15"]),
        (["2023-11-30", "2023-12-31", "2024-01-31"], "months", 12, ["2024-02-29", "2024-03-31"]),
        (["2023-03-31", "2023-06-30", "2023-09-30"], "months", 4, ["2023-12-31", "2024-03-31"]),
    ],
)
def test_times_go_on_by_their_own_step(
    said: list[str], unit: str, season: int, ahead: list[str]
) -> None:
    table = Table(
        {
            "time": Column("time", "datetime", moments(*said)),
            "x": Column("x", "number", np.arange(3.0)),
        },
        "a.csv",
    )
    sorted_ = forecasting.recast(forecasting.Config(), table)
    assert sorted_.continues is not None and sorted_.continues.tolist() == [True, True, False]
    from danlu.series.time_step import infer_step

    step = infer_step(table.columns["time"], np.array([True, True, False]))
    assert step is not None and (step.unit, step.season) == (unit, season)
    np.testing.assert_array_equal(step.after(moments(said[-1]), 2)[0], moments(*ahead))


def test_numbers_that_are_no_exact_multiples_make_a_step() -> None:
    times = np.arange(50) * 0.1
    table = Table({"t": Column("t", "number", times), "x": Column("x", "number", times)}, "a.csv")
    continues = forecasting.recast(forecasting.Config(time="t"), table).continues
    assert continues is not None and continues[:-1].all()


# --- answers


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, danlu.Artifact]:
    home = tmp_path_factory.mktemp("forecast")
    draw = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {"time": [], "plant": [], "price": [], "load": []}
    for plant, level in (("süd", 100.0), ("nord", 5.0)):
        price = (draw.random(300) < 0.2).astype(int)
        wave = level * (1 + 0.3 * np.sin(np.arange(300) * 2 * np.pi / 24) + 0.5 * price)
        columns["time"] += hours(300)
        columns["plant"] += [plant] * 300
        columns["price"] += price.tolist()
        columns["load"] += wave.tolist()
    path = written(home / "past.csv", columns, draw.permutation(600))
    ahead = {
        "time": hours(304)[300:] * 2,
        "plant": ["süd"] * 4 + ["nord"] * 4,
        "price": [0, 1, 0, 0] * 2,
        "load": [None] * 8,
    }
    written(
        home / "ahead.csv",
        {name: [*columns[name], *ahead[name]] for name in columns},
        draw.permutation(608),
    )
    task = {"series": "plant", "known": ["price"], "quantiles": [0.1, 0.5, 0.9], "context": 48}
    said = recipe(
        path, task=task, split={"name": "in_order", "within": "plant"}, loss="quantile",
        metrics=["mse", "mase", "smape", "pinball", "coverage", "by_step"], train={"steps": 200, "threads": 1},
        optimizer={"name": "adamw", "learning_rate": 0.02},
        watchers=[],
    )  # fmt: skip
    return home, danlu.train(said, home / "run", output="quiet")


def test_answers_go_on_in_time_with_each_series_in_its_own_units(
    trained: tuple[Path, danlu.Artifact],
) -> None:
    home, _ = trained
    answers = danlu.load(home / "run").predict(str(home / "ahead.csv"))
    assert {answer["series"] for answer in answers} == {"süd", "nord"}
    for answer in answers:
        assert answer["times"] == [
            "2024-03-13T12:00:00",
            "2024-03-13T13:00:00",
            "2024-03-13T14:00:00",
            "2024-03-13T15:00:00",
        ]
        level = 100.0 if answer["series"] == "süd" else 5.0
        expected = level * (
            1 + 0.3 * np.sin(np.arange(300, 304) * 2 * np.pi / 24) + 0.5 * np.array([0, 1, 0, 0])
        )
        # 200 steps of a linear model learn wave and price to a tenth of the level; without the
        # price the second would miss by half
        np.testing.assert_allclose(answer["prediction"], expected, atol=0.2 * level)
        low, middle, high = (np.array(answer["quantiles"][each]) for each in ("0.1", "0.5", "0.9"))
        assert (middle == answer["prediction"]).all() and (low < high).mean() > 0.5


def test_a_forecast_without_what_is_known_ahead_is_refused(
    trained: tuple[Path, danlu.Artifact],
) -> None:
    home, _ = trained
    with pytest.raises(
        DataError,
        match=r"price must be in the rows of the 4 moments ahead, and 0 rows follow.*\n.*targets left empty",
    ):
        danlu.load(home / "run").predict(str(home / "past.csv"))
    with pytest.raises(DataError, match=r"needs 48 moments in a row, and there are 3"):
        danlu.load(home / "run").predict(
            [{"time": each, "plant": "nord", "price": 0, "load": 1.0} for each in hours(3)]
        )


def test_the_naive_forecasts_stand_beside_the_model_and_are_beaten(
    trained: tuple[Path, danlu.Artifact],
) -> None:
    home, artifact = trained
    guess, test = artifact.scores["baseline"], artifact.scores["test"]
    assert {"seasonal_naive/mse", "repeat_last/mse", "mean/mse"} <= set(guess)
    assert test["mse"] < 0.5 * min(guess["seasonal_naive/mse"], guess["repeat_last/mse"])
    assert list(test["by_step"]) == ["1", "2", "3", "4"] and test["rows"] == 2 * (30 - 4 + 1)
    assert danlu.evaluate(danlu.load(home / "run")).values["mse"] == test["mse"]


# --- scores


def scored(name: str, outputs: np.ndarray, target: np.ndarray, **options: Any) -> Any:
    columns = {
        "a": Column("a", "number", np.array([0.0, 10.0])),
        "b": Column("b", "number", np.array([2.0, 4.0])),
    }
    task = forecasting.build(
        forecasting.Config(
            horizon=2, **({"quantiles": options.pop("quantiles")} if "quantiles" in options else {})
        ),
        columns,
    )
    task.naive_errors = [0.5, 2.0]
    metric = registry.build_metric(Part(name, registry.config("metrics", name)(**options)), task)
    half = len(outputs) // 2
    totals: dict[str, Any] = {}
    for rows in (
        slice(0, half),
        slice(half, None),
    ):  # in two batches: what is added must not depend on the cut
        batch = Batch(
            {}, torch.tensor(target[rows], dtype=torch.float32), torch.arange(len(target[rows]))
        )
        for key, value in metric.count(
            torch.tensor(outputs[rows], dtype=torch.float32), batch
        ).items():
            totals[key] = totals.get(key, 0) + value
    return metric.score(totals)


def test_scores_count_what_is_asked_for_and_nothing_else() -> None:
    draw = np.random.default_rng(0)
    outputs, target = draw.normal(size=(5, 2, 2)), draw.normal(size=(5, 2, 2))
    target[1, 0, 0] = target[3, :, 1] = np.nan
    wrong = outputs - target
    a, b = (np.abs(wrong[..., column]) for column in (0, 1))
    near = {"rel": 1e-5}  # what float32 outputs keep
    assert scored("mae", outputs, target)["mae"] == pytest.approx(
        (np.nanmean(a) + np.nanmean(b)) / 2, **near
    )
    assert scored("mse", outputs, target)["b/mse"] == pytest.approx(np.nanmean(b**2), **near)
    in_units = scored(
        "mae", outputs, target, units="data"
    )  # deviations of the training rows: 5 and 1
    assert in_units["a/mae_in_units"] == pytest.approx(5 * np.nanmean(a), **near)
    assert scored("mase", outputs, target)["mase"] == pytest.approx(
        (np.nanmean(a) / 0.5 + np.nanmean(b) / 2) / 2, **near
    )
    given, truth = outputs * [5, 1] + [5, 3], target * [5, 1] + [5, 3]
    shares = 200 * np.abs(given - truth) / (np.abs(given) + np.abs(truth))
    assert scored("smape", outputs, target)["smape"] == pytest.approx(
        np.nanmean(shares, axis=(0, 1)).mean(), **near
    )
    by_step = scored("by_step", outputs, target)["by_step"]
    assert by_step["2"]["mae"] == pytest.approx(np.nanmean(np.abs(wrong[:, 1])), **near)


def test_quantiles_are_scored_by_what_they_promise() -> None:
    target = np.random.default_rng(1).normal(size=(4000, 2, 2))
    levels = np.quantile(target, [0.25, 0.5, 0.9])
    outputs = np.broadcast_to(np.tile(levels, 2), (4000, 2, 6))
    found = scored("coverage", outputs, target, quantiles=[0.25, 0.5, 0.9])
    assert found["coverage_error"] < 2e-4 and found["q0.25/coverage"] == pytest.approx(
        0.25, abs=2e-4
    )  # a few ties of 16,000
    best = scored("pinball", outputs, target, quantiles=[0.25, 0.5, 0.9])
    for place in range(6):
        other = outputs.copy()
        other[..., place] += 0.2
        assert (
            scored("pinball", other, target, quantiles=[0.25, 0.5, 0.9])["pinball"]
            > best["pinball"]
        )


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "quantile"])
def test_a_loss_of_steps_neither_sums_nor_moves_what_is_not_asked(name: str) -> None:
    quantiles = [0.1, 0.5] if name == "quantile" else []
    task = forecasting.build(
        forecasting.Config(horizon=3, quantiles=quantiles),
        {"a": Column("a", "number", np.arange(9.0))},
    )
    loss = registry.build_loss(Part(name, registry.config("losses", name)()), task)
    target = torch.randn(4, 3, 1)
    target[0, 1] = target[2] = float("nan")
    outputs = torch.randn(4, 3, task.output.size, requires_grad=True)
    total, count = loss(outputs, Batch({}, target, torch.arange(4)))
    total.backward()
    assert float(count) == 12 - 4 and outputs.grad is not None
    asked = (~target.isnan()).expand_as(outputs)
    assert (outputs.grad[~asked] == 0).all() and (outputs.grad[asked] != 0).all()
    there = target[[1, 3]]
    alone, rows = loss(outputs.detach()[[1, 3]], Batch({}, there, torch.arange(2)))
    first, of_first = loss(outputs.detach()[[0]], Batch({}, target[[0]], torch.arange(1)))
    assert (
        float(alone + first) == pytest.approx(float(total.detach()), rel=1e-6)
        and float(rows + of_first) == 8
    )  # float32 sums


def test_naive_forecasts_repeat_the_season_the_last_value_and_the_mean() -> None:
    values = np.arange(20, dtype=np.float32)[:, None]
    first = np.array([0] * 12 + [12] * 8)
    guesses = naive_forecasts.naive_forecasts(values, first, 3, 5, np.array([7.0]))
    at = np.array([10, 13])
    assert guesses["seasonal_naive"](at)[0, :, 0].tolist() == [8, 9, 10, 8, 9]
    assert guesses["seasonal_naive"](at)[1, :, 0].tolist() == [13, 12, 13, 13, 12], (
        "before the run began the last value stands in"
    )
    assert (
        guesses["repeat_last"](at)[1, :, 0].tolist() == [13] * 5
        and (guesses["mean"](at) == 7).all()
    )
    assert list(naive_forecasts.naive_forecasts(values, first, 1, 5, np.array([7.0]))) == [
        "repeat_last",
        "mean",
    ]
    assert naive_forecasts.seasonal_differences(values, first, np.arange(15), 3).tolist() == [3.0]


def test_gaps_are_filled_from_the_past_of_the_run_alone() -> None:
    nan = np.nan
    values = np.array([[nan, 1], [2, nan], [nan, nan], [nan, 5]], dtype=np.float32)
    assert forward_fill(values, np.array([0, 0, 0, 3])).tolist() == [[0, 1], [2, 1], [2, 1], [0, 5]]


def test_origins_are_those_of_a_search_by_hand() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        first = np.maximum.accumulate(np.where(draw.random(40) < 0.1, np.arange(40), 0))
        last = np.array([np.flatnonzero(first == each).max() for each in first])
        owned, context, horizon = (
            draw.random(40) < 0.8,
            int(draw.integers(1, 5)),
            int(draw.integers(1, 4)),
        )
        for inside in (False, True):
            found = [
                p
                for p in range(40)
                if p - context + 1 >= first[p]
                and p + horizon <= last[p]
                and owned[p + 1 : p + 1 + horizon].all()
                and (not inside or owned[p - context + 1 : p + 1].all())
            ]
            assert (
                window_origins((first, last), owned, context, horizon, inside=inside).tolist()
                == found
            )


# --- folds


def test_folds_of_a_split_in_time_are_validated_on_what_comes_later() -> None:
    rows, times = np.arange(50, 90), np.repeat(np.arange(20), 2)[::-1]
    pairs = folds.rolling_origin(rows, times, 4)
    assert len(pairs) == 4
    for train, validation in pairs:
        assert times[train - 50].max() < times[validation - 50].min()
        assert len(validation) == 8
    assert [len(train) for train, _ in pairs] == [8, 16, 24, 32]
    with pytest.raises(DataError, match=r"2 moments cannot be cut into 4 folds"):
        folds.rolling_origin(rows, np.repeat([0, 1], 20), 4)


def test_folds_roll_forward_within_each_series(tmp_path: Path) -> None:
    split = {"name": "in_order", "within": "plant", "test": 0.2}
    said = recipe(
        two_series(tmp_path),
        task={"series": "plant", "gaps": "ignore", "context": 3, "horizon": 2},
        split=split,
    )
    for fold in range(3):
        data = prepare(said, (fold, 3))
        train, validation = (windows_of(data, part)[1] for part in ("train", "validation"))
        for series in (0, 1000):
            mine = [
                each[(each[:, 0, 0] >= series) & (each[:, 0, 0] < series + 500)]
                for each in (train, validation)
            ]
            assert mine[0].max() < mine[1].min()


# --- models

SERIES = InputSpec("series", (50, 5), names=("x", "a", "b", "c", "y"))
BESIDE = {
    "future": InputSpec("series", (12, 2), names=("x", "y")),
    "numbers": InputSpec("numbers", (3,), names=("p", "q", "r")),
}
AHEAD = OutputSpec(
    6,
    ("b1", "b2", "b3", "a1", "a2", "a3"),
    per="step",
    steps=12,
    of=("b", "b", "b", "a", "a", "a"),
)
MODELS = [
    ("linear_forecaster", {}),
    ("linear_forecaster", {"decompose": "none", "level": "last", "shared": False}),
    ("temporal_convolution", {}),
    ("temporal_convolution", {"mix": False, "linear": False}),
    ("patch_transformer", {}),
    ("patch_transformer", {"patch": 7, "stride": 3, "linear": True}),
]


def model(
    name: str,
    output: OutputSpec = AHEAD,
    inputs: dict[str, InputSpec] | None = None,
    **options: Any,
) -> nn.Module:
    torch.manual_seed(0)
    built = registry.build_model(
        Part(name, registry.config("models", name)(**options)),
        inputs or {"series": SERIES, **BESIDE},
        output,
    )
    for each in built.parameters():  # what starts at 0 hides what it would do
        each.data.add_(0.02 * torch.randn_like(each))
    return built.eval()


def drawn(rows: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "series": torch.randn(rows, 50, 5),
        "future": torch.randn(rows, 12, 2),
        "numbers": torch.randn(rows, 3),
    }


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_a_forecast_goes_with_the_level_and_spread_of_its_window(
    name: str, options: dict[str, Any]
) -> None:
    module, inputs = model(name, **options), drawn(4)
    outputs = module(inputs)
    assert outputs.shape == (4, 12, 6)
    higher = {**inputs, "series": inputs["series"].clone()}
    higher["series"][..., 2] = (1.0 if options.get("level") == "last" else 5.0) * higher["series"][
        ..., 2
    ] + 100  # b
    moved = module(higher)
    back = (moved[..., :3] - 100) / (1.0 if options.get("level") == "last" else 5.0)
    if name == "temporal_convolution" and options.get("mix", True):
        torch.testing.assert_close(moved[..., 3:], outputs[..., 3:], atol=2e-4, rtol=2e-4)
    else:
        assert torch.equal(moved[..., 3:], outputs[..., 3:]), (
            "variables that go by themselves do not see each other"
        )
    torch.testing.assert_close(back, outputs[..., :3], atol=2e-4, rtol=2e-4)  # float32 after + 100


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_a_forecast_uses_all_that_it_is_given(name: str, options: dict[str, Any]) -> None:
    module, inputs = model(name, **options), drawn(2)
    outputs = module(inputs)
    for key in inputs:
        changed = {**inputs, key: inputs[key] + torch.randn_like(inputs[key])}
        assert (module(changed) - outputs).abs().max() > 1e-4, key
    alone = {"series": SERIES}
    assert model(name, inputs=alone, **options)({"series": inputs["series"]}).shape == (2, 12, 6)


@pytest.mark.parametrize("name", ["linear_forecaster", "temporal_convolution", "patch_transformer"])
def test_a_model_of_series_without_a_series_says_so(name: str) -> None:
    with pytest.raises(PartError, match=r"the inputs hold none"):
        model(name, inputs={"numbers": BESIDE["numbers"]})


@pytest.mark.parametrize("name", ["temporal_convolution", "patch_transformer"])
def test_a_series_as_a_whole_can_be_classified(name: str) -> None:
    inputs = {"series": SERIES, "numbers": BESIDE["numbers"]}
    assert model(name, OutputSpec(3, ("r", "g", "b")), inputs)(drawn(2)).shape == (2, 3)


def test_halving_gives_the_numbers_of_dilated_convolutions() -> None:
    torch.manual_seed(0)
    stack = TemporalStack(3, 8, 3, layers_to_see(45, 3), 0.0).eval()
    window_NLC = torch.randn(2, 45, 3)
    x_NDL = window_NLC.transpose(1, 2)
    for number, block in enumerate(stack.blocks):
        y_NDL, apart = x_NDL, 2**number
        for convolution in (block.body[0].convolution, block.body[3].convolution):  # type: ignore[index, union-attr]
            padded = functional.pad(y_NDL, (2 * apart, 0))
            y_NDL = functional.gelu(
                functional.conv1d(padded, convolution.weight, convolution.bias, dilation=apart)
            )
        x_NDL = block.skip(x_NDL) + y_NDL  # type: ignore[operator]
    torch.testing.assert_close(
        stack(window_NLC), x_NDL[..., -1], atol=1e-5, rtol=1e-5
    )  # sums in another order
    window_NLC.requires_grad_()
    stack(window_NLC).sum().backward()
    assert window_NLC.grad is not None and (window_NLC.grad[:, 0] != 0).any(), (
        "the last moment sees the first"
    )


def test_a_step_is_written_and_read_back() -> None:
    for step in (TimeStep(), TimeStep("months", 3, "d"), TimeStep("number", 0.25, "t")):
        assert TimeStep(**step.state()) == step
