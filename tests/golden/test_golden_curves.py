"""The trainings of recipes/ take the steps that they took when curves/ was written.

Compared are every report of a training, and every byte of its weights.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

import danlu
import golden


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipes and their data."""
    return golden.prepared_home(tmp_path_factory.mktemp("golden") / "home")


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("DANLU_CACHE", str(home / "cache"))


@pytest.mark.parametrize("name", golden.TRAININGS)
def test_a_training_takes_the_steps_that_it_took(home: Path, name: str) -> None:
    danlu.train(f"recipes/{name}.yaml", f"out/{name}")
    now, then = golden.curve(home / "out" / name), golden.read(golden.CURVES / f"{name}.json")
    if golden.is_the_same_machine():
        golden.refuse_differences(now, then)
    else:  # other sums of floats: the losses stay near, the weights' bytes do not
        tolerance = golden.COARSE.get(name, golden.LOSSES)
        reports = (golden.comparable(now["metrics"]), golden.comparable(then["metrics"]))
        golden.refuse_differences(*reports, tolerance)


def test_the_curves_cover_what_is_special_in_an_update() -> None:
    curves = {
        name: golden.read(golden.CURVES / f"{name}.json")["metrics"] for name in golden.TRAININGS
    }
    steps = {
        name: [report for report in curve if report["split"] == "train"]
        for name, curve in curves.items()
    }
    assert steps["table"][-1]["step"] < 240, "early stopping ended it"
    assert any(report["loss"] is None for report in steps["denoise"]), "an update was left out"
    rewound = {report["step"] for report in steps["rewind"] if report["loss"] is None}
    assert {1, 2} < {number % 5 for number in rewound}, "updates since a checkpoint were left out"
    assert all(steps[name][-1]["generator_loss"] is not None for name in ("gan", "gan_whole"))
    assert steps["series"][-1]["learning_rate"] < 0.1, "the plateau lowered it"
