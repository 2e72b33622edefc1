"""Twenty faults that exports have had, planted between making and proving: the proof refuses every one and leaves nothing behind.

Each fault changes what is exported (the artifact in memory, or the files in the folder before they
are sealed); what it is compared with is the artifact as it lies on disk."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import danlu
from danlu.errors import ArtifactError, DanluError, ExportError

onnx = pytest.importorskip("onnx", reason="pip install 'danlu[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'danlu[onnx]'")
pytest.importorskip("onnxruntime", reason="pip install 'danlu[onnx]'")

ROWS = 300


def write_people(path: Path) -> str:
    random = np.random.default_rng(3)
    rows = []
    for number in range(ROWS):
        age, pay = random.normal(40, 12), random.normal(3000, 900)
        town = random.choice(["Paris", "Roma", "Köln"], p=[0.5, 0.4, 0.1])
        hour = int(random.integers(0, 24))
        rows.append(
            {
                "age": "" if number % 9 == 3 else f"{age:.2f}",
                "pay": f"{pay:.2f}",
                "town": town,
                "when": f"2024-0{number % 9 + 1}-11 {hour:02d}:30:00",
                "text": random.choice(["a fine day", "a sad day", "rain", "sun and wind"])
                + (" good" if age > 40 else " bad"),
                "height": f"{170 + 0.3 * (age - 40) + random.normal(0, 4):.2f}",
                "label": "yes"
                if age + 8 * (town == "Roma") + hour / 4 + random.normal(0, 2) > 46
                else "no",
            }
        )
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


TRAIN = {"steps": 60, "threads": 1, "seed": 1, "batch_size": 32}


def recipes(people: str) -> dict[str, dict[str, Any]]:
    table = {"text": {"use": False}, "height": {"use": False}, "town": {"kind": "category"}}
    words = [{"name": "tokenize", "kind": "words", "min_count": 1}]
    rest = {name: {"use": False} for name in ("age", "pay", "town", "when", "height")}
    digits = {"source": {"name": "sklearn", "set": "digits"}, "target": "label", "checks": "off"}
    mlp = {"name": "mlp", "hidden": [16]}
    return {
        "table": {
            "task": "classification",
            "data": {"source": people, "target": "label", "checks": "off", "columns": table},
            "model": {**mlp, "dropout": 0.3},
        },
        "numbers": {
            "task": "regression",
            "data": {"source": people, "target": "height", "checks": "off", "columns": {"text": {"use": False}, "label": {"use": False}}},
            "model": mlp,
        },
        "text": {
            "task": "classification",
            "data": {
                "source": people, "target": "label", "checks": "off", "columns": {**rest, "text": {"kind": "text", "transforms": words}},
            },
            "model": {"name": "bag_of_embeddings", "embedding": 8, "buckets": 50},
        },
        "image": {
            "task": "classification",
            "data": {**digits, "test_time_augmentation": ["shift"]},
            "model": {"name": "cnn", "width": 4, "blocks": [1]},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    people = write_people(folder / "people.csv")
    for name, recipe in recipes(people).items():
        danlu.train({**recipe, "train": TRAIN}, run=folder / name)
    return folder


# --- faults of what is exported -----------------------------------------------------------------------------------------


def chain(artifact: Any, name: str) -> Any:
    return next(each for each in artifact.preprocessor.pipelines if each.name == name)


def state(artifact: Any, column: str, part: str) -> dict[str, Any]:
    return next(state for each, state in chain(artifact, column).steps if each.name == part)


def first_linear(artifact: Any) -> nn.Linear:
    return next(each for each in artifact.module.modules() if isinstance(each, nn.Linear))


def swapped_columns(artifact: Any) -> None:
    """Two numbers change places on the way into the network."""
    chains = list(artifact.preprocessor.pipelines)
    one, other = (
        next(place for place, each in enumerate(chains) if each.name == name)
        for name in ("age", "when")
    )
    chains[one], chains[other] = chains[other], chains[one]
    artifact.preprocessor.pipelines = tuple(chains)


def wrong_normalisation(artifact: Any) -> None:
    """A mean of other rows."""
    state(artifact, "pay", "scale")["center"] = state(artifact, "pay", "scale")["center"] * 1.01


def variance_for_deviation(artifact: Any) -> None:
    """Numbers divided by the variance."""
    state(artifact, "age", "scale")["scale"] = state(artifact, "age", "scale")["scale"] ** 2


def wrong_imputation(artifact: Any) -> None:
    """Gaps filled with 0 in place of the median."""
    state(artifact, "age", "impute")["fill"] = np.zeros(1)


def lost_category(artifact: Any) -> None:
    """A known category counts as unknown."""
    known = state(artifact, "town", "encode")["known"]
    state(artifact, "town", "encode")["known"] = known[:-1]
    artifact.preprocessor.pipelines = tuple(artifact.preprocessor.pipelines)


def categories_in_another_order(artifact: Any) -> None:
    """Categories numbered as they came in place of by name."""
    state(artifact, "town", "encode")["known"].reverse()


def stale_weights(artifact: Any) -> None:
    """The weights of some updates before."""
    with torch.no_grad():
        for parameter in artifact.module.parameters():
            parameter.add_(
                0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
            )


def missing_adapter(artifact: Any) -> None:
    """What a low-rank path adds to a matrix is left out."""
    weight = first_linear(artifact).weight
    left, sizes, right = torch.linalg.svd(weight.detach())
    with torch.no_grad():
        weight.sub_(
            sizes[-1] * left[:, len(sizes) - 1 : len(sizes)] @ right[len(sizes) - 1 : len(sizes)]
        )


class _Baked(nn.Module):
    """Dropout as in training, the mask that was drawn baked into the graph."""

    mask: torch.Tensor

    def __init__(self, share: float, width: int) -> None:
        super().__init__()
        kept = torch.rand(width, generator=torch.Generator().manual_seed(1)) >= share
        self.register_buffer("mask", kept / (1 - share))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def dropout_of_training(artifact: Any) -> None:
    """The network was exported in training mode."""
    found = [
        (parent, name)
        for parent in artifact.module.modules()
        for name, each in parent.named_children()
        if "Dropout" in type(each).__name__
    ]
    assert found
    for parent, name in found:
        setattr(parent, name, _Baked(0.3, 16))


def classes_off_by_one(artifact: Any) -> None:
    """The names of the classes are moved on by one."""
    classes = artifact.task.classes
    artifact.task.classes = (*classes[1:], classes[0])


def rounded_to_float16(artifact: Any) -> None:
    """Weights, and what the layers give, went through half precision."""
    artifact.module.half().float()
    for layer in artifact.module.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda module, inputs, outputs: outputs.half().float())


def softmax_left_out(artifact: Any) -> None:
    """Logits in place of probabilities."""
    artifact.task.finish = lambda module, inputs, outputs: {"probabilities": outputs.double()}


def units_forgotten(artifact: Any) -> None:
    """Numbers in deviations in place of units of the data."""
    artifact.task._offset, artifact.task._unit = [0.0], [1.0]


def missing_word(artifact: Any) -> None:
    """The tokenizer has one entry less."""
    tokenizer = state(artifact, "text", "tokenize")["tokenizer"]
    place = tokenizer["vocabulary"].index("good")
    tokenizer["vocabulary"][place] = "goood"


def padding_is_a_word(artifact: Any) -> None:
    """Words shifted by one code, as where padding has none of its own."""
    vocabulary = state(artifact, "text", "tokenize")["tokenizer"]["vocabulary"]
    vocabulary.insert(0, vocabulary.pop())


def augmentation_forgotten(artifact: Any) -> None:
    """Images are seen one way in place of several."""
    data = artifact.recipe.data.model_copy(update={"test_time_augmentation": []})
    artifact.recipe = dataclasses.replace(artifact.recipe, data=data)


def pixels_not_centred(artifact: Any) -> None:
    """Images are divided by 255 and no more."""
    inputs = artifact.preprocessor.inputs
    inputs["image"] = dataclasses.replace(inputs["image"], mean=(0.0,), std=(1.0,))
    artifact.described = dict(inputs)


# --- faults of the files ------------------------------------------------------------------------------------------------


def edited(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        model = onnx.load(folder / "model.onnx")
        change(model.graph)
        onnx.save(model, folder / "model.onnx")

    return edit


def behind(graph: Any, name: str, node: Any, made: str) -> None:
    """Let everything that reads the input `name` read what `node` makes of it."""
    for each in graph.node:
        for place, value in enumerate(each.input):
            if value == name:
                each.input[place] = made
    graph.node.insert(0, node)


def another_zone(graph: Any) -> None:
    """Times are taken for local ones, eight hours off."""
    hours = onnx.numpy_helper.from_array(
        np.array(8 * 3600 * 1_000_000, dtype=np.int64), "eight_hours"
    )
    graph.initializer.append(hours)
    behind(
        graph,
        "column when",
        onnx.helper.make_node("Add", ["column when", "eight_hours"], ["local"]),
        "local",
    )


def transposed_layout(graph: Any) -> None:
    """Height and width change places."""
    behind(
        graph,
        "column image",
        onnx.helper.make_node("Transpose", ["column image"], ["turned"], perm=[0, 2, 1, 3]),
        "turned",
    )


def one_bias_lost(graph: Any) -> None:
    """A bias is 0."""
    bias = next(
        each
        for each in graph.initializer
        if len(each.dims) == 1
        and each.name.startswith("network/")
        and each.dims[0] > 1
        and each.data_type == 1
    )
    bias.CopyFrom(
        onnx.numpy_helper.from_array(np.zeros_like(onnx.numpy_helper.to_array(bias)), bias.name)
    )


FAULTS: list[
    tuple[str, Callable[[Any], None], bool]
] = [  # (artifact, fault, whether it changes the graph's file)
    ("table", swapped_columns, False),
    ("table", wrong_normalisation, False),
    ("table", variance_for_deviation, False),
    ("table", wrong_imputation, False),
    ("table", lost_category, False),
    ("table", categories_in_another_order, False),
    ("table", stale_weights, False),
    ("table", missing_adapter, False),
    ("table", dropout_of_training, False),
    ("table", classes_off_by_one, False),
    ("table", rounded_to_float16, False),
    ("table", softmax_left_out, False),
    ("numbers", units_forgotten, False),
    ("text", missing_word, False),
    ("text", padding_is_a_word, False),
    ("image", augmentation_forgotten, False),
    ("image", pixels_not_centred, False),
    ("table", another_zone, True),
    ("image", transposed_layout, True),
    ("image", one_bias_lost, True),
]


BEFORE = {  # what the message must name
    wrong_normalisation: "numbers, pay",
    wrong_imputation: "numbers, age",
    lost_category: "categories, town",
    another_zone: "numbers, when",
}


def test_there_are_twenty_faults() -> None:
    assert len({fault for _, fault, _ in FAULTS}) == 20


@pytest.mark.parametrize("name", ["table", "numbers", "text", "image"])
def test_without_a_fault_it_is_released(name: str, home: Path) -> None:
    export = danlu.export(home / name, "onnx", home / f"{name} sound")
    assert export.manifest["proof"]["largest_difference"] < 1e-5  # float32 sums of small networks


@pytest.mark.parametrize(
    ("name", "fault", "of_files"), FAULTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_planted_fault_is_refused(
    name: str, fault: Callable[[Any], None], of_files: bool, home: Path
) -> None:
    artifact = danlu.load(home / name)
    if not of_files:
        fault(artifact)
    out = home / f"{fault.__name__} export"
    before = sorted(home.iterdir())
    with pytest.raises((ExportError, ArtifactError)) as refusal:
        danlu.export(artifact, "onnx", out, changed=edited(fault) if of_files else None)
    assert isinstance(refusal.value, DanluError)
    assert "does not answer as" in str(refusal.value), str(refusal.value)
    assert "row" in str(refusal.value) and "in place of" in str(refusal.value)
    if fault in BEFORE:
        assert f"they differ before the network, in its input {BEFORE[fault]}" in str(refusal.value)
    if fault in (stale_weights, missing_adapter, dropout_of_training):
        assert "the network itself differs" in str(refusal.value)
    assert sorted(home.iterdir()) == before, "something of the export is left"


def test_a_file_changed_after_the_release_is_refused(home: Path) -> None:
    export = danlu.export(home / "numbers", "onnx", home / "released")
    danlu.verify(export.path, home / "numbers")
    model = export.path / "model.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model\.onnx: this export is damaged"):
        danlu.verify(export.path, home / "numbers")
