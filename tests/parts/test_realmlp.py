"""realmlp and what it brings: quantiles of rows and values, coslog, patience as a share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import danlu
from danlu import recipe as recipes
from danlu import registry
from danlu.parts.transforms import scale
from danlu.recipe import Part
from danlu.terms import Column, InputSpec, OutputSpec
from danlu.training.setup import build_training

INPUTS = {
    "numbers": InputSpec("numbers", (4,)),
    "categories": InputSpec("categories", (2,), cardinalities=(3, 30)),
}


def built(output: OutputSpec, **options: object) -> torch.nn.Module:
    torch.manual_seed(2)
    config = registry.config("models", "realmlp").model_validate({"hidden": [8], **options})
    return registry.build_model(Part("realmlp", config), INPUTS, output)


def rows(count: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "numbers": torch.randn(count, 4, generator=generator),
        "categories": torch.randint(0, 3, (count, 2), generator=generator),
    }


def table(folder: Path, rows: int = 400) -> dict[str, object]:
    """A recipe over a table whose target jumps where a column that mostly holds 0 passes 500."""
    generator = np.random.default_rng(0)
    rare = np.where(generator.random(rows) < 0.8, 0, generator.integers(1, 1000, rows))
    other, letters = generator.normal(size=rows).round(3), generator.integers(0, 3, rows)
    target = np.where(rare > 500, 5.0, 0.0) + 2 * (letters == 1) + 0.1 * other
    lines = [
        f"{a},{b if b > -2 else ''},{'pqr'[c]},{y:.4f}"
        for a, b, c, y in zip(rare, other, letters, target)
    ]
    (folder / "rows.csv").write_text("\n".join(["rare,other,letter,y", *lines]) + "\n")
    return {
        "task": "regression",
        "data": {"source": str(folder / "rows.csv"), "target": "y", "checks": "off"},
        "model": "realmlp",
        "train": {"threads": 1},
        "watchers": [],
    }


def test_members_answer_apart_in_training_and_by_their_mean_in_evaluation():
    module, batch = built(OutputSpec(2), members=3), rows(5)
    apart = module.train()(batch)
    assert apart.shape == (15, 2)
    torch.testing.assert_close(module.eval()(batch), apart.reshape(5, 3, 2).mean(1))


def test_an_unknown_category_sets_no_one_hot_feature_and_no_embedding():
    module, batch = built(OutputSpec(1)).eval(), rows(2)
    batch["categories"][:] = torch.tensor([[0, 0], [1, 1]])
    features = module.features(batch)
    assert features.shape == (2, 4 * 4 + 2 + 8)
    assert features[0, 16:].abs().sum() == 0
    assert features[1, 16:18].tolist() == [1.0, 0.0]


def test_pieces_are_fewer_where_there_are_many_features():
    module = built(OutputSpec(1))
    assert module.features.branches[0].body.pieces == 256
    part = Part("realmlp", registry.config("models", "realmlp")())
    wide = {"numbers": InputSpec("numbers", (300,))}
    assert registry.build_model(part, wide, OutputSpec(1)).features.body is None


def test_the_defaults_stop_early_and_scale_numbers_to_quantiles_of_rows_and_values(tmp_path):
    recipe = recipes.read(table(tmp_path), registry)
    assert recipe.schedule.name == "coslog"
    assert recipe.regularization.early_stopping.options.patience == 0.3
    setup = build_training(recipe)
    steps = [part.as_dict() for part, _ in setup.data.preprocessor.pipelines[0].steps]
    assert [step["name"] for step in steps] == ["impute", "scale"]
    assert steps[1]["by"] == "rows_and_values"


def test_without_a_validation_split_the_recommended_early_stopping_is_left_out(tmp_path):
    tree = table(tmp_path)
    tree["data"]["split"] = {"name": "random", "validation": 0, "test": 0.1}
    assert recipes.read(tree, registry).regularization.early_stopping is None


def test_a_jump_in_a_rare_column_is_learnt_exported_and_repeated(tmp_path):
    recipe = table(tmp_path)
    artifact = danlu.train(recipe, run=tmp_path / "run")
    assert artifact.scores["test"]["rmse"] < 0.35 * artifact.scores["baseline"]["rmse"]
    export = danlu.export(artifact, "onnx", tmp_path / "net.onnx")
    asked = [{"rare": 700, "other": None, "letter": "q"}, {"rare": 0, "other": 9, "letter": "new"}]
    for one, other in zip(artifact.predict(asked), export.predict(asked), strict=True):
        assert one["prediction"] == pytest.approx(other["prediction"], abs=1e-4)
    again = danlu.train(recipe, run=tmp_path / "again")
    assert json.dumps(again.scores) == json.dumps(artifact.scores)


def test_distinct_values_have_half_of_the_ranks():
    values = np.array([0.0] * 90 + list(range(1, 11)))
    config = scale.Config(by="rows_and_values", distribution="uniform")
    column = Column("x", "number", values)
    ranks = scale.apply(config, scale.fit(config, column), column).values.reshape(-1)
    assert ranks[0] == pytest.approx((0.9 + 1 / 11) / 4, abs=0.02)  # the middle of its share
    assert np.diff(ranks[90:]).min() > 0.03
    plain = scale.Config(by="quantile", distribution="uniform")
    by_rows = scale.apply(plain, scale.fit(plain, column), column).values.reshape(-1)
    assert np.diff(by_rows[90:]).max() < 0.02


def test_ranks_of_distinct_numbers_are_those_of_rows():
    column = Column("x", "number", np.random.default_rng(0).normal(size=300))
    knots = [
        scale.fit(scale.Config(by=by), column)["knots"] for by in ("quantile", "rows_and_values")
    ]
    assert (knots[0] == knots[1]).all()


def test_coslog_falls_to_nothing_at_the_end_of_each_cycle():
    part = Part("coslog", registry.config("schedules", "coslog")())
    schedule = registry.build_schedule(part, 1500)
    assert all(schedule(step) < 0.01 for step in (0, 99, 100, 299, 300, 699, 700, 1499))
    assert max(schedule(step) for step in range(700, 1500)) > 0.999


def test_patience_below_one_is_a_share_of_the_run(tmp_path):
    tree = table(tmp_path)
    tree["optimizer"] = {"name": "sgd", "learning_rate": 0.0}
    tree["train"] = {"steps": 100, "evaluate_every": 10, "threads": 1}
    artifact = danlu.train(tree, run=tmp_path / "run")
    assert artifact.provenance["step"] == 40  # 10 was the best, and 0.3 * 100 updates followed
