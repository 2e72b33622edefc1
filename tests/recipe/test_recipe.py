"""Reading, checking, overriding and writing recipes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from danlu import registry
from danlu.errors import Problem, RecipeError
from danlu.recipe import (
    DEFAULTS,
    KEYS,
    PARTS,
    SECTIONS,
    Recipe,
    check_recipe,
    differences,
    read,
    read_yaml,
    with_changes,
    write_yaml,
)

SMALL: dict[str, Any] = {
    "task": "classification",
    "data": {"source": "table.csv", "target": "label"},
    "model": "mlp",
}


def recipe_of(**changes: Any) -> Recipe:
    return read({**SMALL, **changes}, registry)


def written(tmp_path: Path, text: str, name: str = "a.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(source: Any, *overrides: str) -> list[Problem]:
    with pytest.raises(RecipeError) as caught:
        read(source, registry, overrides)
    return list(caught.value.problems)


def the_problem(source: Any, *overrides: str) -> Problem:
    (problem,) = problems_of(source, *overrides)
    return problem


# --- YAML 1.2 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("5.", 5.0),
        (".5", 0.5),
        ("-.5e+2", -50.0),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("+3", 3),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12:30", "12:30"),
        ("2024-01-31", "2024-01-31"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1.2.3", "1.2.3"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("'1e-3'", "1e-3"),
        ('"no\\u00e9\\ud83d\\ude00"', "noé😀"),
        ("!!str 12", "12"),
        ("中文", "中文"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found, _ = read_yaml(f"a: {text}", "t")
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


def test_nan_is_a_number_that_no_option_takes() -> None:
    assert math.isnan(read_yaml(".nan", "t")[0])
    for value in (".nan", ".inf", "-.inf"):
        problem = the_problem(SMALL, f"optimizer.learning_rate={value}")
        assert "finite number" in problem.message
    assert (
        "finite number"
        in the_problem({**SMALL, "optimizer": {"name": "sgd", "learning_rate": math.nan}}).message
    )


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a is given twice (first on line 1)"),
        ("a:\n  b: 1\n  c: 2\n  b: 1\n", 4, "a.b is given twice (first on line 2)"),
        (
            "a: 1\nb: !!python/object/apply:os.system ['true']\n",
            2,
            "the tag !!python/object/apply:os.system is not allowed",
        ),
        ("a: 1\nb: !!python/name:int x\n", 2, "the tag !!python/name:int is not allowed"),
        ("a: !odd:int 3\n", 1, "the tag !odd:int is not allowed"),
        ("a: !!int twelve\n", 1, "the tag says int"),
        ("a: !!float []\n", 1, "the tag !!float is not allowed"),
        ("a: !!set {b}\n", 1, "the tag !!set is not allowed"),
        ("a: !!binary aGk=\n", 1, "the tag !!binary is not allowed"),
        ("a: 1\n!!python/name:int b: 1\n", 2, "the tag !!python/name:int is not allowed"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "merge keys (<<) are no part of YAML 1.2"),
        ("a: 1\n[b, c]: 2\n", 2, "a key must be a word"),
        ("a: 1\nb: [1, 2\n", 3, "this is not YAML"),
        ("a: 1\n\tb: 2\n", 2, "this is not YAML"),
        ("a: 1\nb: *missing\n", 2, "this is not YAML"),
        ("a: 1\nb: 2: 3\n", 2, "this is not YAML"),
        ("a: 1\n---\nb: 1\n", 2, "this is not YAML"),
        ("a: 1\nb: x\0y\n", 2, "U+0000 is not allowed"),
        ('a: 1\nb: "\\ud800"\n', 2, "a lone surrogate"),
        ("a: 1\nb: " + "9" * 5000 + "\n", 2, "5,000 digits"),
    ],
)
def test_what_is_no_plain_data_is_refused_with_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_yaml(text, "t.yaml")
    problem = caught.value.problems[0]
    assert problem.where == f"t.yaml:{line}"
    assert said in problem.message


def test_anchors_and_aliases_may_be_used() -> None:
    text = "a: &one [1, {b: 2}]\nc: *one\n"
    value, where = read_yaml(text, "t")
    assert value == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}
    assert value["a"] is not value["c"]
    assert where[("c",)] == "t:2"


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n"
        + "".join(
            f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n"
            for n in range(12)
        ),
        "a: &a [*a]\n",
        "&a {b: *a}\n",
        "[" * 60 + "]" * 60,
        "[" * 90_000,
        "{a: " * 40_000,
        "- " * 5_000 + "x",
        "".join(f"{' ' * n}k{n}:\n" for n in range(300)),
        "[" + "1, " * 30_000 + "1]",
    ],
    ids=[
        "bomb",
        "loop",
        "mapping loop",
        "60 levels",
        "90,000 brackets",
        "40,000 braces",
        "5,000 dashes",
        "300 steps",
        "30,000 values",
    ],
)
def test_bombs_and_deep_nests_are_refused(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_yaml(text, "t")
    assert (
        "deeper than" in str(caught.value)
        or "more than" in str(caught.value)
        or "not YAML" in str(caught.value)
    )


def test_a_file_as_large_as_allowed_is_read_and_a_larger_one_refused(tmp_path: Path) -> None:
    big = written(tmp_path, "a: [" + "x" * 99_000 + "]\n")
    assert "larger" not in str(problems_of(big))
    huge = written(tmp_path, "#" * 100_001)
    assert "100,001 bytes" in the_problem(huge).message


def test_json_is_read_with_tabs_and_escapes(tmp_path: Path) -> None:
    text = json.dumps(
        {**SMALL, "name": "丹炉😀"[:2], "train": {"epochs": 3}}, indent="\t", ensure_ascii=True
    )
    recipe = read(written(tmp_path, text, "a.json"), registry)
    assert recipe.train.epochs == 3
    assert recipe.name == "丹炉"
    assert (
        read(written(tmp_path, json.dumps(SMALL, separators=(",", ":")), "b.json"), registry).name
        == "b"
    )


def test_windows_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_bytes(
        b"\xef\xbb\xbf"
        + b"task: classification\r\nmodel: mlp\r\ndata:\r\n  source: a.csv\r\n  target: y\r\n  targt: z\r\n"
    )
    assert the_problem(path).where == "w.yaml:6"


@pytest.mark.parametrize(
    "value",
    [
        "1e-3",
        "no",
        "yes",
        "on",
        "null",
        "~",
        "",
        "true",
        "12",
        "0x1",
        "中文",
        "a: b",
        "- x",
        "#c",
        "1_000",
        "0b1",
        "2024-01-31",
        "\x85",
        "a\u2028b",
        "x\ny",
        " s ",
        "=",
        "<<",
        "1:30",
    ],
)
def test_a_written_text_is_read_back_as_the_same_text(value: str) -> None:
    for data in ({"a": value}, {value: [value]}):
        assert read_yaml(write_yaml(data), "t")[0] == data
        assert yaml.safe_load(write_yaml(data)) == data  # YAML 1.1 readers see the same


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(plain_values)
def test_any_plain_data_survives_writing_and_reading(value: Any) -> None:
    assert read_yaml(write_yaml(value), "t")[0] == value


# --- files and dicts --------------------------------------------------------------------------------------------------


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    written(tmp_path, "task: x", "digits.yaml")
    missing = the_problem(tmp_path / "digit.yaml")
    assert missing.hint == f"did you mean {tmp_path / 'digits.yaml'}?"
    assert "folder" in the_problem(tmp_path).message
    (tmp_path / "gbk.yaml").write_bytes("name: 中文".encode("gbk"))
    assert "not UTF-8" in the_problem(tmp_path / "gbk.yaml").message
    assert "cannot be read" in the_problem("a\0b").message
    assert "mapping" in the_problem(written(tmp_path, "- a\n", "list.yaml")).message
    assert "mapping" in the_problem(written(tmp_path, "", "empty.yaml")).message


def test_a_dict_may_hold_numpy_numbers_tuples_and_paths() -> None:
    recipe = read(
        {
            "task": "classification",
            "data": {"source": {"path": Path("a.csv"), "name": "csv"}, "target": ("y",)},
            "model": {"name": "mlp", "dropout": np.float32(0.25)},
            "train": {"seed": np.int64(7), "epochs": np.float64(2.5)},
        },
        registry,
    )
    assert recipe.train.seed == 7
    assert recipe.train.epochs == 2.5
    assert recipe.data.target == ["y"]
    assert read(recipe.as_dict(), registry) == recipe


def test_a_dict_with_objects_or_loops_is_refused() -> None:
    assert "task is a set" in the_problem({**SMALL, "task": {"a"}}).message
    loop: dict[str, Any] = {}
    loop["a"] = loop
    assert "holds itself" in the_problem(loop).message
    assert "given twice" in the_problem({**SMALL, "train": {1: 2, "1": 3}}).message


def test_the_argument_is_not_changed() -> None:
    given = {**SMALL, "train": {"epochs": 2}}
    before = json.dumps(given)
    read(given, registry, ["train.epochs=5", "data.columns.a=drop"])
    assert json.dumps(given) == before


def test_the_name_is_the_files_unless_given(tmp_path: Path) -> None:
    text = write_yaml(SMALL)
    assert read(written(tmp_path, text, "adult.yaml"), registry).name == "adult"
    assert read(written(tmp_path, text, "recipe.lock.yaml"), registry).name == "recipe"
    odd = read(written(tmp_path, text, "my data (1)!.yml"), registry)
    assert odd.name == "my data _1__"
    assert read(odd.as_dict(), registry) == odd
    assert recipe_of().name == "recipe"
    assert recipe_of(name="丹-1.2").name == "丹-1.2"
    for bad in ("..", "a/b", "", "x" * 101, 3, "a\nb"):
        assert "name must be" in the_problem({**SMALL, "name": bad}).message


# --- overrides --------------------------------------------------------------------------------------------------------


def test_overrides_set_what_the_recipe_says_or_leaves_out(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "task: classification\ndata:\n  source: a.csv\n  target: y\n  columns: {age: number}\nmodel: mlp\n",
    )
    recipe = read(
        path,
        registry,
        [
            "optimizer=adam",
            "optimizer.learning_rate=1e-2",
            "train.epochs = 3",
            "model.hidden=[7, 5]",
            "data.columns.age.on_error=missing",
            "data.columns.id=drop",
            "regularization.early_stopping.patience=9",
            "data.source.path=b.csv",
            "metrics=[accuracy]",
            "data.split.test=0.3",
        ],
    )
    assert recipe.optimizer.name == "adam"
    assert recipe.optimizer.options.learning_rate == 0.01  # type: ignore[attr-defined]
    assert recipe.train.epochs == 3
    assert recipe.model.as_dict()["hidden"] == [7, 5]
    assert recipe.data.columns["age"].kind == "number"
    assert recipe.data.columns["age"].on_error == "missing"
    assert not recipe.data.columns["id"].use
    assert recipe.regularization.early_stopping is not None
    assert recipe.regularization.early_stopping.as_dict()["patience"] == 9
    assert recipe.data.source.as_dict()["path"] == "b.csv"
    assert [metric.name for metric in recipe.metrics] == ["accuracy"]
    assert recipe.data.split is not None
    assert recipe.data.split.as_dict()["test"] == 0.3
    assert read(recipe.raw, registry) == Recipe(**{**recipe.__dict__, "name": "recipe"})


def test_overrides_reach_into_lists() -> None:
    recipe = read(
        {**SMALL, "metrics": ["accuracy", "f1"]},
        registry,
        ["metrics.1=log_loss", "metrics.0.name=auroc"],
    )
    assert [metric.name for metric in recipe.metrics] == ["auroc", "log_loss"]
    assert (
        "cannot be set" in the_problem({**SMALL, "metrics": ["f1"]}, "metrics.1=accuracy").message
    )


@pytest.mark.parametrize(
    ("text", "target"),
    [("#5", "#5"), ("*x", "*x"), ("@me", "@me"), ("'7'", "7"), ("价格", "价格"), ("a=b", "a=b")],
)
def test_an_override_that_is_not_yaml_is_text(text: str, target: str) -> None:
    assert read(SMALL, registry, [f"data.target={text}"]).data.target == target


def test_a_bad_override_is_named_as_it_was_typed() -> None:
    assert the_problem(SMALL, "train.epoch=3") == Problem(
        "override train.epoch=3",
        the_problem(SMALL, "train.epoch=3").message,
        "did you mean epochs?",
    )
    assert "name=value" in the_problem(SMALL, "train.epochs").message
    assert "name=value" in the_problem(SMALL, "train..epochs=1").message
    assert "cannot be set" in the_problem({**SMALL, "train": 5}, "train.epochs.x=1").message
    assert the_problem(SMALL, "train.epochs=many").where == "override train.epochs=many"
    assert "not YAML" in the_problem(SMALL, "model.hidden=[1").message


def test_with_changes_edits_a_checked_recipe() -> None:
    recipe = recipe_of(optimizer={"name": "adam"})
    changed = with_changes(
        recipe, registry, {"optimizer.learning_rate": np.float64(0.5), "train.seed": 3}
    )
    assert (changed.optimizer.as_dict()["learning_rate"], changed.train.seed) == (0.5, 3)
    assert recipe.train.seed == 0
    assert differences(recipe.as_dict(), changed.as_dict()) == [
        "optimizer.learning_rate: 0.001 -> 0.5",
        "train.seed: 0 -> 3",
    ]
    with pytest.raises(RecipeError):
        with_changes(recipe, registry, {"optimizer.learning_rate": -1.0})


# --- defaults ---------------------------------------------------------------------------------------------------------


def test_every_default_is_filled_in_from_the_task_then_the_model_then_the_optimizer() -> None:
    recipe = recipe_of()
    task, model = registry.defaults("tasks", "classification"), registry.defaults("models", "mlp")
    assert recipe.loss.name == task["loss"]
    assert [metric.name for metric in recipe.metrics] == task["metrics"]
    assert recipe.train.epochs == model["train.epochs"]
    assert recipe.train.batch_size == model["train.batch_size"]
    assert recipe.optimizer.as_dict().items() >= model["optimizer"].items()
    assert recipe.data.split is not None
    assert [watcher.name for watcher in recipe.watchers] == DEFAULTS["watchers"]
    # options of the default part without its name change it; another part takes its own defaults
    assert recipe_of(optimizer={"weight_decay": 0.3}).optimizer.as_dict() == {
        **recipe.optimizer.as_dict(),
        "weight_decay": 0.3,
    }
    assert recipe_of(optimizer="adam").optimizer.options == registry.config("optimizers", "adam")()
    assert recipe_of(optimizer="gd").train.batch_size == "all"
    for key in (
        "optimizer",
        "schedule",
        "loss",
        "metrics",
        "watchers",
        "train",
        "regularization",
        "name",
    ):
        assert recipe_of(**{key: None}) == recipe


def test_epochs_and_steps_replace_each_other() -> None:
    by_steps = recipe_of(train={"steps": 10})
    assert (by_steps.train.steps, by_steps.train.epochs) == (10, None)
    assert recipe_of(train={"epochs": None, "steps": None}).train.epochs == recipe_of().train.epochs
    assert read(by_steps.as_dict(), registry) == by_steps


def test_null_switches_a_recommendation_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        registry.take("models", "mlp"), "DEFAULTS", {"train.clip_norm": 1.0, "train.steps": 50}
    )
    assert (recipe_of().train.clip_norm, recipe_of().train.steps, recipe_of().train.epochs) == (
        1.0,
        50,
        None,
    )
    assert recipe_of(train={"clip_norm": None}).train.clip_norm is None
    assert (
        recipe_of(train={"epochs": 3}).train.steps,
        recipe_of(train={"epochs": 3}).train.epochs,
    ) == (None, 3)


def places() -> set[str]:
    return {*PARTS} | {
        f"{section}.{option}"
        for section, config in SECTIONS.items()
        for option in config.model_fields
    }


@pytest.mark.parametrize("shelf_name", ["tasks", "models", "optimizers"])
def test_parts_recommend_only_what_a_recipe_has(shelf_name: str) -> None:
    for name in registry.names(shelf_name):
        assert set(registry.defaults(shelf_name, name)) <= places(), name


VARIANTS: list[dict[str, Any]] = [
    {},
    {
        "optimizer": "gd",
        "schedule": "one_cycle",
        "train": {"steps": 7, "micro_batch": 3, "threads": 1},
    },
    {"regularization": {"dropout": 0.3, "early_stopping": True, "ema_decay": 0.99, "l2": 1e-5}},
    {
        "regularization": {"early_stopping": 4},
        "train": {"epochs": 0.5, "compile": False, "precision": "bfloat16"},
    },
    {
        "data": {
            "source": "a.csv",
            "target": ["y"],
            "columns": {"a": "drop", "b": {"kind": "text", "use": False}},
            "split": "by_time",
        }
    },
    {
        "model": {"name": "linear"},
        "metrics": "accuracy",
        "watchers": [],
        "optimizer": {"name": "muon", "nesterov": False},
    },
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_recipe_written_out_in_full_is_read_back_equal(
    variant: dict[str, Any], tmp_path: Path
) -> None:
    if variant.get("data", {}).get("split") == "by_time":
        variant = {
            **variant,
            "data": {**variant["data"], "split": {"name": "by_time", "column": "b"}},
        }
    recipe = recipe_of(**variant)
    assert read(recipe.as_dict(), registry) == recipe
    lock = {**recipe.as_dict(), "resolved": {"torch": "2.13", "threads": 2}}
    assert read(written(tmp_path, write_yaml(lock), "recipe.lock.yaml"), registry) == recipe
    assert differences(recipe.as_dict(), read(recipe.as_dict(), registry).as_dict()) == []


# --- checking ---------------------------------------------------------------------------------------------------------

FIVE = """\
task: clasification
data:
  source: table.csv
  target: label
  duplicates: dropp
model: {name: mlp, hidden: [0]}
optimizer:
  name: adam
  learning_rate: -1
train:
  epoch: 3
"""


def test_all_problems_are_told_at_once_each_with_its_line_and_remedy(tmp_path: Path) -> None:
    problems = problems_of(written(tmp_path, FIVE, "five.yaml"))
    assert [problem.where for problem in problems] == [
        f"five.yaml:{line}" for line in (1, 5, 6, 9, 11)
    ]
    said = dict(zip((1, 5, 6, 9, 11), problems))
    assert said[1].hint == "did you mean classification?"
    assert said[5].hint == "did you mean drop?"
    assert said[9].message == "optimizer.learning_rate must be at least 0, and is -1."
    assert said[11].hint == "did you mean epochs?"


def test_a_mistake_hides_no_contradiction_elsewhere() -> None:
    problems = problems_of(
        {
            "task": {"name": "classification", "odd": 1},
            "data": {"source": "a.csv", "target": ["a", "a"], "cache": "maybe"},
            "model": {"name": "linear", "odd": 1},
            "loss": "mse",
            "metrics": ["rmse", "acuracy"],
            "optimizer": {"name": "gd", "learning_rate": -1},
            "schedule": {"name": "cosine", "warmup": 100, "final": 2},
            "regularization": {"dropout": 0.5, "l1": -1},
            "train": {"epochs": 3, "steps": 50, "batch_size": 32, "micro_batch": 64, "seed": -1},
        }
    )
    text = "\n".join(problem.message for problem in problems)
    for said in (
        "task.odd is no option",
        "data.cache must be true or false",
        "metrics.1: there is no 'acuracy'",
        "data.target names a column twice",
        "takes exactly 1 target column",
        "model.odd is no option",
        "the loss mse does not fit",
        "the metric rmse does not fit",
        "optimizer.learning_rate must be at least 0",
        "gd takes all training rows",
        "schedule.final must be at most 1",
        "the warm-up (100 steps) is as long as training",
        "takes no dropout",
        "regularization.l1 must be at least 0",
        "train.epochs and train.steps are both given",
        "train.micro_batch (64) is larger",
        "train.seed must be at least 0",
    ):
        assert said in text
    assert len(problems) == 17


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"lr": 0.1}, "lr is no key of a recipe", "did you mean optimizer.learning_rate?"),
        ({"train": {"learning_rate": 0.1}}, "train.learning_rate is no option of train", "did you mean optimizer.learning_rate?"),
        ({"optimizer": {"name": "adam", "lr": 0.1}}, "optimizer.lr is no option of adam", "did you mean learning_rate?"),
        ({"optimizer": {"name": "adam", "eps": 0.1}}, "optimizer.eps is no option of adam", "did you mean epsilon?"),
        ({"train": {"max_epochs": 1}}, "train.max_epochs is no option", "did you mean epochs?"),
        ({"train": {"Batch-Size": 1}}, "train.Batch-Size is no option", "did you mean batch_size?"),
        ({"optimizer": {"nam": "adam"}}, "optimizer.nam is no option", "did you mean name?"),
        ({"optimizer": {"name": 3}}, "optimizer.name must be a word", "optimizers: adagrad"),
        ({"optimizer": ["adam"]}, "optimizer must be the name of a part", "optimizers: adagrad"),
        ({"optimizer": "cosine"}, "there is no 'cosine' among optimizers", "schedules/cosine is on another shelf"),
        ({"model": {"hidden": [3]}}, "model names no part", "say which with name: audio_cnn"),
        ({"train": {"batch_size": "al"}}, "must be a whole number or all", "did you mean all?"),
        ({"train": {"batch_size": 0}}, "train.batch_size must be at least 1 or all, and is 0.", "Examples of one update"),
        ({"train": {"compile": "yes"}}, "train.compile must be true or false or auto", "write true"),
        ({"train": {"seed": 3.0}}, "train.seed must be a whole number, and is 3.0", "write 3"),
        ({"train": {"seed": True}}, "train.seed must be a whole number, and is true", "All randomness"),
        ({"train": {"epochs": "1e1"}}, "train.epochs must be a number", "write 1e1 without quotes"),
        ({"train": {"device": "cup"}}, "train.device must match", "did you mean cpu?"),
        ({"train": [1]}, "train must be a mapping of options", "options: epochs"),
        ({"metrics": 3}, "metrics must be a list of parts", "metrics: accuracy"),
        ({"regularization": {"early_stopping": "yes"}}, "must be true, false, a whole number or a mapping", ""),
        ({"regularization": {"early_stopping": {"name": "console"}}}, "can only be early_stopping", "leave name out"),
        ({"data": {**SMALL["data"], "columns": {"a": "numbr"}}}, "data.columns.a.kind must be one of", "did you mean number?"),
        ({"data": {**SMALL["data"], "columns": {"a": {"knd": "text"}}}}, "data.columns.a.knd is no option of column a", "did you mean kind?"),
        ({"data": {**SMALL["data"], "columns": ["a"]}}, "data.columns must be a mapping", ""),
        ({"data": {**SMALL["data"], "target": [1]}}, "data.target.0 must be text, and is 1", "The column to predict"),
        ({"data": {**SMALL["data"], "target": 1}}, "data.target must be text or a list, and is 1", "The column to predict"),
        ({"data": {**SMALL["data"], "transforms": {"numbers": []}}}, "data.transforms.numbers is no kind", "did you mean number?"),
        ({"data": {**SMALL["data"], "transforms": ["scale"]}}, "must be a mapping by kind of column", "kinds: number"),
        ({"data": {"target": "y"}}, "data.source is missing", "Where rows come from"),
        ({"data": {"source": "digits", "target": "y"}}, "no source is known for 'digits'", "say which with name"),
        ({"data": {"source": {"pth": "a.csv"}, "target": "y"}}, "data.source names no source", "did you mean path?"),
        ({"data": {"source": "cvs", "target": "y"}}, "no source is known for 'cvs'", "did you mean csv?"),
        ({"data": {"source": "a.csv"}}, "takes exactly 1 target column(s), and data.target names 0", "name the column"),
        ({"data": {"source": "a.csv", "target": "y", "columns": {"y": "drop"}}}, "is the target, and its column is dropped", "keep one"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_the_rule_the_value_and_the_remedy(
    changes: dict[str, Any], message: str, hint: str
) -> None:
    problem = the_problem({**SMALL, **changes})
    assert message in problem.message
    assert problem.hint.startswith(hint)


def test_missing_keys_are_told_unless_a_typo_explains_them() -> None:
    assert [problem.message.split(" ")[0] for problem in problems_of({"train": {}})] == [
        "task",
        "data",
        "model",
    ]
    problem = the_problem({"tsk": "classification", "data": SMALL["data"], "model": "mlp"})
    assert (problem.message.split(" ")[0], problem.hint) == ("tsk", "did you mean task?")


def test_check_takes_a_tree_with_its_lines() -> None:
    tree, where = read_yaml(FIVE, "x.yaml")
    with pytest.raises(RecipeError):
        check_recipe(tree, where, registry)
    recipe = check_recipe({**SMALL, "resolved": {"anything": 1}}, {}, registry, "some/where/b.yaml")
    assert recipe.name == "b"
    assert "resolved" not in recipe.raw


def test_every_key_of_a_recipe_is_written_out() -> None:
    assert (*recipe_of().as_dict(), "tune", "compress") == KEYS


def test_differences_tell_true_from_1() -> None:
    assert differences({"a": True, "b": [1, 2]}, {"a": 1, "b": [1, 2], "c": None}) == [
        "a: true (true or false) -> 1",
        "c: (not there) -> null",
    ]
