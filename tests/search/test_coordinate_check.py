"""The coordinate check passes what is scaled right, and fails what is not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from danlu import registry
from danlu.errors import RunError
from danlu.layers import parametrization
from danlu.layers.parametrization import Readout, WidthGrowth
from danlu.recipe import Recipe, read
from danlu.search.coordinate_check import (
    LOWER_BOUND,
    UPPER_BOUND,
    CoordinateCheck,
    check_coordinates,
    draw_check,
    widths_between,
)
from danlu.search.widths import at_width, width_of

WIDTHS = [32, 64, 128, 256]
RATES = {"momentum": 0.05, "adamw": 0.003, "muon": 0.005, "adagrad": 0.01}


def digits(optimizer: str = "adamw", **model: Any) -> Recipe:
    options = {
        "name": "mlp",
        "hidden": [256, 256],
        "dropout": 0.0,
        "parametrization": "mup",
        "base_width": 32,
        **model,
    }
    tree = {
        "task": "classification",
        "data": {"source": "sklearn", "target": "label"},
        "model": options,
        "optimizer": {"name": optimizer, "learning_rate": RATES[optimizer]},
        "train": {"steps": 20, "batch_size": 64, "threads": 1},
    }
    return read(tree, registry)


def shakespearean(folder: Path, **model: Any) -> Recipe:
    (folder / "text.txt").write_text(
        "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n"
        * 60
    )
    options = {
        "name": "gpt",
        "width": 128,
        "num_layers": 2,
        "num_heads": 2,
        "parametrization": "mup",
        "base_width": 16,
        **model,
    }
    tree = {
        "task": {"name": "language_modeling", "context": 32},
        "data": {
            "source": {"name": "text", "path": str(folder / "text.txt")},
            "transforms": {"text": [{"name": "tokenize", "kind": "characters"}]},
            "split": {"name": "in_order", "validation": 0.1, "test": 0},
            "checks": "off",
        },
        "model": options,
        "optimizer": {"name": "adamw", "learning_rate": 0.003},
        "train": {"steps": 20, "batch_size": 8, "threads": 1},
    }
    return read(tree, registry)


@pytest.mark.parametrize("optimizer", RATES)
def test_mup_passes_with_every_kind_of_optimizer(optimizer: str) -> None:
    found = check_coordinates(digits(optimizer), WIDTHS)
    assert found.passed, found.sentence()


@pytest.mark.parametrize("optimizer", RATES)
def test_the_standard_parametrization_fails_with_every_kind_of_optimizer(optimizer: str) -> None:
    found = check_coordinates(digits(optimizer, parametrization="standard"), WIDTHS)
    assert not found.passed
    assert "outputs" in found.wrong()
    assert "coordinate check failed at widths 32, 64, 128, 256" in found.sentence()


def test_mup_passes_for_a_gpt_and_the_standard_fails(tmp_path: Path) -> None:
    widths = [16, 32, 64, 128]
    assert check_coordinates(shakespearean(tmp_path), widths).passed
    assert not check_coordinates(shakespearean(tmp_path, parametrization="standard"), widths).passed


def test_without_the_multiplier_of_the_output_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Readout, "forward", nn.Linear.forward)
    assert not check_coordinates(digits(), WIDTHS).passed


def test_without_the_learning_rates_by_width_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WidthGrowth, "learning_rate", lambda self, update: 1.0)
    assert not check_coordinates(digits(), WIDTHS).passed


def test_with_the_start_of_the_readout_left_as_it_is_the_outputs_shrink_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = check_coordinates(digits("momentum"), WIDTHS, steps=1)
    monkeypatch.setattr(parametrization, "_restart", lambda *_: None)
    after = check_coordinates(digits("momentum"), WIDTHS, steps=1)
    # a readout drawn by 1 / sqrt(width) and multiplied by 1 / width: the gradient behind it is
    # sqrt(width) too small
    assert after.powers()["1"] == pytest.approx(
        before.powers()["1"] - 0.5, abs=0.2
    )  # 4 widths and 2 seeds: noise of 0.1
    assert not after.passed


def test_widths_double_from_the_narrow_one_and_are_three_at_least() -> None:
    assert widths_between(digits(), 32) == [32, 64, 128, 256]
    assert widths_between(digits(), 128) == [128, 256, 512]
    assert widths_between(digits(), 4) == [4, 8, 16, 32]


def test_powers_are_those_of_the_numbers() -> None:
    grows = [[1.0, 2.0, 4.0], [1.0, 1.0, 1.0]]
    fades = [[4.0, 2.0, 1.0], [4.0, 2.0, 1.0]]
    flat = [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    found = CoordinateCheck(
        [8, 16, 32],
        {name: [[1.0, 1.0, 1.0], *flat] for name in ("a", "b", "c", "d.scores")},
        {"a": grows, "b": fades, "c": flat, "d.scores": fades},
    )
    assert found.powers() == pytest.approx({"a": 1.0, "b": -1.0, "c": 0.0, "d.scores": -1.0})
    assert set(found.wrong()) == {"a", "b"}  # scores may shrink
    assert LOWER_BOUND < 0 < UPPER_BOUND


def test_a_layer_that_stands_still_at_some_widths_alone_fails() -> None:
    found = CoordinateCheck([8, 16, 32], {"a": [[1.0, 1.0, 1.0]] * 2}, {"a": [[0.0, 1.0, 1.0]]})
    assert math.isnan(found.powers()["a"])
    assert not found.passed


def test_a_loss_that_breaks_is_told_with_its_width() -> None:
    recipe = digits("momentum", hidden=[32, 32])
    from danlu.recipe import with_changes

    broken = with_changes(recipe, registry, {"optimizer.learning_rate": 1e30})
    with pytest.raises(RunError, match=r"NaN or infinity after \d updates at width 32"):
        check_coordinates(broken, [32, 64])


def test_the_plot_is_a_png_and_the_data_is_plain(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = check_coordinates(digits(), [16, 32], steps=2, seeds=1)
    draw_check(found, tmp_path / "check.png")
    assert (tmp_path / "check.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    data = json.loads(json.dumps(found.as_dict()))
    assert CoordinateCheck(data["widths"], data["sizes"], data["changes"]) == found


def test_a_recipe_at_another_width_differs_by_the_width_alone() -> None:
    recipe = digits(hidden=[256, 128])
    narrow = at_width(recipe, 32)
    assert width_of(narrow) == 32
    assert narrow.model.options.hidden == [32, 16]
    assert {**narrow.as_dict(), "model": 0} == {**recipe.as_dict(), "model": 0}
    assert at_width(recipe, 256) is recipe


def test_a_model_without_a_width_is_told_so(tmp_path: Path) -> None:
    tree = {
        "task": "classification",
        "data": {"source": "sklearn", "target": "label"},
        "model": "linear",
    }
    with pytest.raises(RunError, match="model linear as it stands has no width"):
        width_of(read(tree, registry))
    with pytest.raises(
        RunError, match="the model cannot be 15 wide: width 15 is no multiple of num_heads 2"
    ):
        at_width(shakespearean(tmp_path), 15)
