"""The section tune of a recipe: dimensions from what is written, and every problem with its line before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import danlu
import make
from danlu import registry
from danlu.errors import RecipeError
from danlu.recipe import Dimension, contains_point, trial_recipe

HEAD = """\
task: classification
data:
  source: {name: sklearn, set: digits}
  target: label
model: mlp
tune:
  space:
"""  # a space begins on line 8


def problems(tmp_path: Path, space: str, rest: str = "") -> list[str]:
    """What a recipe with this space is told: "line: message"."""
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD + "".join(f"    {line}\n" for line in space.splitlines()) + rest)
    try:
        danlu.read_recipe(path)
    except RecipeError as error:
        return [
            f"{each.where.removeprefix('recipe.yaml:')}: {each.message}" for each in error.problems
        ]
    return []


def recipe(space: dict[str, Any], **tune: Any) -> danlu.Recipe:
    about = make.digits()
    return danlu.read_recipe({**about, "tune": {"space": space, **tune}})


def test_dimensions_are_what_the_recipe_writes() -> None:
    space = {each.name: each for each in recipe(
        {
            "optimizer.learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
            "optimizer.momentum": {"low": 0.8, "high": 0.99, "when": {"optimizer": "momentum"}},
            "optimizer": ["momentum", "adam"],
            "model.hidden": [[128], [256, 128]],
            "train.batch_size": {"low": 16, "high": 512, "step": 16},
            "train.epochs": {"low": 1, "high": 5, "step": 1},
            "schedule.warmup": {"low": 0, "high": 1},
        }
    ).space}  # fmt: skip
    assert space["optimizer.learning_rate"] == Dimension(
        "optimizer.learning_rate", "float", low=1e-4, high=0.1, log=True
    )
    assert space["optimizer.momentum"].when == {"optimizer": ("momentum",)}
    assert space["model.hidden"].choices == ([128], [256, 128])
    assert (space["train.batch_size"].kind, space["train.batch_size"].step) == ("integer", 16)
    assert space["train.epochs"].kind == "integer"  # a whole step says so
    assert space["schedule.warmup"].kind == "float"  # the option takes 0.5
    assert list(space).index("optimizer") < list(space).index("optimizer.momentum")


def test_a_search_is_no_part_of_what_a_training_is() -> None:
    with_search, without = (
        recipe({"train.seed": {"low": 0, "high": 9}}),
        recipe({"train.seed": [1, 2]}),
    )
    assert with_search == without
    assert "tune" not in with_search.as_dict()
    assert danlu.read_recipe(with_search.as_dict()) == with_search


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("optimizer.lerning_rate: {low: 0.1, high: 0.2}", "8: tune.space.optimizer.lerning_rate: optimizer.lerning_rate is no option of"),
        ("model.dropout: {low: 0, high: 1}", "8: tune.space.model.dropout: model.dropout must be less than 1, and is 1."),
        ("optimizer.weight_decay:\n  low: -1\n  high: 1", "9: tune.space.optimizer.weight_decay: optimizer.weight_decay must be at least 0"),
        ("model.hidden:\n- [128]\n- [-4]", "10: tune.space.model.hidden: model.hidden.0 must be at least 1, and is -4."),
        ("optimizer: [adam, adamm]", "8: tune.space.optimizer: optimizer: there is no 'adamm' among optimizers."),
        ("optimzer: [adam]", "8: tune.space: optimzer is no option of a recipe that can be searched."),
        ("tune.seed: [1, 2]", "8: tune.space: tune.seed is no option of a recipe that can be searched."),
        ("train.epochs: {low: 3, high: 1}", "8: tune.space.train.epochs: high (1) must be greater than low (3)."),
        ("optimizer.learning_rate: {low: 0, high: 1, log: true}", "8: tune.space.optimizer.learning_rate: low (0) must be greater than 0"),
        ("train.epochs: {low: 1}", "8: tune.space.train.epochs: high is missing"),
        ("train.epochs: {lo: 1, high: 2}", "8: tune.space.train.epochs.lo is no key of the range of train.epochs."),
        ("train.epochs: {low: 1, high: 9, step: 10}", "8: tune.space.train.epochs: step (10) is longer than the range"),
        ("train.epochs: {low: 1, high: .inf}", "8: tune.space.train.epochs.high must be a finite number"),
        ("train.epochs: {low: '1', high: 2}", "8: tune.space.train.epochs.low must be a finite number"),
        ("train.batch_size: 3", "8: tune.space.train.batch_size must be a list of choices or a range, and is 3."),
        ("train.batch_size: []", "8: tune.space.train.batch_size has no choice."),
        ("train.batch_size: [16, 16]", "8: tune.space.train.batch_size names the choice 16 twice."),
        ("train.batch_size: {low: 1.5, high: 3.5}", "8: tune.space.train.batch_size: train.batch_size must be"),
        ("optimizer.momentum: {low: 0, high: 0.9, when: {optimizer: momentum}}", "8: tune.space.optimizer.momentum.when names optimizer"),
        ("train.seed: {low: 0, high: 9, when: {train.epochs: 2}}\ntrain.epochs: {low: 1, high: 3}", "which is a range."),
        ("optimizer: [adam, sgd]\noptimizer.beta1: {low: 0, high: 0.9, when: {optimizer: muon}}", '9: tune.space.optimizer.beta1.when: "muon"'),
        ("optimizer: [adam, sgd]\noptimizer.beta1: {low: 0, high: 0.9}", "optimizer.beta1 is no option of sgd. Its options are learning_rate"),
        ("data.source.set: [digits, iris]", "8: tune.space: data.source.set says on which rows scores are measured"),
        ("task: [classification, regression]", "8: tune.space: task is no option of a recipe that can be searched."),
    ],
)  # fmt: skip
def test_a_wrong_space_is_refused_with_its_line(space: str, expected: str, tmp_path: Path) -> None:
    found = problems(tmp_path, space)
    assert any(expected in each for each in found), found


def test_every_problem_of_a_space_is_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "train.epochs: 3\nmodel.dropout: {low: 0, high: 1}\noptimzer: [adam]",
        "  sampler: baysian\n  trials: 0\n",
    )
    assert [each.partition(":")[0] for each in found] == ["8", "9", "10", "11", "12"]


def test_an_option_of_one_choice_alone_asks_for_a_condition(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        HEAD + "    optimizer: [adam, sgd]\n    optimizer.beta1: {low: 0.5, high: 0.9}\n"
    )
    with pytest.raises(RecipeError, match="with optimizer=sgd") as raised:
        danlu.read_recipe(path)
    assert "when:" in raised.value.problem.hint


def test_conditions_that_go_round_are_refused(tmp_path: Path) -> None:
    space = "train.seed: {choices: [1, 2], when: {train.epochs: 1}}\ntrain.epochs: {choices: [1, 2], when: {train.seed: 1}}"
    assert any("go round in a circle" in each for each in problems(tmp_path, space))


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (
            "  objectives: [{metric: accuracy}, {metric: seconds}]\n  pruner: median\n",
            "median goes by one objective",
        ),
        (
            "  objectives: [{metric: accuracy}, {metric: seconds}]\n  sampler: evolution\n",
            "evolution goes by one objective",
        ),
        ("  objectives: [{metric: r2}]\n", "the recipe does not measure r2"),
        ("  sampler: evolution\n", "evolution needs a range of numbers"),
        ("  storage: redis://here\n", "tune.storage: an address of a database is sqlite:///FILE"),
        ("  on: elsewhere\n", "tune.on must be one of"),
    ],
)
def test_what_does_not_go_together_is_refused(rest: str, expected: str, tmp_path: Path) -> None:
    found = problems(tmp_path, "train.batch_size: [16, 32]", rest)
    assert any(expected in each for each in found), found


def test_the_values_of_a_trial_make_its_recipe_parts_before_their_options() -> None:
    found = recipe({"optimizer.learning_rate": [0.1, 0.2], "optimizer": ["sgd", "adam"]})
    trial = trial_recipe(found, {"optimizer.learning_rate": 0.2, "optimizer": "sgd"}, registry)
    assert (trial.optimizer.name, trial.optimizer.options.learning_rate) == ("sgd", 0.2)  # type: ignore[attr-defined]
    assert trial.tune is None and "tune" not in trial.raw


def test_true_is_not_one_among_choices() -> None:
    dimension = Dimension("train.group_by_length", "choice", choices=(True, 1))
    assert dimension.holds(True) and dimension.holds(1) and not dimension.holds(False)


def test_a_point_of_the_space_has_a_value_for_what_takes_part_alone() -> None:
    space = recipe(
        {
            "optimizer": ["adam", "sgd"],
            "optimizer.beta1": {"low": 0.5, "high": 0.9, "when": {"optimizer": "adam"}},
        }
    ).space
    assert contains_point(space, {"optimizer": "adam", "optimizer.beta1": 0.5})
    assert contains_point(space, {"optimizer": "sgd"})
    assert not contains_point(space, {"optimizer": "sgd", "optimizer.beta1": 0.5})
    assert not contains_point(space, {"optimizer": "adam"})
    assert not contains_point(space, {"optimizer": "adam", "optimizer.beta1": 0.95})


def test_the_json_schema_knows_the_section() -> None:
    tune = danlu.recipe_schema()["properties"]["tune"]["anyOf"][0]
    assert {"space", "objectives", "sampler", "pruner", "trials", "minutes", "on"} <= set(
        tune["properties"]
    )
    assert tune["required"] == ["space"]
