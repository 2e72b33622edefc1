"""Compression: the kernels, what is stored, the chain of changes, the limit, the section of a recipe."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from typer.testing import CliRunner

import danlu
import make
from danlu import recipe as recipes
from danlu import registry
from danlu.artifact.packing import pack, unpack
from danlu.cli.app import app
from danlu.compression import costs
from danlu.compression.compressors._structured import groups, narrow
from danlu.compression.compressors._svd import Factored
from danlu.compression.distillation_loss import AttentionPair, DistillationLoss, HiddenStatePair
from danlu.errors import DanluError, PartError, RecipeError
from danlu.layers.attention.multi_head import Attention
from danlu.layers.quantization import int8
from danlu.layers.quantization.batch_norm_folding import fold, foldable_pairs
from danlu.layers.quantization.fake_quant import (
    FakeQuantizedLayer,
    MaskedLayer,
    restore_plain_layers,
)
from danlu.layers.quantization.int8 import (
    DynamicInt8Linear,
    StaticInt8Conv,
    StaticInt8Linear,
    dequantize,
    quantize,
)
from danlu.layers.quantization.weight_only import (
    Int4WeightOnlyLinear,
    Int8WeightOnlyEmbedding,
    Int8WeightOnlyLinear,
    tied_product,
)
from danlu.parts.losses.cross_entropy import CrossEntropy
from danlu.terms import Batch
from danlu.training.pretrained_weights import load_pretrained

RECIPE: dict[str, Any] = make.digits(
    name="digits",
    data={"split": {"name": "stratified", "validation": 0.1, "test": 0.2}},
    model={"name": "mlp", "hidden": [64, 32]},
    train={"epochs": 3, "batch_size": 32, "threads": 1},
)


@pytest.fixture(autouse=True)
def costs_are_told_in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "SECONDS", 0.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> danlu.Artifact:
    return danlu.train(RECIPE, run=tmp_path_factory.mktemp("run"))


# --- layers

ODD = [(1, 3), (7, 5), (31, 17), (33, 2), (100, 65)]


@pytest.mark.parametrize(("inputs", "outputs"), ODD)
@pytest.mark.parametrize("rows", [1, 5])
def test_kernels_and_ordinary_operators_give_the_same(
    inputs: int, outputs: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(inputs)
    linear, image, row = (
        nn.Linear(inputs, outputs),
        nn.Conv2d(inputs, outputs, 3, 2, 1),
        nn.Conv1d(inputs, outputs, 3, 1, 1),
    )
    layers = [
        (DynamicInt8Linear(linear.weight, linear.bias), torch.randn(rows, inputs)),
        (StaticInt8Linear(linear, 0.03, 127), torch.randn(rows, 4, inputs)),
        (StaticInt8Conv(image, 0.03, 127), torch.randn(rows, inputs, 5, 6)),
        (StaticInt8Conv(row, 0.03, 127), torch.randn(rows, inputs, 7)),
    ]
    fast = [layer(x) for layer, x in layers]
    monkeypatch.setattr(int8, "needs_float_products", lambda x: True)
    for (layer, x), y in zip(layers, fast):
        # both sum whole numbers; only the last multiplications are rounded, to 2^-24 each
        assert torch.allclose(layer(x), y, rtol=1e-5, atol=1e-5), type(layer)


@pytest.mark.parametrize("group", [32, 64])
@pytest.mark.parametrize(("inputs", "outputs"), ODD)
def test_kept_matrices_are_multiplied_as_their_weight_says(
    inputs: int, outputs: int, group: int
) -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(inputs, outputs), torch.randn(3, 2, inputs)
    layers = [Int8WeightOnlyLinear(linear, "bfloat16"), Int8WeightOnlyLinear(linear, "float32")]
    layers += [
        Int4WeightOnlyLinear(linear, group, "bfloat16"),
        Int4WeightOnlyLinear(linear, group, "float32"),
    ]  # type: ignore[list-item]
    for layer, bits in zip(layers, (8, 8, 4, 4)):
        said = functional.linear(x, layer.weight, layer.bias)
        near = (
            0.02 if layer.products == "bfloat16" else 1e-5
        )  # bfloat16 keeps 8 significant bits of inputs, scales and answers
        assert (layer(x) - said).abs().max() <= near * said.abs().max() + 1e-6
        step = linear.weight.abs().max() / (2 ** (bits - 1) - 1)
        assert (layer.weight - linear.weight).abs().max() <= 1.2 * step


def test_a_tied_table_answers_from_its_codes() -> None:
    table, x = nn.Embedding(50, 33), torch.randn(4, 33)
    kept = Int8WeightOnlyEmbedding(table, "float32")
    assert torch.equal(kept(torch.tensor([[3, 7]])), kept.weight[[3, 7]][None])
    assert torch.allclose(
        tied_product(x, kept), functional.linear(x, kept.weight), atol=1e-5
    )  # sums in another order
    assert torch.equal(tied_product(x, table), functional.linear(x, table.weight))


def test_new_weights_are_seen_after_the_first_answer() -> None:
    layer, x = StaticInt8Linear(nn.Linear(40, 30), 0.03, 127), torch.randn(2, 40)
    before = layer(x)
    layer.codes.zero_()
    assert not torch.equal(layer(x), before)
    assert torch.allclose(layer(x), layer.bias.expand(2, -1))


def test_a_dynamic_answer_does_not_depend_on_the_rows_beside_it() -> None:
    linear = nn.Linear(64, 20)
    layer, x = DynamicInt8Linear(linear.weight, linear.bias), torch.randn(9, 64)
    x[5] *= 1000
    for row in range(9):
        assert torch.equal(layer(x[row : row + 1])[0], layer(x)[row])


def test_numbers_that_were_rounded_are_rounded_to_themselves() -> None:
    torch.manual_seed(0)
    for spread in (1e-6, 1e-3, 1.0, 300.0):
        weight = dequantize(*quantize(torch.randn(200, 33) * spread))
        assert torch.equal(dequantize(*quantize(weight)), weight)
    assert not dequantize(*quantize(torch.zeros(3, 4))).any()


def test_codes_are_handed_on_between_layers() -> None:
    torch.manual_seed(0)
    first, second, x = (
        nn.Conv2d(8, 16, 3, padding=1),
        nn.Conv2d(16, 8, 3, padding=1),
        torch.rand(2, 8, 6, 6),
    )
    middle = torch.relu(first(x))
    scale = float(middle.detach().max()) / 255
    apart = StaticInt8Conv(first, float(x.max()) / 255, 0), StaticInt8Conv(second, scale, 0)
    joined = StaticInt8Conv(first, float(x.max()) / 255, 0), StaticInt8Conv(second, scale, 0)
    joined[0].relu = True
    joined[0].give_codes_to(joined[1])
    if int8.has_int8_kernels():
        assert joined[0](x).dtype == torch.uint8
    # numbers near a half may be rounded the other way: a step of the scale, times a weight
    difference = (joined[1](joined[0](x)) - apart[1](torch.relu(apart[0](x)))).abs()
    assert difference.max() <= 3 * scale * second.weight.abs().max()
    assert (difference > 1e-5).float().mean() < 0.2


def test_folding_a_normalisation_changes_no_answer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 5),
        nn.BatchNorm1d(5),
    )
    for _ in range(3):
        net(torch.randn(16, 3, 4, 4))
    net.eval()
    x = torch.randn(7, 3, 4, 4)
    before, pairs = net(x), foldable_pairs(net)
    assert pairs == [("0", "1"), ("4", "5")]
    fold(net, pairs)
    assert torch.allclose(net(x), before, atol=1e-5)  # one multiplication in place of two


def test_units_that_nobody_reads_can_go() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )
    net(torch.randn(9, 1, 6, 6))
    net.eval()
    found, x = groups(net, None, []), torch.randn(4, 1, 6, 6)
    assert [(each.name, each.reader, each.spread) for each in found] == [
        ("0", "5", 4),
        ("5", "7", 1),
    ]
    with torch.no_grad():
        net[5].weight[:, 8:12] = 0  # nobody reads channel 2
        net[7].weight[:, 4] = 0
    before = net(x)
    narrow(net, found, {"0": torch.tensor([0, 1, 3, 4, 5]), "5": torch.tensor([0, 1, 2, 3])})
    assert net[5].weight.shape == (4, 20)
    assert torch.allclose(net(x), before, atol=1e-6)  # sums of fewer zeros


def test_a_mask_holds_through_training_and_a_rounding_lets_gradients_through() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    net[0] = MaskedLayer(net[0], torch.arange(24).view(4, 6) % 2)
    net[1] = FakeQuantizedLayer(net[1], 0.05, 128)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    before = net[1].weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(5, 6)).square().sum().backward()
        optimizer.step()
    restore_plain_layers(net)
    assert (net[0].weight.flatten()[::2] == 0).all() and (net[0].weight.flatten()[1::2] != 0).all()
    assert not torch.equal(net[1].weight, before)


def test_a_full_rank_pair_is_the_layer_itself() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(9, 5), torch.randn(3, 9)
    assert torch.allclose(
        Factored(linear, 5)(x), linear(x), atol=1e-5
    )  # two products in place of one
    with pytest.raises(ValueError, match="no rank 6"):
        Factored(linear, 6)


# --- learning from a teacher


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    student = copy.deepcopy(teacher)

    class Net(nn.Module):
        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.body(inputs["x"])

    there, here = Net(teacher), Net(student)
    pairs = [HiddenStatePair(teacher[0], student[0], 1.0)]
    batch = Batch({"x": torch.randn(5, 4)}, torch.tensor([0, 1, 2, 0, 1]), torch.arange(5))
    loss = DistillationLoss(
        CrossEntropy(0.0, None),
        there,
        lambda each: each.inputs,
        (("classes", 3),),
        temperature=2.0,
        weight=1.0,
        pairs=pairs,
    )
    total, count = loss(here(batch.inputs), batch)
    assert count == 5
    assert abs(total.item()) < 1e-5
    with torch.no_grad():
        student[1].weight.mul_(2)
    assert loss(here(batch.inputs), batch)[0].item() > 1e-3
    # the gradient of the soft loss by logits is T (softmax(s / T) - softmax(t / T)), a row
    logits = torch.randn(5, 3, requires_grad=True)
    alone = DistillationLoss(
        CrossEntropy(0.0, None),
        there,
        lambda each: each.inputs,
        (("classes", 3),),
        temperature=2.0,
        weight=1.0,
    )
    alone(logits, batch)[0].backward()
    wanted = 2.0 * ((logits / 2).softmax(1) - (there(batch.inputs) / 2).softmax(1))
    assert torch.allclose(logits.grad, wanted, atol=1e-5)  # type: ignore[arg-type]


def test_attention_is_compared_by_where_it_looks() -> None:
    torch.manual_seed(0)
    teacher, student, x = Attention(16, 4), Attention(8, 2), torch.randn(2, 5, 16)
    pair = AttentionPair(teacher, student, 1.0)
    teacher(x, causal=True)
    student(x[..., :8], causal=True)
    assert pair().item() > 0
    same = AttentionPair(teacher, teacher, 1.0)
    teacher(x, causal=True)
    assert abs(same().item()) < 1e-6


# --- what is stored


def test_tensors_of_zeros_are_stored_as_a_bitmap_and_come_back() -> None:
    torch.manual_seed(0)
    weight = torch.randn(60, 37) * (torch.rand(60, 37) < 0.2)
    held, how = pack({"a": weight, "b": torch.randn(3)}, set(), sparse=True)
    assert how == {"a": "sparse"}
    assert (
        sum(each.numel() * each.element_size() for each in held.values()) < 0.3 * weight.numel() * 4
    )
    assert torch.equal(unpack(held, how, {"a": weight})["a"], weight)
    for spoiled in (
        {**held, "a:present": held["a:present"][:-1]},
        {**held, "a:values": held["a:values"][:-1]},
        {**held, "a:values": held["a:values"].double()},
    ):
        with pytest.raises(ValueError, match="a"):
            unpack(spoiled, how, {"a": weight})
    with pytest.raises(
        ValueError, match="bitmap"
    ):  # the model says how large a tensor is, not the file
        unpack(held, how, {"a": torch.zeros(10**4, 10)})


# --- the grammar


def test_steps_are_read_as_a_command_line_writes_them(tmp_path: Path) -> None:
    (tmp_path / "steps.yaml").write_text("- {name: prune, share: 0.25}\n- int8_static\n")
    found = recipes.parse_compressors(
        [
            "prune:share=0.8,epochs=2,layers=['0*', last]",
            "distil:model.width=8",
            {"name": "low_rank", "rank": 0.5},
            str(tmp_path / "steps.yaml"),
        ],
        registry,
    )
    assert [part.name for part in found] == ["prune", "distil", "low_rank", "prune", "int8_static"]
    assert found[0].options.share == 0.8 and found[0].options.layers == ["0*", "last"]  # type: ignore[attr-defined]
    assert found[1].options.model == {"width": 8}  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match="prune:share=2"):
        recipes.parse_compressors(["prune:share=2"], registry)
    with pytest.raises(RecipeError, match="int8_static"):
        recipes.parse_compressors(["int8_statc"], registry)
    with pytest.raises(RecipeError, match="is not KEY=VALUE"):
        recipes.parse_compressors(["prune:share"], registry)


# --- whole artifacts


def test_a_chain_is_recorded_and_done_again_in_order(
    trained: danlu.Artifact, tmp_path: Path
) -> None:
    steps = [
        "prune:share=0.5,epochs=0",
        "low_rank:rank=0.4,smallest=1,epochs=0",
        "int8_static:smallest=1",
    ]
    first = danlu.compress(trained, steps, tmp_path / "out")
    again = danlu.load(tmp_path / "out")
    assert [each["name"] for each in again.changes] == ["prune", "low_rank", "int8_static"]
    assert any(isinstance(each, Factored) for each in again.module.modules())
    rows = [{name: [[0] * 8] * 8 for name in again.inputs}]
    assert again.predict(rows) == first.artifact.predict(rows)
    with pytest.raises(PartError, match="finds no linear layer"):
        danlu.compress(again, ["int8_dynamic:smallest=1"], tmp_path / "further")


def test_distilling_begins_anew_and_tells_what_came_before(
    trained: danlu.Artifact, tmp_path: Path
) -> None:
    found = danlu.compress(
        trained,
        ["prune:epochs=0", "distil:model.hidden=[9],epochs=0.5", "int8_dynamic:smallest=1"],
        tmp_path / "out",
    )
    assert [each["name"] for each in found.artifact.changes] == ["distil", "int8_dynamic"]
    assert found.artifact.changes[0]["state"]["after"][0]["name"] == "prune"
    assert danlu.load(tmp_path / "out").recipe.model.options.hidden == [9]  # type: ignore[attr-defined]


def test_pruned_weights_are_zero_and_small_on_disk(trained: danlu.Artifact, tmp_path: Path) -> None:
    found = danlu.compress(trained, ["prune:share=0.8,epochs=1"], tmp_path / "out")
    matrices = [each for each in found.artifact.module.parameters() if each.ndim == 2]
    assert (
        sum(int((each == 0).sum()) for each in matrices)
        >= 0.8 * sum(each.numel() for each in matrices) - 1
    )
    sizes = [
        (path / "weights.safetensors").stat().st_size
        for path in (trained.path, found.artifact.path)
    ]
    assert sizes[1] < 0.4 * sizes[0]


def test_a_result_that_loses_more_than_is_allowed_leaves_nothing(
    trained: danlu.Artifact, tmp_path: Path
) -> None:
    with pytest.raises(
        DanluError, match=r"accuracy on the test split gets worse by .* at most 0.01 is allowed"
    ):
        danlu.compress(trained, ["prune:share=0.98,epochs=0"], tmp_path / "out", max_drop=0.01)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_is_never_its_own_result(trained: danlu.Artifact, tmp_path: Path) -> None:
    with pytest.raises(DanluError, match="replace the artifact"):
        danlu.compress(trained, ["int8_dynamic"], trained.path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(DanluError, match="no artifact"):
        danlu.compress(trained, ["int8_dynamic"], tmp_path / "mine")


def test_a_training_does_not_begin_from_layers_that_are_gone(
    trained: danlu.Artifact, tmp_path: Path
) -> None:
    small = danlu.compress(trained, ["int8_static:smallest=1"], tmp_path / "out").artifact
    recipe = danlu.read_recipe({**RECIPE, "model": {"name": "cnn", "weights": str(small.path)}})
    with pytest.raises(DanluError, match=r"it is compressed \(int8_static\)"):
        load_pretrained(nn.Linear(1, 1), recipe)


def test_a_layer_that_nobody_is_called_is_refused(trained: danlu.Artifact, tmp_path: Path) -> None:
    with pytest.raises(PartError, match=r"int8_static.spare names head\*"):
        danlu.compress(trained, ["int8_static:spare=['head*']"], tmp_path / "out")


def test_a_recipe_compresses_what_it_trained(tmp_path: Path) -> None:
    plain = danlu.train({**RECIPE, "train": {**RECIPE["train"], "epochs": 1}}, run=tmp_path / "run")
    asked = {
        **RECIPE,
        "train": {**RECIPE["train"], "epochs": 1},
        "compress": [{"name": "int8_static", "smallest": 1}],
    }
    told: list[Any] = []
    found = danlu.train(
        asked, run=tmp_path / "run", tell=told.append
    )  # the same run: the section is no part of what it is
    assert found.path == tmp_path / "run" / "artifact-compressed"
    assert len(told) == 1 and told[0].before["size"] > told[0].after["size"]
    again = danlu.train(asked, run=tmp_path / "run", tell=told.append)
    assert len(told) == 1 and again.changes == found.changes
    assert danlu.load(tmp_path / "run").path == plain.path
    other = danlu.train(
        {**asked, "compress": ["int8_weight_only"]}, run=tmp_path / "run", tell=told.append
    )
    assert len(told) == 2 and other.changes[0]["name"] == "int8_weight_only"


def test_the_command_line_prints_a_table_and_json(trained: danlu.Artifact, tmp_path: Path) -> None:
    run = CliRunner().invoke(
        app,
        [
            "compress",
            str(trained.path),
            "--with",
            "int8_dynamic:smallest=1",
            "--out",
            str(tmp_path / "a"),
            "--max-drop",
            "0.5",
        ],
    )
    assert run.exit_code == 0, run.output
    assert (
        "size on disk" in run.stdout and "a batch of 64" in run.stdout and "1 thread" in run.stdout
    )
    run = CliRunner().invoke(
        app,
        [
            "compress",
            str(trained.path),
            "--with",
            "int8_weight_only",
            "--out",
            str(tmp_path / "b"),
            "--json",
        ],
    )
    found = json.loads(run.stdout)
    assert found["metric"] == "accuracy" and set(found["after"]["latency"]) == {"1", "64"}
