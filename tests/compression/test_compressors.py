"""What every compressor promises: the same answers after a way over the disk, at any batch size, twice the same bytes, refusals by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import danlu
from danlu import registry
from danlu.compression import costs
from danlu.errors import ArtifactError, PartError
from danlu.system.atomic_files import read_checked_json, with_checksum

# For models so small that nobody would compress them: every layer counts, and training is a few
# updates.
OPTIONS: dict[str, dict[str, Any]] = {
    "int8_dynamic": {"smallest": 1},
    "int8_static": {"smallest": 1, "rows": 64},
    "int8_weight_only": {"smallest": 1},
    "int4_weight_only": {"smallest": 1},
    "quantization_aware": {"smallest": 1, "rows": 64, "epochs": 0.2},
    "prune": {"share": 0.6, "epochs": 0.2},
    "low_rank": {"rank": 0.25, "smallest": 1, "epochs": 0.2},
    "distil": {"model": {"name": "mlp", "hidden": [7]}, "epochs": 0.2},
}
TRAIN = {"epochs": 1, "batch_size": 64, "threads": 1}
DIGITS = {
    "source": {"name": "sklearn", "set": "digits"},
    "target": "label",
    "split": {"name": "stratified", "validation": 0.1, "test": 0.2},
}
RECIPES: dict[str, dict[str, Any]] = {
    "cnn": {
        "task": "classification",
        "data": DIGITS,
        "model": {"name": "cnn", "width": 8, "blocks": [1, 1]},
        "train": TRAIN,
    },
    "mlp": {
        "task": "classification",
        "data": DIGITS,
        "model": {"name": "mlp", "hidden": [33, 17], "batch_norm": True},
        "train": TRAIN,
    },
}


@pytest.fixture(scope="module", autouse=True)
def costs_are_told_in_a_hurry() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, danlu.Artifact]:
    home = tmp_path_factory.mktemp("artifacts")
    return {
        name: danlu.train({**recipe, "name": name}, run=home / name)
        for name, recipe in RECIPES.items()
    }


@pytest.fixture(scope="module")
def compressed(
    artifacts: dict[str, danlu.Artifact], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    home, made = tmp_path_factory.mktemp("compressed"), {}

    def make(family: str, name: str) -> Any:
        if (family, name) not in made:
            step = {"name": name, **OPTIONS[name]}
            made[family, name] = danlu.compress(
                artifacts[family], [step], home / f"{family}-{name}"
            )
        return made[family, name]

    return make


EVERY = [(family, name) for family in RECIPES for name in registry.names("compressors")]


def pixels(count: int) -> dict[str, torch.Tensor]:
    return {"image": torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))}


def answers(artifact: Any, count: int) -> torch.Tensor:
    name = next(iter(artifact.described or artifact.preprocessor.inputs))
    with torch.inference_mode():
        return artifact.module({name: pixels(64)["image"][:count]})


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_what_is_read_back_answers_bit_for_bit(family: str, name: str, compressed: Any) -> None:
    result = compressed(family, name)
    again = danlu.load(result.artifact.path)
    assert torch.equal(answers(result.artifact, 64), answers(again, 64))
    assert again.changes[-1]["name"] == name
    assert sorted(path.name for path in again.path.iterdir()) == [
        "artifact.json", "preprocessing.safetensors", "recipe.lock.yaml", "weights.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize(("family", "name"), EVERY)
def test_a_row_is_answered_alike_in_any_batch(family: str, name: str, compressed: Any) -> None:
    artifact = compressed(family, name).artifact
    whole = answers(artifact, 64)
    for count in (1, 3, 17):
        # sums of float32 layers are taken in another order at another batch size; 8-bit codes may
        # then fall on the other side of a half
        assert (answers(artifact, count) - whole[:count]).abs().max() < 0.02 * whole.abs().max()


@pytest.mark.parametrize("name", registry.names("compressors"))
def test_the_same_command_writes_the_same_bytes(
    name: str, compressed: Any, artifacts: dict[str, danlu.Artifact], tmp_path: Path
) -> None:
    first = compressed("mlp", name).artifact.path
    again = danlu.compress(
        artifacts["mlp"], [{"name": name, **OPTIONS[name]}], tmp_path / "again"
    ).artifact.path
    assert (first / "weights.safetensors").read_bytes() == (
        again / "weights.safetensors"
    ).read_bytes()
    assert (first / "artifact.json").read_bytes() == (again / "artifact.json").read_bytes()


@pytest.mark.parametrize("name", registry.names("compressors"))
def test_the_recorded_scores_are_what_an_evaluation_finds(name: str, compressed: Any) -> None:
    result = compressed("cnn", name)
    found = danlu.evaluate(danlu.load(result.artifact.path))
    assert found.values["accuracy"] == pytest.approx(result.after["scores"]["accuracy"])
    assert result.artifact.scores["test"]["accuracy"] == pytest.approx(
        result.after["scores"]["accuracy"]
    )


@pytest.mark.parametrize(
    "name",
    [
        "int8_dynamic",
        "int8_static",
        "int8_weight_only",
        "int4_weight_only",
        "quantization_aware",
        "low_rank",
    ],
)
def test_a_model_without_a_layer_worth_it_is_refused_by_name(
    name: str, artifacts: dict[str, danlu.Artifact], tmp_path: Path
) -> None:
    options = {key: value for key, value in OPTIONS[name].items() if key in ("rows", "epochs")}
    with pytest.raises(PartError, match=f"{name} finds no .*mlp"):
        danlu.compress(
            artifacts["mlp"], [{"name": name, "smallest": 10**9, **options}], tmp_path / "out"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", registry.names("compressors"))
def test_a_state_that_does_not_fit_the_model_is_refused(
    name: str, compressed: Any, tmp_path: Path
) -> None:
    path = compressed("mlp", name).artifact.path
    for folder, change in enumerate(_spoiled(read_checked_json(path / "artifact.json")["changes"])):
        copy = tmp_path / str(folder)
        copy.mkdir()
        for each in path.iterdir():
            (copy / each.name).write_bytes(each.read_bytes())
        about = {**read_checked_json(path / "artifact.json"), "changes": change}
        (copy / "artifact.json").write_bytes(with_checksum(about))
        with pytest.raises(ArtifactError):
            danlu.load(copy)


def _spoiled(changes: list[dict[str, Any]]) -> list[Any]:
    """Records that a hostile or damaged file could hold."""
    record = changes[-1]
    text = json.dumps(record)
    found: list[Any] = [
        [{**record, "name": "no_such_part"}],
        [{**record, "options": {"no": "option"}}],
        5,
        [{"name": record["name"]}],
    ]
    if record["state"].get("layers") or record["state"].get("ranks"):
        found += [
            [record, record],
            [
                json.loads(
                    text.replace("body", "nobody").replace('"1"', '"x"').replace(".weight", ".x")
                )
            ],
        ]
        if "ranks" in record["state"]:
            found.append(
                [{**record, "state": {"ranks": dict.fromkeys(record["state"]["ranks"], 10**9)}}]
            )
    return [each for each in found if each != changes]
