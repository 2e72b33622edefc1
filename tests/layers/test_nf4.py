"""Frozen matrices in 4 or 8 bits: what is kept, what is multiplied, and what an artifact holds at the end (QLoRA)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import danlu
import tiny_checkpoints as tiny
from danlu import registry
from danlu.errors import RunError
from danlu.layers.quantization.nf4 import (
    NF4,
    FrozenQuantizedLinear,
    parameter_count,
    quantized_bytes,
)
from danlu.layers.tensors import unique_tensors
from danlu.recipe import FineTune, read
from danlu.system.placement import forward_flops
from danlu.training.finetuning import merge_adapters, prepare_finetuning
from danlu.training.lora import LoraLinear, quantize_base
from danlu.training.setup import build_training

KINDS = ["nf4", "int8"]
# half the widest gap between two values of a code, as a share of the block's largest number
COARSE = {"nf4": (1.0 - 0.6961928009986877) / 2, "int8": 0.5 / 127}


def linear(inputs: int = 150, outputs: int = 33) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inputs, outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_is_kept_to_the_nearest_value_of_its_block(kind) -> None:
    layer = linear()
    weight = layer.weight.detach().clone()
    found = FrozenQuantizedLinear(layer, kind, False).weight
    assert found.shape == weight.shape
    flat = torch.cat([weight.flatten(), torch.zeros(-weight.numel() % 64)]).view(-1, 64)
    largest = flat.abs().amax(1)
    wrong = torch.cat([(found - weight).abs().flatten(), torch.zeros(-weight.numel() % 64)]).view(
        -1, 64
    )
    # the scale of a block is itself kept in 8 bits for nf4: off by half of 1/127 of the widest
    # apart from their mean
    slack = (largest - largest.mean()).abs().max() / 254 if kind == "nf4" else 0.0
    assert bool((wrong <= COARSE[kind] * largest[:, None] + slack + 1e-7).all())


def test_the_values_of_nf4_are_quantiles_of_a_normal_distribution() -> None:
    # appendix E of the paper: eight parts below zero and seven above, from an offset on
    offset = 0.9677083
    normal = torch.distributions.Normal(0.0, 1.0)
    above = normal.icdf(torch.linspace(offset, 0.5, 9)[:-1])
    below = -normal.icdf(torch.linspace(offset, 0.5, 8)[:-1])
    wanted = torch.sort(torch.cat([above, torch.zeros(1), below])).values
    # 1e-6: the paper's table and torch's inverse are both float32
    torch.testing.assert_close(torch.tensor(NF4), wanted / wanted.max(), rtol=0, atol=1e-6)


def test_the_share_of_memory_is_that_of_the_paper() -> None:
    module = nn.Sequential(nn.Linear(512, 1024, bias=False))
    quantize_base(module, ["0"], "nf4")
    few, full = quantized_bytes(module)
    assert full == 4 * 512 * 1024
    assert 8 * few / (512 * 1024) == pytest.approx(
        4 + 8 / 64 + 32 / (64 * 256), abs=1e-3
    )  # bits: codes, scales, their scales
    assert parameter_count(module) == 512 * 1024


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_opened_matrix(kind, dtype) -> None:
    few = FrozenQuantizedLinear(linear(), kind, False)
    x = torch.randn(5, 7, 150, generator=torch.Generator().manual_seed(1))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = few(ours)
        wanted = nn.functional.linear(theirs, few.weight, few.bias)
    assert y.dtype == wanted.dtype == dtype
    # the bias is added before or after the product is rounded: 2 of the last of 8 bits
    close_enough = (
        {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    )
    torch.testing.assert_close(y, wanted, **close_enough)
    y.sum().backward()
    wanted.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, **close_enough)


def test_no_open_matrix_is_kept_for_the_backward_pass() -> None:
    module = nn.Sequential(*[nn.Linear(256, 256) for _ in range(4)])
    quantize_base(module, ["0", "1", "2", "3"], "nf4")
    kept: list[int] = []

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        module(torch.randn(2, 256, requires_grad=True))
    assert sum(kept) < 256 * 256


class Blocks(nn.Module):
    """Two blocks between an embedding and a head; the layer `side` of both is the same one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 8)
        shared = nn.Linear(8, 8)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {"up": nn.Linear(8, 20), "down": nn.Linear(20, 8, bias=False), "side": shared}
            )
            for _ in range(2)
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embedding(x)
        for block in self.blocks:
            x = x + block["down"](block["up"](x).relu()) + block["side"](x)
        return self.head(x)


X = torch.tensor([[1, 2, 3], [6, 0, 5]])


def asked(**lora: Any) -> FineTune:
    return FineTune.model_validate({"lora": {"rank": 2, **lora}})


@pytest.mark.parametrize("kind", KINDS)
def test_the_merged_model_is_a_plain_one_that_answers_as_the_paths_did(kind) -> None:
    module = Blocks()
    names, kinds = list(module.state_dict()), [type(each) for each in module.modules()]
    total = sum(each.numel() for each in module.parameters())
    said = prepare_finetuning(
        module, asked(base=kind, targets=["up"]), ["head.weight", "head.bias"]
    )
    assert f"kept in {kind}" in said and f"of {total + 4 * 28:,} weights" in said
    assert isinstance(module.blocks[0]["up"], LoraLinear)
    assert isinstance(module.blocks[1]["down"], FrozenQuantizedLinear)
    assert isinstance(module.blocks[0]["side"], nn.Linear)  # two places hold it
    with torch.no_grad():
        for name, each in module.named_parameters():
            if "low_rank" in name:
                each.add_(torch.randn(each.shape, generator=torch.Generator().manual_seed(3)))
    wanted = module(X)
    merge_adapters(module)
    # 1e-5: (x W' + x A' B') and x (W + B A)' are the same sum in another order
    torch.testing.assert_close(module(X), wanted, rtol=1e-5, atol=1e-5)
    assert list(module.state_dict()) == names
    assert [type(each) for each in module.modules()] == kinds


def test_what_is_thawed_or_new_is_not_kept_in_few_bits() -> None:
    module = Blocks()
    finetune = FineTune.model_validate(
        {"lora": {"base": "nf4", "targets": ["up"]}, "thaw": ["blocks.0.down.*"]}
    )
    prepare_finetuning(module, finetune, ["blocks.1.down.weight"])
    assert (
        not isinstance(module.blocks[0]["down"], FrozenQuantizedLinear)
        and module.blocks[0]["down"].weight.requires_grad
    )
    assert (
        not isinstance(module.blocks[1]["down"], FrozenQuantizedLinear)
        and module.blocks[1]["down"].weight.requires_grad
    )


def test_work_is_that_of_the_matrices_that_stand_for_what_is_kept() -> None:
    plain, few = nn.Sequential(nn.Linear(64, 128)), nn.Sequential(nn.Linear(64, 128))
    quantize_base(few, ["0"], "nf4")
    x: Any = torch.randn(3, 64)
    assert forward_flops(few, x) == forward_flops(plain, x)


# --- whole runs ---------------------------------------------------------------------------------------------------------

SMALL = {"name": "gpt", "num_layers": 2, "num_heads": 2, "width": 32}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Any:
    pytest.importorskip(
        "tokenizers", reason="tokenizers is not installed: pip install 'danlu[text]'"
    )
    home = tmp_path_factory.mktemp("few_bits")
    (home / "text.txt").write_text(
        "\n".join(row["text"] for row in tiny.sentences(400)), encoding="utf-8"
    )
    tiny.write_rows(home / "rows.jsonl", tiny.sentences())
    danlu.train(told(home), home / "base")
    return home


def told(home: Any, finetune: Any = None, **model: Any) -> dict[str, Any]:
    return {
        "name": "few_bits", "task": {"name": "language_modeling", "context": 16}, "watchers": ["jsonl"],
        "data": {
            "source": {"name": "text", "path": str(home / "text.txt")},
            "transforms": {"text": [{"name": "tokenize", "kind": "characters"}]},
        },
        "model": {**SMALL, **model}, "train": {"steps": 12, "batch_size": 8, "save_every": 4}, "finetune": finetune or {},
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_from_an_artifact_learns_and_its_artifact_is_a_plain_model(
    kind, home, tmp_path
) -> None:
    recipe = told(home, {"lora": {"rank": 4, "base": kind}}, weights=str(home / "base"))
    artifact = danlu.train(recipe, tmp_path / "run")
    plain = danlu.load(home / "base")
    assert list(artifact.module.state_dict()) == list(plain.module.state_dict())
    assert all(each.dtype == torch.float32 for each in artifact.module.state_dict().values())
    assert artifact.scores["test"]["loss"] < plain.scores["test"]["loss"]
    assert danlu.evaluate(artifact).values["loss"] == pytest.approx(
        artifact.scores["test"]["loss"], abs=0
    )


def test_a_run_that_was_cut_off_ends_in_the_weights_of_the_unbroken_one(
    home, tmp_path, monkeypatch
) -> None:
    from danlu.training.step import SupervisedStep

    recipe = told(home, {"lora": {"rank": 4, "base": "nf4"}}, weights=str(home / "base"))
    recipe["regularization"] = {"ema_decay": 0.9}
    wanted = unique_tensors(danlu.train(recipe, tmp_path / "whole").module)
    update = SupervisedStep.__call__

    def cut(self: Any, n: int) -> None:
        if n == 7:
            raise KeyboardInterrupt
        update(self, n)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedStep, "__call__", cut)
        with pytest.raises(danlu.errors.Interrupted):
            danlu.train(recipe, tmp_path / "cut")
    found = unique_tensors(danlu.train(recipe, tmp_path / "cut").module)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_pretrained_checkpoint_learns_beside_four_bits(family, home, tmp_path) -> None:
    pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install 'danlu[huggingface]'"
    )
    folder = getattr(tiny, family)(tmp_path / family)
    recipe = {
        "name": "tuned", "task": "classification", "watchers": [],
        "data": {"source": str(home / "rows.jsonl"), "target": "label", "columns": {"text": {"kind": "text"}}},
        "model": {"name": "pretrained", "path": str(folder)}, "train": {"steps": 4, "batch_size": 16},
        "finetune": {"lora": {"rank": 4, "base": "nf4"}},
    }  # fmt: skip
    built = build_training(read(recipe, registry))
    closed = [
        each for each in built.state.module.modules() if isinstance(each, FrozenQuantizedLinear)
    ]
    assert len(closed) == (12 if family == "bert" else 8)
    assert any("kept in nf4" in notice for notice in built.data.notices)
    before = {name: each.clone() for name, each in built.state.live.items()}
    built.update(0)
    built.update(1)
    changed = {
        name for name, each in built.state.live.items() if not torch.equal(each, before[name])
    }
    fresh = {name for name in built.start.fresh if name in built.state.live}
    assert {name for name in changed if "low_rank" not in name} == fresh
    artifact = danlu.train(recipe, tmp_path / "run")
    assert not [
        name
        for name in artifact.module.state_dict()
        if "low_rank" in name or name.endswith(".codes")
    ]


def test_few_bits_need_learnt_weights(home) -> None:
    with pytest.raises(RunError, match="this model has none"):
        build_training(read(told(home, {"lora": {"base": "nf4"}}), registry))
