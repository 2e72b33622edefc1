"""Which tensors a model takes over from another."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import danlu
import make
from danlu import registry
from danlu.layers.tensors import unique_tensors
from danlu.recipe import read
from danlu.training.pretrained_weights import match_tensors
from danlu.training.setup import build_training

BODY = {
    "reader.weight": (7, 4),
    "stack.0.up.weight": (8, 4),
    "stack.0.up.bias": (8,),
    "stack.1.up.weight": (8, 4),
    "stack.1.up.bias": (8,),
}


def tensors(prefix: str, **more: tuple[int, ...]) -> dict[str, torch.Tensor]:
    named = {f"{prefix}{name}": shape for name, shape in BODY.items()} | {
        name.replace("_", "."): shape for name, shape in more.items()
    }
    return {name: torch.zeros(shape) for name, shape in named.items()}


def test_equal_names_and_shapes_are_taken() -> None:
    mine, theirs = tensors("", head_weight=(3, 4)), tensors("", head_weight=(7, 4))
    assert match_tensors(mine, theirs) == {name: name for name in BODY}


def test_a_body_under_another_head_is_found_behind_its_prefix() -> None:
    mine, theirs = (
        tensors("0.encoder.", last_head_weight=(2, 4)),
        tensors("encoder.", head_1_weight=(7, 4)),
    )
    assert match_tensors(mine, theirs) == {f"0.encoder.{name}": f"encoder.{name}" for name in BODY}
    assert match_tensors(theirs, mine) == {f"encoder.{name}": f"0.encoder.{name}" for name in BODY}


def test_a_tensor_of_another_shape_is_left_alone() -> None:
    mine, theirs = tensors("a."), tensors("b.")
    theirs["b.reader.weight"] = torch.zeros(9, 4)
    assert "a.reader.weight" not in match_tensors(mine, theirs)
    assert len(match_tensors(mine, theirs)) == 4


def test_layers_that_are_more_than_the_other_has_are_not_made_of_its_layers() -> None:
    mine = tensors("") | {"stack.2.up.weight": torch.zeros(8, 4), "stack.2.up.bias": torch.zeros(8)}
    assert match_tensors(mine, tensors("")) == {name: name for name in BODY}


def test_a_layer_that_only_looks_like_another_is_not_made_of_it() -> None:
    mine = tensors("") | {
        "pooler.dense.weight": torch.zeros(4, 4),
        "pooler.dense.bias": torch.zeros(4),
    }
    theirs = tensors("") | {"head.dense.weight": torch.ones(4, 4), "head.dense.bias": torch.ones(4)}
    assert match_tensors(mine, theirs) == {name: name for name in BODY}


# --- whole models -------------------------------------------------------------------------------------------------------


def of_images(model: dict[str, Any], **data: Any) -> dict[str, Any]:
    return make.digits(name="digits", model=model, watchers=[], data={"checks": "off", **data}, train={"steps": 2, "batch_size": 16})  # fmt: skip


def of_texts(
    home: Path, model: dict[str, Any], labels: tuple[str, str] = ("bad", "good")
) -> dict[str, Any]:
    draw = random.Random(0)
    rows = [
        {
            "text": " ".join(draw.choices(["a", "film", "is", "dull", "fine"], k=5)),
            "mood": draw.choice(labels),
        }
        for _ in range(60)
    ]
    path = home / f"{labels[0]}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return {
        "name": "texts", "task": "classification", "model": model, "watchers": [], "train": {"steps": 2, "batch_size": 16},
        "data": {"source": str(path), "target": "mood", "columns": {"text": {"kind": "text"}}, "checks": "off"},
    }  # fmt: skip


SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"width": 4}, "resnet": {"width": 4}, "wide_resnet": {"depth": 10, "width": 1},
    "vit": {"width": 16, "num_heads": 2, "num_layers": 1}, "mlp_mixer": {"width": 16, "num_layers": 1},
}  # fmt: skip


@pytest.mark.parametrize("name", list(SMALL))
def test_a_model_of_images_starts_from_another_of_its_kind(name: str, tmp_path: Path) -> None:
    model = {"name": name, **SMALL[name]}
    first = danlu.train(of_images(model), tmp_path / "first")
    built = build_training(read(of_images({**model, "weights": str(tmp_path / "first")}), registry))
    assert built.start is not None and built.start.fresh == ()
    ours, theirs = unique_tensors(built.state.module), unique_tensors(first.module)
    assert all(torch.equal(ours[each], theirs[each]) for each in theirs)


def test_a_head_for_other_classes_is_drawn_anew_though_it_has_as_many(tmp_path: Path) -> None:
    model = {"name": "rnn", "width": 8, "embedding": 8}
    danlu.train(of_texts(tmp_path, model), tmp_path / "first")
    goes_on = {**model, "weights": str(tmp_path / "first")}
    same = build_training(read(of_texts(tmp_path, goes_on), registry)).start
    other = build_training(read(of_texts(tmp_path, goes_on, ("left", "right")), registry)).start
    assert same is not None and same.fresh == ()
    assert (
        other is not None
        and len(other.fresh) == 2
        and all(name.endswith(("weight", "bias")) for name in other.fresh)
    )


def test_a_translator_goes_on_in_the_vocabularies_of_another(tmp_path: Path) -> None:
    def recipe(words: list[str], **model: Any) -> dict[str, Any]:
        draw = random.Random(1)
        rows = [
            {
                "said": " ".join(draw.choices(words, k=4)),
                "back": " ".join(draw.choices(words, k=3)).upper(),
            }
            for _ in range(60)
        ]
        path = tmp_path / f"{words[0]}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return {
            "name": "pairs", "task": {"name": "sequence_to_sequence", "kind": "characters"}, "watchers": [],
            "data": {
                "source": str(path), "target": "back", "split": "random", "checks": "off",
                "columns": {"said": {"kind": "text"}, "back": {"kind": "text"}},
                "transforms": {"text": [{"name": "tokenize", "kind": "characters", "end": True}]},
            },
            "model": {"name": "seq2seq", "size": "tiny", "width": 16, **model}, "train": {"steps": 2, "batch_size": 16},
        }  # fmt: skip

    first = danlu.train(recipe(["one", "two", "three"]), tmp_path / "first")
    built = build_training(
        read(recipe(["noon", "tree", "hut"], weights=str(tmp_path / "first")), registry)
    )
    assert built.start is not None and built.start.fresh == ()
    assert (
        built.data.task.tokenizer.state() == first.task.tokenizer.state()
    )  # what is written, in capitals
    assert (
        built.data.preprocessor.tokenizer.state() == first.preprocessor.tokenizer.state()
    )  # what is read
    ours, theirs = unique_tensors(built.state.module), unique_tensors(first.module)
    assert all(torch.equal(ours[each], theirs[each]) for each in theirs)
