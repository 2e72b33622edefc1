"""tabm, ft_transformer and piecewise_linear: members learn apart and answer together, columns become tokens, pieces are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

import danlu
from danlu import recipe as recipes
from danlu import registry
from danlu.layers.averaging import average_outputs
from danlu.layers.tabular.tokens import NumberTokens, features_per_column
from danlu.parts.transforms import piecewise_linear
from danlu.recipe import Part
from danlu.terms import Batch, Column, InputSpec, OutputSpec
from danlu.training.setup import build_training
from danlu.training.step.supervised import repeat_rows

CLASSES = OutputSpec(3, ("a", "b", "c"), means=(("classes", 3),))
INPUTS = {
    "numbers": InputSpec("numbers", (4,)),
    "categories": InputSpec("categories", (2,), cardinalities=(3, 5)),
}


def built(
    name: str,
    output: OutputSpec = CLASSES,
    inputs: dict[str, InputSpec] = INPUTS,
    **options: object,
) -> torch.nn.Module:
    torch.manual_seed(2)
    return registry.build_model(
        Part(name, registry.config("models", name).model_validate(options)), inputs, output
    )


def rows(count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "numbers": torch.randn(count, 4, generator=generator),
        "categories": torch.randint(0, 3, (count, 2), generator=generator),
    }


# --- members ----------------------------------------------------------------------------------------------------------


def test_members_answer_one_by_one_in_training_and_together_in_evaluation():
    module, batch = built("tabm", members=5, hidden=[8], dropout=0.0), rows(7)
    apart = module.train()(batch)
    assert apart.shape == (35, 3)
    together = module.eval()(batch)
    assert together.shape == (7, 3)
    mean = apart.reshape(7, 5, 3).softmax(2).mean(1)
    # 1e-5: probabilities from float32 logarithms
    torch.testing.assert_close(together.softmax(1), mean, rtol=0, atol=1e-5)


def test_a_number_is_the_mean_of_the_members():
    module, batch = built("tabm", OutputSpec(2), members=3, hidden=[8], dropout=0.0), rows(4)
    apart = module.train()(batch).reshape(4, 3, 2)
    torch.testing.assert_close(module.eval()(batch), apart.mean(1), rtol=1e-5, atol=1e-6)


def test_what_one_member_loses_moves_nothing_that_belongs_to_another():
    module, batch = built("tabm", members=4, hidden=[8], dropout=0.0), rows(6)
    outputs = module.train()(batch).reshape(6, 4, 3)
    functional.cross_entropy(outputs[:, 1], torch.zeros(6, dtype=torch.int64)).backward()
    gradient = module.last.weight_KDS.grad
    assert gradient is not None
    assert gradient[1].abs().sum() > 0
    assert gradient[[0, 2, 3]].abs().sum() == 0


def test_members_differ_from_the_start():
    module, batch = built("tabm", members=4, hidden=[8], dropout=0.0), rows(6)
    outputs = module.train()(batch).reshape(6, 4, 3)
    assert all(not torch.allclose(outputs[:, 0], outputs[:, member]) for member in (1, 2, 3))


def test_a_batch_is_asked_of_every_member():
    batch = Batch(
        {}, {"x": torch.tensor([3, 1]), "y": torch.tensor([[0.5], [2.0]])}, torch.tensor([8, 9])
    )
    asked = repeat_rows(batch, 3)
    assert asked.target["x"].tolist() == [3, 3, 3, 1, 1, 1]
    assert asked.target["y"].tolist() == [[0.5]] * 3 + [[2.0]] * 3
    assert asked.rows.tolist() == [8, 8, 8, 9, 9, 9]


@pytest.mark.parametrize("micro_batch", [None, 7])
def test_the_gradient_is_that_of_the_mean_loss_of_the_members(micro_batch, tmp_path):
    """One full-batch update by plain gradient descent, against the same written out by hand."""
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(40, 3))
    np.savez(tmp_path / "rows.npz", x=numbers, y=(numbers[:, 0] > 0).astype(np.int64))
    recipe = {
        "task": "classification",
        "data": {
            "source": str(tmp_path / "rows.npz"),
            "target": "y",
            "split": {"name": "random", "validation": 0, "test": 0},
        },
        "model": {"name": "tabm", "members": 3, "hidden": [5], "dropout": 0.0},
        "optimizer": {"name": "sgd", "learning_rate": 0.5},
        "schedule": "constant",
        "train": {
            "steps": 1,
            "batch_size": "all" if micro_batch is None else 40,
            "micro_batch": micro_batch,
            "threads": 1,
        },
        "watchers": [],
    }
    built = build_training(recipes.read(recipe, registry))
    module, batch = built.state.module, built.batches.take(0)
    names = [name for name, _ in module.named_parameters()]
    outputs = module(batch.inputs).reshape(40, 3, 2)
    loss = (
        sum(functional.cross_entropy(outputs[:, member], batch.target) for member in range(3)) / 3
    )
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    wanted = [
        parameter.detach() - 0.5 * gradient
        for parameter, gradient in zip(module.parameters(), gradients)
    ]
    built.update(0)
    for name, parameter, each in zip(names, module.parameters(), wanted):
        # 1e-5: sums of 120 float32 terms in another order
        torch.testing.assert_close(parameter.detach(), each, rtol=1e-4, atol=1e-5, msg=name)


def test_an_ensemble_is_trained_scored_and_served_alike(tmp_path):
    generator = np.random.default_rng(1)
    numbers = generator.normal(size=(400, 3))
    label = (numbers[:, 0] * numbers[:, 1] > 0).astype(np.int64)
    np.savez(tmp_path / "rows.npz", x=numbers, y=label)
    recipe = {
        "task": "classification",
        "data": {
            "source": str(tmp_path / "rows.npz"),
            "target": "y",
            "split": {"name": "random", "validation": 0.1, "test": 0.25},
        },
        "model": {"name": "tabm", "members": 4, "hidden": [24, 24]},
        "train": {"epochs": 40, "batch_size": 64, "threads": 1},
        "metrics": ["accuracy"],
        "watchers": [],
    }
    artifact = danlu.train(recipe, run=tmp_path / "run")
    # a product of two signs: chance is 0.5; 0.85 is seven standard errors of 100 rows above it
    assert artifact.scores["test"]["accuracy"] > 0.85
    answers = artifact.predict(numbers)
    assert len(answers) == 400
    assert all(abs(sum(answer["probabilities"].values()) - 1) < 1e-6 for answer in answers)


# --- the mean of answers ----------------------------------------------------------------------------------------------


def test_answers_are_averaged_by_what_the_columns_mean():
    output = OutputSpec(5, means=(("classes", 2), ("labels", 2), ("numbers", 1)))
    outputs = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)) * 3
    mean = average_outputs(outputs, output)
    # 1e-5: float32 logarithms there and back
    torch.testing.assert_close(
        mean[:, :2].softmax(1), outputs[:, :, :2].softmax(2).mean(0), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        mean[:, 2:4].sigmoid(), outputs[:, :, 2:4].sigmoid().mean(0), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(mean[:, 4], outputs[:, :, 4].mean(0))


def test_certain_opinions_stay_finite():
    outputs = torch.tensor([[[200.0, -200.0]], [[-200.0, 200.0]]])
    for kind in ("classes", "labels"):
        mean = average_outputs(outputs, OutputSpec(2, means=((kind, 2),)))
        assert torch.isfinite(mean).all()
        assert (
            abs(float(mean[0, 0] - mean[0, 1])) < 1e-4
        )  # they contradict each other: one half each


# --- tokens of columns ------------------------------------------------------------------------------------------------


def test_features_of_one_column_make_one_token():
    described = InputSpec("numbers", (6,), of=("age", "born", "born", "born", "pay", "pay"))
    assert features_per_column(described) == [1, 3, 2]
    assert features_per_column(InputSpec("numbers", (2,))) == [1, 1]
    torch.manual_seed(0)
    tokens = NumberTokens(features_per_column(described), 8)
    x = torch.randn(5, 6)
    before = tokens(x)
    assert before.shape == (5, 3, 8)
    changed = x.clone()
    changed[:, 2] += 1  # of born
    moved = (tokens(changed) - before).abs().amax((0, 2)) > 1e-6
    assert moved.tolist() == [False, True, False]


@pytest.mark.parametrize("frequencies", [0, 3])
def test_single_columns_and_columns_of_one_feature_agree(frequencies):
    """The short way for columns of one feature gives what the general way gives."""
    torch.manual_seed(0)
    tokens, x = NumberTokens([1, 1, 1], 4, frequencies), torch.randn(5, 3)
    embedded = x if tokens.periodic is None else torch.cat(tokens._by_column(tokens.periodic(x)), 1)
    pieces = zip(embedded.split(tokens.inner, 1), tokens.weight_FD.split(tokens.inner))
    wanted = torch.stack([piece @ weight for piece, weight in pieces], 1) + tokens.bias_CD
    torch.testing.assert_close(tokens(x), wanted, rtol=1e-5, atol=1e-6)


def test_a_transformer_hears_every_column():
    module, batch = built("ft_transformer", width=16, periodic=2).eval(), rows(4)
    before = module(batch)
    for column in range(4):
        changed = batch["numbers"].clone()
        changed[:, column] += 1
        assert not torch.allclose(module({**batch, "numbers": changed}), before, atol=1e-6), column
    for column in range(2):
        codes = batch["categories"].clone()
        codes[:, column] = (codes[:, column] + 1) % 3
        assert not torch.allclose(module({**batch, "categories": codes}), before, atol=1e-6), column


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="no multiple of num_heads"):
        registry.config("models", "ft_transformer")(width=10, num_heads=4)


# --- pieces of a number -----------------------------------------------------------------------------------------------


def pieces(values: list[float], asked: list[float], **options: object) -> np.ndarray:
    config = piecewise_linear.Config.model_validate(options)
    state = piecewise_linear.fit(config, Column("x", "number", np.array(values)))
    made = piecewise_linear.apply(config, state, Column("x", "number", np.array(asked)))
    return made.values if made.values.ndim == 2 else made.values[:, None]


def test_a_feature_rises_from_0_to_1_through_its_bin():
    made = pieces([0, 1, 2, 3, 4], [0.5, 2.0, 3.5], bins=2)
    assert made.tolist() == [[0.25, 0.0], [1.0, 0.0], [1.0, 0.75]]


def test_beyond_the_training_rows_the_outer_bins_go_on():
    made = pieces([0, 2, 4], [-2.0, 8.0], bins=2)
    assert made.tolist() == [[-1.0, 0.0], [1.0, 3.0]]


def test_rare_large_values_are_cut_up_by_value():
    values = [0.0] * 990 + list(range(1, 11))
    assert (
        pieces(values, [5.0], bins=10).shape[1] == 1
    )  # ninety-nine of a hundred rows are 0: quantiles fall together
    assert pieces(values, [5.0], bins=10, by="values").shape[1] == 10


def test_a_column_of_one_value_leaves_no_piece_and_a_missing_value_stays_missing():
    assert pieces([3.0, 3.0], [3.0, 4.0]).shape == (2, 0)
    assert np.isnan(pieces([0.0, 1.0, np.nan], [np.nan], bins=1)).all()


def test_the_sum_of_the_pieces_orders_as_the_number_does():
    generator = np.random.default_rng(3)
    values = generator.lognormal(3, 2, 500)
    asked = np.sort(generator.lognormal(3, 2.5, 200))
    total = pieces(list(values), list(asked), bins=16).sum(1)
    assert (np.diff(total) > 0).all()


@pytest.mark.parametrize("model", ["tabm", "ft_transformer"])
def test_two_targets_of_a_table_with_pieces_and_dates_are_learnt_and_served(model, tmp_path):
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 200)).round(4)
    lines = [
        f"{a},{b},{'pqr'[row % 3]},2024-0{1 + row % 9}-1{row % 7},{'yes' if a > 0 else 'no'},{a + 2 * b:.4f}"
        for row, (a, b) in enumerate(zip(first, second))
    ]
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,c,when,sign,total", *lines]))
    recipe = {
        "task": "multi_task",
        "data": {
            "source": str(tmp_path / "rows.csv"),
            "target": ["sign", "total"],
            "split": {"name": "random", "validation": 0.1, "test": 0.2},
            "transforms": {"number": ["impute", {"name": "piecewise_linear", "bins": 8}]},
        },
        "model": model,
        "train": {"epochs": 12, "batch_size": 32, "threads": 1},
        "watchers": [],
    }
    artifact = danlu.train(recipe, run=tmp_path / "run")
    of = artifact.preprocessor.inputs["numbers"].of
    assert [of.count(name) for name in ("a", "b")] == [8, 8]
    assert of.count("when") > 1
    scores = artifact.scores["test"]
    assert scores["total/r2"] > 0.5  # of a sum of two columns, cut into pieces; 0 is the mean
    assert (
        scores["sign/accuracy"] > 0.8
    )  # chance is 0.5, with a standard error of 0.08 over 40 rows
    again = danlu.load(tmp_path / "run")
    assert (
        again.predict(str(tmp_path / "rows.csv"))[:3]
        == artifact.predict(str(tmp_path / "rows.csv"))[:3]
    )
