"""Rows made again from a few numbers: shapes, what noise is a function of, answers, and that a code is worth more than as many axes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from danlu import load, registry, train
from danlu.errors import DataError, PartError, RecipeError
from danlu.terms import Batch, InputSpec, OutputSpec, Table
from make import part


def model(described: dict[str, InputSpec], output: OutputSpec, **options: Any) -> Any:
    return registry.build_model(part("models", "autoencoder", **options), described, output).eval()


def task_over(described: InputSpec, rows: np.ndarray, **options: Any) -> tuple[Any, Any]:
    task = registry.build_task(part("tasks", "autoencoding", **options), {})
    name = described.kind
    splits = {"train": np.arange(len(rows) - 4), "test": np.arange(len(rows) - 4, len(rows))}
    return task, task.make_examples({name: rows}, {name: described}, {}, splits, Table({}, "made"))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 15, 31), (1, 28, 28), (2, 8, 50)])
def test_images_of_any_shape_from_8x8_on_come_back_in_their_shape(
    shape: tuple[int, int, int],
) -> None:
    described = {"image": InputSpec("image", shape)}
    output = OutputSpec(int(np.prod(shape)), per="image", shape=shape)
    module = model(described, output, code=3, width=4)
    images = torch.randn(5, *shape)
    assert module({"image": images}).shape == images.shape
    assert module.encode({"image": images}).shape == (5, 3)


def test_numbers_come_back_and_pass_through_the_code_alone() -> None:
    described = {"numbers": InputSpec("numbers", (7,))}
    module = model(described, OutputSpec(7), code=2, hidden=[9])
    rows = torch.randn(5, 7)
    assert torch.equal(module({"numbers": rows}), module.decoder(module.encode({"numbers": rows})))
    assert module.encode({"numbers": rows}).shape == (5, 2)


def test_what_is_no_autoencoding_is_refused() -> None:
    numbers, image = InputSpec("numbers", (7,)), InputSpec("image", (1, 9, 9))
    for inputs, output, match in [
        ({"numbers": numbers}, OutputSpec(3), "the task asks for something else"),
        ({"numbers": numbers, "image": image}, OutputSpec(7), "takes numbers or one image"),
        (
            {"image": InputSpec("image", (1, 7, 9))},
            OutputSpec(63, per="image", shape=(1, 7, 9)),
            "from 8x8 pixels on",
        ),
    ]:
        with pytest.raises(PartError, match=match):
            model(inputs, output)
    task = registry.build_task(part("tasks", "autoencoding"), {})
    both = {"numbers": np.zeros((5, 7), np.float32), "image": np.zeros((5, 9, 9, 1), np.uint8)}
    with pytest.raises(DataError, match="takes numbers or one image"):
        task.make_examples(both, {"numbers": numbers, "image": image}, {}, {}, Table({}, "made"))


def test_noise_is_shown_and_the_clean_row_is_asked_for_whatever_the_batch() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    task, _ = task_over(InputSpec("numbers", (6,)), rows, noise=0.5)

    def shown(which: list[int], seed: int) -> Batch:
        clean = torch.from_numpy(rows[which])
        batch = task.corrupt(Batch({"numbers": clean}, None, torch.tensor(which)), seed)
        assert torch.equal(batch.target, clean)
        return batch

    whole = shown(list(range(40)), 7).inputs["numbers"]
    assert torch.equal(shown([31, 2], 7).inputs["numbers"], whole[[31, 2]])
    assert not torch.equal(shown(list(range(40)), 8).inputs["numbers"], whole)
    noise = (whole - torch.from_numpy(rows)).double()
    # 240 draws: four standard errors of a standard deviation of 0.5
    assert abs(noise.std().item() - 0.5) < 4 * 0.5 / (2 * 240) ** 0.5


@pytest.mark.parametrize("kind", ["numbers", "image"])
def test_the_baseline_is_the_error_of_the_mean_row(kind: str) -> None:
    draw = np.random.default_rng(0)
    if kind == "numbers":
        rows, described = draw.normal(size=(30, 5)).astype(np.float32), InputSpec("numbers", (5,))
        seen = rows.astype(np.float64)
    else:
        rows = draw.integers(0, 256, (30, 9, 8, 3)).astype(np.uint8)
        described = InputSpec("image", (3, 9, 8), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
        seen = (rows / 255 - np.array(described.mean)) / np.array(described.std)
    task, examples = task_over(described, rows)
    wanted = np.square(seen[-4:] - seen[:-4].mean(axis=0)).mean()
    assert task.baseline(examples, "test")["reconstruction_error"] == pytest.approx(
        wanted, rel=1e-9
    )


def test_a_task_comes_back_from_its_state() -> None:
    task, _ = task_over(
        InputSpec("image", (3, 9, 8), mean=(0.5,), std=(0.2,)),
        np.zeros((9, 9, 8, 3), np.uint8),
        noise=0.1,
    )
    again = registry.restore_task(
        part("tasks", "autoencoding", noise=0.1), json.loads(json.dumps(task.state()))
    )
    assert (again.output, again.describe(), again.input_spec) == (
        task.output,
        task.describe(),
        task.input_spec,
    )


def test_the_losses_of_numbers_serve_pixels() -> None:
    target = torch.randn(3, 2, 5, 4)
    outputs = (target + 0.5).requires_grad_()
    batch = Batch({}, target, torch.arange(3))
    for name, each in (("mse", 0.25), ("mae", 0.5)):
        loss = registry.build_loss(
            part("losses", name),
            task_over(InputSpec("image", (2, 5, 4)), np.zeros((9, 5, 4, 2), np.uint8))[0],
        )
        total, count = loss(outputs, batch)
        assert count.item() == target.numel() and (total / count).item() == pytest.approx(
            each, rel=1e-5
        )


def recipe(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "task": "autoencoding",
        "data": {
            "source": {"name": "sklearn", "set": "digits"},
            "columns": {"label": {"use": False}},
            "cache": False,
        },
        "model": {"name": "autoencoder", "code": 8, "width": 16},
        "optimizer": {"name": "adam", "learning_rate": 0.01},
        "train": {"threads": 1, "precision": "float32", "epochs": 15},
        "watchers": [],
        **changes,
    }


def test_a_code_of_eight_numbers_keeps_more_of_a_digit_than_eight_principal_axes(
    tmp_path: Path,
) -> None:
    artifact = train(recipe(), tmp_path / "run")
    decomposition = pytest.importorskip("sklearn.decomposition")
    datasets = pytest.importorskip("sklearn.datasets")
    rows = datasets.load_digits().data
    axes = decomposition.PCA(8).fit(rows)  # on all rows: an advantage for it
    left = np.square(rows - axes.inverse_transform(axes.transform(rows))).mean() / rows.var()
    assert (
        artifact.scores["test"]["reconstruction_error"]
        < left
        < artifact.scores["baseline"]["reconstruction_error"]
    )


def test_answers_are_an_error_and_a_code_and_noise_scores_worse_than_a_digit(
    tmp_path: Path,
) -> None:
    artifact = train(
        recipe(train={"threads": 1, "precision": "float32", "steps": 150}), tmp_path / "run"
    )
    datasets = pytest.importorskip("sklearn.datasets")
    digits = (datasets.load_digits().images[:20] / 16 * 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (20, 8, 8)).astype(np.uint8)
    released = load(tmp_path / "run")
    image = next(name for name, kind in released.inputs.items() if kind == "image")
    answers = released.predict([{image: each[:, :, None]} for each in [*digits, *noise]])
    assert all(len(each["code"]) == 8 for each in answers)
    errors = np.array([each["prediction"] for each in answers])
    assert errors[:20].max() < errors[20:].min()
    again = artifact.predict([{image: digits[3][:, :, None]}])[0]
    assert again["prediction"] == pytest.approx(
        errors[3], rel=1e-4
    )  # alone or among others: other sums of float32


def test_a_target_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="takes exactly 0 target"):
        train(
            recipe(data={"source": {"name": "sklearn", "set": "digits"}, "target": "label"}),
            tmp_path / "run",
        )
