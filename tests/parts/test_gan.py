"""Images that are generated: any size, noise decided by the row, classes asked for, and what generated images are measured by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import make
from danlu import evaluate, load, read_recipe, registry, train
from danlu.errors import ArtifactError, DataError, PartError, RecipeError
from danlu.parts.metrics._image_features import ImageFeatures
from danlu.parts.metrics.frechet_distance import frechet
from danlu.parts.watchers._base import RunInfo
from danlu.system.image_grid import encode_png, image_grid
from danlu.system.random_draws import counter_normal
from danlu.terms import Batch, Column, InputSpec, OutputSpec, Sample, Table, TrainingEvent
from make import part


def build(shape: tuple[int, int, int], classes: int = 0, **options: Any) -> nn.Module:
    inputs = {
        "image": InputSpec("image", shape, mean=(0.3,), std=(0.25,)),
        "row": InputSpec("categories", (1,)),
    }
    if classes:
        inputs["class"] = InputSpec("categories", (1,), cardinalities=(classes,))
    torch.manual_seed(0)
    output = OutputSpec(int(np.prod(shape)), per="image", shape=shape)
    return registry.build_model(
        part("models", "gan", **{"latent": 4, "width": 4, "class_size": 3, **options}),
        inputs,
        output,
    )


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 9, 13), (1, 15, 31), (3, 33, 17), (1, 8, 50), (1, 28, 28)]
)
def test_images_of_any_shape_from_8x8_on_are_made_and_judged(shape: tuple[int, int, int]) -> None:
    module = build(shape).eval()
    rows = torch.arange(5)[:, None]
    made = module({"row": rows})
    assert made.shape == (5, *shape) and made.dtype == torch.float32
    low, high = -0.3 / 0.25, 0.7 / 0.25  # black and white on the scale of the input
    assert (
        low - 1e-5 <= made.min().item() and made.max().item() <= high + 1e-5
    )  # float32 rounding at the ends of tanh
    assert module.get_submodule("discriminator")(torch.zeros(5, *shape)).shape == (5,)


def test_an_image_under_8x8_is_refused() -> None:
    with pytest.raises(PartError, match="from 8x8 pixels on"):
        build((1, 7, 28))


def test_an_image_is_decided_by_its_row_and_class_whatever_stands_beside_it() -> None:
    module = build((1, 12, 12), classes=3).eval()
    rows, classes = torch.tensor([[4], [900], [7]]), torch.tensor([[0], [2], [1]])
    together = module({"row": rows, "class": classes})
    alone = module({"row": rows[1:2], "class": classes[1:2]})
    # a matrix product over other shapes may sum in another order
    assert torch.allclose(together[1:2], alone, atol=1e-5)
    other_class = module({"row": rows[1:2], "class": classes[:1]})
    assert not torch.allclose(alone, other_class, atol=1e-5)


def test_counted_noise_is_normal_and_its_rows_are_unlike() -> None:
    noise = counter_normal(3, torch.arange(4000)[:, None], torch.arange(16)).double()
    # of 64,000 draws: four standard errors of mean (1/253), variance (sqrt(2)/253) and fourth
    # moment (sqrt(96)/253)
    assert abs(noise.mean().item()) < 4 / 253
    assert abs(noise.var().item() - 1) < 4 * 2**0.5 / 253
    assert abs(noise.pow(4).mean().item() - 3) < 4 * 96**0.5 / 253
    neighbours = torch.corrcoef(noise)[0, 1:].abs().max()
    assert neighbours < 0.99 and len(torch.unique(noise)) > 63_000


def task_of(
    classes: int, shape: tuple[int, int, int] = (1, 12, 12), rows: int = 30
) -> tuple[Any, Any]:
    """(task, its examples) over random images."""
    draw = np.random.default_rng(0)
    names = tuple("abcdefgh"[:classes])
    column = Column("kind", "category", (np.arange(rows) % max(classes, 1)).astype(np.int32), names)
    targets = {"kind": column} if classes else {}
    task = registry.build_task(part("tasks", "image_generation"), targets)
    images = draw.integers(0, 256, (rows, *shape[1:], shape[0])).astype(np.uint8)
    table = Table({"kind": column}, "made")
    described = {"image": InputSpec("image", shape, mean=(0.3,), std=(0.25,))}
    splits = {"train": np.arange(rows - 5), "test": np.arange(rows - 5, rows)}
    return task, task.make_examples({"image": images}, described, targets, splits, table)


def test_a_sample_shows_a_row_of_each_class_and_is_a_function_of_weights_and_seed() -> None:
    task, examples = task_of(3)
    module = registry.build_model(
        part("models", "gan", width=4, latent=4), examples.input_specs, task.output
    )
    module.train()
    (one,), (again,), (other,) = (
        task.samples(module, 5),
        task.samples(module, 5),
        task.samples(module, 60),
    )
    assert module.training
    assert one.value.shape == (3 * 13 - 1, 8 * 13 - 1, 1) and one.value.dtype == np.uint8
    assert np.array_equal(one.value, again.value) and not np.array_equal(one.value, other.value)


def test_a_task_comes_back_from_its_state_and_turns_outputs_into_pixels() -> None:
    task, _ = task_of(3)
    again = registry.restore_task(
        part("tasks", "image_generation"), json.loads(json.dumps(task.state()))
    )
    assert (
        again.output == task.output
        and again.classes == task.classes
        and again.describe() == task.describe()
    )
    shades = np.arange(256, dtype=np.uint8)[:144].reshape(1, 12, 12, 1)
    outputs = (torch.from_numpy(shades).permute(0, 3, 1, 2) / 255 - 0.3) / 0.25
    assert np.array_equal(again.pixels(outputs), shades)
    assert again.answers(outputs)[0]["prediction"].startswith("data:image/png;base64,iVBORw0KGgo")


def test_a_class_that_training_never_showed_is_refused() -> None:
    task, _ = task_of(3)
    with pytest.raises(DataError, match="'z' cannot be generated: the classes are a, b, c"):
        task.class_number("z")


# --- pictures


def test_tensorboard_shows_what_was_made(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pixels = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7, 1)
    setting = RunInfo(tmp_path, read_recipe(recipe()), 10, 5, "frechet_distance", "lower")
    watcher = registry.build_watcher(part("watchers", "tensorboard"), setting)
    watcher.hear(
        TrainingEvent(
            "validation",
            4,
            values={"x": 1.0},
            samples=(Sample("samples", pixels), Sample("text", "丹炉")),
        )
    )
    watcher.close()
    read = accumulators.EventAccumulator(str(tmp_path))
    read.Reload()
    (found,) = read.Images("validation/samples")
    assert (found.step, found.height, found.width, found.encoded_image_string) == (
        4,
        6,
        7,
        encode_png(pixels),
    )
    assert read.Tensors("validation/text")[0].tensor_proto.string_val[0].decode() == "丹炉"


def test_a_png_holds_the_pixels_it_was_made_of() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow reads the picture back")
    import io

    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 4, 3), dtype=np.uint8)
    sheet = image_grid(pixels, columns=3)
    assert sheet.shape == (3 * 6 - 1, 3 * 5 - 1, 3)
    assert np.array_equal(sheet[6:11, 5:9], pixels[4])
    assert np.array_equal(np.asarray(image.open(io.BytesIO(encode_png(sheet)))), sheet)
    assert np.array_equal(
        np.asarray(image.open(io.BytesIO(encode_png(sheet[:, :, :1])))), sheet[:, :, 0]
    )


# --- what generated images are measured by


def test_the_frechet_distance_of_two_known_clouds() -> None:
    mean, other = np.array([0.0, 1.0]), np.array([3.0, -3.0])
    # diagonal covariances: |m - m'|^2 + sum (s - s')^2 = 25 + (2 - 1)^2 + (3 - 3)^2
    assert frechet(mean, np.diag([4.0, 9.0]), other, np.diag([1.0, 9.0])) == pytest.approx(
        26, rel=1e-12
    )
    covariance = np.array([[2.0, 0.7], [0.7, 1.0]])
    assert frechet(mean, covariance, mean, covariance) == pytest.approx(0, abs=1e-12)


def scored(name: str, real: Tensor, made: Tensor, cuts: list[int], **options: Any) -> Any:
    task, _ = task_of(2)
    metric = registry.build_metric(part("metrics", name, **options), task)
    held: dict[str, list[Tensor]] = {}
    for rows in torch.arange(len(real)).split(cuts):
        batch = Batch({"image": real[rows], "class": rows[:, None] % 2}, None, rows)
        for key, value in metric.count(made[rows], batch).items():
            held.setdefault(key, []).append(value)
    joined = metric.joined
    return metric.score(
        {key: torch.cat(each) if joined else torch.stack(each).sum(0) for key, each in held.items()}
    )


def test_the_same_images_have_distance_0_and_full_precision_and_recall_however_rows_are_cut() -> (
    None
):
    torch.manual_seed(0)
    real, made = torch.randn(60, 1, 12, 12), torch.randn(60, 1, 12, 12) * 0.2
    assert scored("frechet_distance", real, real.clone(), [60]) == pytest.approx(
        0, abs=1e-9
    )  # float64 sums of 60 rows
    far = scored("frechet_distance", real, made, [60])
    assert far > 0.1 and scored("frechet_distance", real, made, [7, 52, 1]) == pytest.approx(
        far, rel=1e-9
    )
    same = scored("sample_precision_recall", real, real.clone(), [60])
    assert same == {"sample_precision": 1.0, "sample_recall": 1.0}


def test_a_generator_that_repeats_one_good_image_has_precision_and_no_recall() -> None:
    torch.manual_seed(0)
    real = torch.randn(60, 1, 12, 12) * 0.5
    found = scored("sample_precision_recall", real, real[:1].repeat(60, 1, 1, 1), [60])
    assert found["sample_precision"] == 1.0 and found["sample_recall"] <= 2 / 60


class Bright(nn.Module):
    """A classifier that answers 'b' where an image is brighter than mid-grey."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(1, 2)
        with torch.no_grad():
            self.last.weight.copy_(torch.tensor([[-1.0], [1.0]]))
            self.last.bias.zero_()

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.last(inputs["image"].mean((1, 2, 3))[:, None])


def test_class_agreement_counts_what_the_classifier_sees_by_the_names_of_classes() -> None:
    task, _ = task_of(2)
    metric = registry.build_metric(part("metrics", "class_agreement", classifier="somewhere"), task)
    own = InputSpec(
        "image", (1, 12, 12), mean=(0.5,), std=(0.5,)
    )  # another scale than that of the generator's images
    metric.observer.use_classifier(
        Bright(), {"image": own}, ("b", "a")
    )  # and the classes in another order
    white, black = torch.full((1, 1, 12, 12), 0.7 / 0.25), torch.full((1, 1, 12, 12), -0.3 / 0.25)
    batch = Batch(
        {"image": torch.cat([black, black, white]), "class": torch.tensor([[0], [1], [1]])},
        None,
        torch.arange(3),
    )
    counts = metric.count(torch.cat([white, black, black]), batch)
    # the classifier calls bright images 'a' (its number 1) and dark ones 'b'
    assert metric.score(counts) == {
        "class_agreement": 1.0,
        "class_agreement/real": pytest.approx(1 / 3),
    }
    features, _ = metric.observer(white)
    assert features.tolist() == [[pytest.approx(1.0)]]


def test_a_classifier_of_other_images_or_classes_is_refused() -> None:
    observer = ImageFeatures("somewhere", InputSpec("image", (1, 12, 12)))
    with pytest.raises(ArtifactError, match="takes 1x9x9, and the images are 1x12x12"):
        observer.use_classifier(Bright(), {"image": InputSpec("image", (1, 9, 9))}, ("a", "b"))
    with pytest.raises(ArtifactError, match="takes other inputs than one image"):
        observer.use_classifier(Bright(), {"numbers": InputSpec("numbers", (3,))}, ("a", "b"))
    task, _ = task_of(2)
    metric = registry.build_metric(part("metrics", "class_agreement", classifier="somewhere"), task)
    metric.observer.use_classifier(Bright(), {"image": InputSpec("image", (1, 12, 12))}, ("a", "c"))
    batch = Batch(
        {"image": torch.zeros(1, 1, 12, 12), "class": torch.zeros(1, 1, dtype=torch.int64)},
        None,
        torch.arange(1),
    )
    with pytest.raises(DataError, match="has no class 'b'"):
        metric.count(torch.zeros(1, 1, 12, 12), batch)
    with pytest.raises(RecipeError, match="needs a class to ask for"):
        registry.build_metric(
            part("metrics", "class_agreement", classifier="somewhere"), task_of(0)[0]
        )


# --- the whole way


def recipe(**train_options: Any) -> dict[str, Any]:
    return make.digits(
        name="tiny",
        task="image_generation",
        data={"cache": False},
        model={"name": "gan", "width": 4, "latent": 6},
        train={
            "threads": 1,
            "precision": "float32",
            "steps": 8,
            "evaluate_every": 4,
            "save_every": 4,
            **train_options,
        },
        watchers=["jsonl"],
    )


def test_a_generator_is_trained_scored_released_and_read_back(tmp_path: Path) -> None:
    artifact = train(recipe(), tmp_path / "run")
    assert (
        artifact.scores["test"]["frechet_distance"] >= 0 and "loss" not in artifact.scores["test"]
    )
    reports = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert all(
        {"loss", "generator_loss"} <= set(each) for each in reports if each["split"] == "train"
    )
    again = load(tmp_path / "run")
    assert evaluate(again).values == {
        "frechet_distance": artifact.scores["test"]["frechet_distance"]
    }
    rows = [{"seed": 3, "class": "4"}, {"seed": 3, "class": "5"}, {"seed": 3, "class": "4"}]
    made = [answer["prediction"] for answer in again.predict(rows)]
    assert again.inputs == {"seed": "number", "class": "category"}
    assert made[0] == made[2] != made[1] and made[0].startswith("data:image/png;base64,")
    with pytest.raises(DataError, match="a row that asks for one has seed, class"):
        again.predict(tmp_path / "run")
    with pytest.raises(ArtifactError, match="no such artifact"):
        train(
            {
                **recipe(),
                "metrics": [{"name": "frechet_distance", "classifier": str(tmp_path / "none")}],
            },
            tmp_path / "other",
        )


def test_a_model_that_makes_no_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PartError, match=r"asks for one output an? image"):
        train({**recipe(), "model": "cnn"}, tmp_path / "run")
