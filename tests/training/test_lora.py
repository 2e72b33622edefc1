"""Fine-tuning: low-rank paths, frozen weights, rates by layer."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch
from torch import nn

import danlu
from danlu import registry
from danlu.errors import RunError
from danlu.layers.dropout import Dropout
from danlu.recipe import FineTune, read
from danlu.training.finetuning import learning_rate_shares, prepare_finetuning, split_by_rate
from danlu.training.lora import LoraLinear, adaptable_layers, add_lora, merge_lora
from danlu.training.setup import build_training

# 1e-5: x W' + x A' B' and x (W + B A)' are the same sum of float32 products in another order
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


class Blocks(nn.Module):
    """Two blocks between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(6, 5), "down": nn.Linear(5, 6, bias=False)})
            for _ in range(2)
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding(x)
        for block in self.blocks:
            x = x + block["down"](block["up"](x).relu())
        return self.head(x)


def model() -> Blocks:
    torch.manual_seed(0)
    return Blocks()


def moved(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "low_rank" in name:
                parameter.add_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
                )
    return module


X = torch.tensor([[1, 2, 3], [6, 0, 5]])


# --- low-rank paths -----------------------------------------------------------------------------------------------------


def test_a_path_changes_nothing_before_its_first_update() -> None:
    plain, other = model(), model()
    add_lora(other, adaptable_layers(other), 2, 4.0, 0.0)
    assert torch.equal(plain(X), other(X))


def test_merged_weights_answer_as_the_paths_did_and_are_named_as_before() -> None:
    module = model()
    names, kinds = list(module.state_dict()), [type(each) for each in module.modules()]
    add_lora(module, adaptable_layers(module), 2, 3.0, 0.5)
    moved(module)
    wanted, before = module.eval()(X), model()(X)
    assert not torch.allclose(wanted, before, atol=1e-2)
    merge_lora(module)
    torch.testing.assert_close(module(X), wanted, **CLOSE)
    assert list(module.state_dict()) == names
    assert [type(each) for each in module.modules()] == kinds


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_outputs_and_gradients_are_those_of_peft(dropout) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install peft")
    ours = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    theirs = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    theirs.load_state_dict(ours.state_dict())
    add_lora(ours, ["0", "2"], 3, 7.0, dropout)
    moved(ours)
    theirs = peft.get_peft_model(
        theirs, peft.LoraConfig(r=3, lora_alpha=7, target_modules=["0", "2"], lora_dropout=dropout)
    )
    with torch.no_grad():
        for number in ("0", "2"):
            layer, other = ours.get_submodule(number), theirs.base_model.model.get_submodule(number)
            other.lora_A["default"].weight.copy_(layer.low_rank_down)
            other.lora_B["default"].weight.copy_(layer.low_rank_up)
            if dropout:
                other.lora_dropout["default"] = Dropout(
                    dropout
                )  # torch's own would drop others for the same seed
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    outputs = []
    for module in (ours, theirs):
        torch.manual_seed(3)  # both drop the same numbers
        outputs.append(module(x))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(*outputs, **CLOSE)
    for number in ("0", "2"):
        layer, other = ours.get_submodule(number), theirs.base_model.model.get_submodule(number)
        torch.testing.assert_close(
            layer.low_rank_down.grad, other.lora_A["default"].weight.grad, **CLOSE
        )
        torch.testing.assert_close(
            layer.low_rank_up.grad, other.lora_B["default"].weight.grad, **CLOSE
        )
    merge_lora(ours)
    merged = theirs.merge_and_unload()
    for one, other in zip(ours.parameters(), merged.parameters(), strict=True):
        torch.testing.assert_close(one, other, **CLOSE)


def test_the_linear_layer_of_gpt2_gets_a_path_too() -> None:
    pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install 'danlu[huggingface]'"
    )
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    module = nn.Sequential(Conv1D(5, 7))
    x = torch.randn(3, 7)
    before = module(x)
    add_lora(module, ["0"], 2, 2.0, 0.0)
    torch.testing.assert_close(module(x), before, **CLOSE)
    wanted = moved(module)(x)
    merge_lora(module)
    assert not torch.allclose(wanted, before, atol=1e-2)
    torch.testing.assert_close(module(x), wanted, **CLOSE)


# --- what moves, and how fast -------------------------------------------------------------------------------------------


def trained(module: nn.Module) -> set[str]:
    return {name for name, each in module.named_parameters() if each.requires_grad}


def asked(**options: Any) -> FineTune:
    return FineTune.model_validate(options)


def test_low_rank_adaptation_moves_the_paths_and_what_was_drawn_anew_alone() -> None:
    module = model()
    said = prepare_finetuning(module, asked(lora={"rank": 2}), ["head.weight", "head.bias"])
    blocks = {
        f"blocks.{n}.{layer}.low_rank_{side}"
        for n in (0, 1)
        for layer in ("up", "down")
        for side in ("up", "down")
    }
    assert trained(module) == blocks | {"head.weight", "head.bias"}
    assert "rank 2 in 4 layers" in said


def test_paths_stand_where_they_are_asked_and_what_is_thawed_moves() -> None:
    module = model()
    prepare_finetuning(module, asked(lora={"rank": 2, "targets": ["*.1.up"]}, thaw=["*.bias"]), [])
    assert isinstance(module.blocks[1]["up"], LoraLinear)
    assert trained(module) == {
        "blocks.1.up.low_rank_up", "blocks.1.up.low_rank_down", "blocks.0.up.bias", "blocks.1.up.bias", "head.bias"
    }  # fmt: skip


def test_names_with_stars_freeze() -> None:
    module = model()
    prepare_finetuning(module, asked(freeze=["embedding.*", "blocks.0.*"]), None)
    assert trained(module) == {
        "blocks.1.up.weight",
        "blocks.1.up.bias",
        "blocks.1.down.weight",
        "head.weight",
        "head.bias",
    }


def test_a_frozen_batch_normalization_keeps_its_statistics_and_uses_them() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    prepare_finetuning(module, asked(freeze=["1.*"]), None)
    module.train()
    module(torch.randn(20, 3) + 5)
    assert torch.equal(module[1].running_mean, torch.zeros(3))
    x = torch.randn(4, 3)
    assert torch.equal(module.train()(x), module.eval()(x))


def test_layers_learn_the_slower_the_deeper_they_lie() -> None:
    module = model()
    shares = learning_rate_shares(module, asked(layer_decay=0.5, rates={"head.*": 10.0}))
    by_name = {name: shares.get(each, 1.0) for name, each in module.named_parameters()}
    assert by_name["embedding.weight"] == 0.125
    assert by_name["blocks.0.up.weight"] == 0.25
    assert by_name["blocks.1.down.weight"] == 0.5
    assert by_name["head.bias"] == 10.0
    groups = split_by_rate([{"params": list(module.parameters()), "weight_decay": 0.1}], shares)
    assert {group.get("learning_rate_scale", 1.0): len(group["params"]) for group in groups} == {
        0.125: 1,
        0.25: 3,
        0.5: 3,
        10.0: 2,
    }
    assert all(group["weight_decay"] == 0.1 for group in groups)


@pytest.mark.parametrize(
    ("options", "fresh", "message"),
    [
        (
            {"freeze": ["nothing.*"]},
            None,
            r"finetune\.freeze names nothing\.\*.*\n.*embedding\.weight, blocks\.0",
        ),
        ({"rates": {"tail": 2.0}}, None, r"finetune\.rates names tail"),
        ({"freeze": ["*"]}, None, "leaves no weight to train"),
        ({"lora": {}}, None, "this model has none"),
        ({"lora": {"targets": ["query"]}}, [], r"finetune\.lora\.targets names query"),
    ],
)
def test_what_cannot_be_is_refused(options, fresh, message) -> None:
    module = model()
    with pytest.raises(RunError, match=message):
        prepare_finetuning(module, asked(**options), fresh)
        learning_rate_shares(module, asked(**options))


def test_a_model_without_blocks_has_no_depth() -> None:
    with pytest.raises(RunError, match="needs a model with a list of blocks"):
        learning_rate_shares(nn.Sequential(nn.Linear(2, 2)), asked(layer_decay=0.9))


# --- whole runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Any:
    draw = random.Random(0)
    rows = []
    for _ in range(150):
        label = draw.choice(["bad", "good"])
        words = draw.choices(["the", "film", "is", "a", "play"], k=5)
        words.insert(draw.randrange(5), {"good": "great", "bad": "awful"}[label])
        rows.append({"text": " ".join(words), "label": label})
    home = tmp_path_factory.mktemp("low_rank")
    (home / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    base = {
        "name": "base", "task": {"name": "masked_language_modeling", "context": 16, "column": "text"},
        "data": {"source": str(home / "rows.jsonl"), "transforms": {"text": [{"name": "tokenize", "kind": "words"}]}},
        "model": SMALL, "train": {"steps": 3}, "watchers": [],
    }  # fmt: skip
    danlu.train(base, home / "base")
    return home


SMALL = {"name": "encoder", "num_layers": 2, "num_heads": 2, "width": 8}


def told(home: Any, **finetune: Any) -> dict[str, Any]:
    return {
        "name": "tuned", "task": "classification", "watchers": [], "finetune": finetune,
        "data": {"source": str(home / "rows.jsonl"), "target": "label", "columns": {"text": {"kind": "text"}}},
        "model": {**SMALL, "weights": str(home / "base")}, "train": {"steps": 4, "batch_size": 16},
    }  # fmt: skip


def test_a_run_leaves_the_weights_beside_its_paths_as_they_were(written) -> None:
    built = build_training(read(told(written, lora={"rank": 2}), registry))
    before = {name: each.clone() for name, each in built.state.live.items()}
    built.update(0)
    built.update(1)
    changed = {
        name for name, each in built.state.live.items() if not torch.equal(each, before[name])
    }
    assert changed == trained(built.state.module)
    assert {name for name in changed if "low_rank" not in name} == {"2.weight", "2.bias"}


def test_an_artifact_holds_the_merged_weights_and_its_scores_are_theirs(written, tmp_path) -> None:
    artifact = danlu.train(
        told(written, lora={"rank": 2}, rates={"low_rank_up": 20.0}), tmp_path / "run"
    )
    assert not [name for name in artifact.module.state_dict() if "low_rank" in name]
    base = danlu.load(written / "base").module.state_dict()
    tuned = artifact.module.state_dict()
    name = "stack.blocks.0.attention.query.weight"
    ends = [next(key for key in each if key.endswith(name)) for each in (tuned, base)]
    assert not torch.equal(tuned[ends[0]], base[ends[1]])
    assert danlu.evaluate(artifact).values["loss"] == pytest.approx(
        artifact.scores["test"]["loss"], abs=0
    )


def test_paths_without_learnt_weights_are_refused(written) -> None:
    recipe = told(written, lora={})
    recipe["model"] = SMALL
    with pytest.raises(RunError, match=r"model\.weights"):
        build_training(read(recipe, registry))


def test_rates_reach_the_optimizer(written) -> None:
    built = build_training(read(told(written, layer_decay=0.5, freeze=["tables.*"]), registry))
    shares = {group.get("learning_rate_scale", 1.0) for group in built.state.optimizer.param_groups}
    assert shares == {0.25, 0.5, 1.0}  # what stands before the blocks is frozen
    built.update(0)
    rate = built.update.learning_rate * built.schedule(0)
    assert {group["lr"] for group in built.state.optimizer.param_groups} == {
        rate * share for share in shares
    }
