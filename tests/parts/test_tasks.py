"""The promise of tasks/: every task over every target it accepts, then what each task says it does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from danlu import registry
from danlu.errors import DanluError, DataError
from danlu.terms import Column

ROWS = 47  # odd, and no multiple of any number of classes below
DRAW = np.random.default_rng(7)


def category(name: str, values: Sequence[str | None]) -> Column:
    categories = tuple(dict.fromkeys(value for value in values if value is not None))
    codes = [-1 if value is None else categories.index(value) for value in values]
    return Column(name, "category", np.array(codes, dtype=np.int32), categories=categories)


def boolean(name: str, values: list[int]) -> Column:
    return Column(name, "boolean", np.array(values, dtype=np.int8))


def number(name: str, values: Any) -> Column:
    return Column(name, "number", np.array(values, dtype=np.float64))


def text(name: str, values: Sequence[str | None]) -> Column:
    pieces = [(value or "").encode() for value in values]
    offsets = np.cumsum([0, *map(len, pieces)]).astype(np.int64)
    missing = np.array([value is None for value in values])
    return Column(
        name,
        "text",
        np.frombuffer(b"".join(pieces), dtype=np.uint8),
        offsets=offsets,
        missing=missing,
    )


def spread(choices: list[Any]) -> list[Any]:
    """ROWS values, each choice at least once."""
    return [*choices, *DRAW.choice(np.array(choices, dtype=object), ROWS - len(choices)).tolist()]


TARGETS: dict[str, dict[str, Column]] = {
    "words": {"kind": category("kind", spread(["pear", "apple", "fig"]))},
    "yes or no": {"bought": boolean("bought", spread([1, 0]))},
    "digits": {"digit": number("digit", spread([float(each) for each in range(10)]))},
    "a price": {"price": number("price", DRAW.normal(2e5, 1e5, ROWS))},
    "two prices": {
        "low": number("low", DRAW.normal(3, 1e-4, ROWS)),
        "high": number("high", DRAW.normal(-1e7, 5e6, ROWS)),
    },
    "a wide number": {
        "position": Column(
            "position", "number", DRAW.normal(0, 3, (ROWS, 3)), names=("x", "y", "z")
        )
    },
    "flags": {name: number(name, spread([0.0, 1.0])) for name in ("red", "round", "sweet")},
    "joined labels": {"tags": category("tags", spread(["red|round", "sweet", "red | sweet"]))},
    "joined text": {"tags": text("tags", spread(["red|round", "sweet", "", "red | sweet|red"]))},
    "word and price": {
        "kind": category("kind", spread(["b", "a"])),
        "price": number("price", DRAW.normal(5, 2, ROWS)),
    },
}


def made(name: str, targets: dict[str, Column], **options: Any) -> Any:
    return registry.take("tasks", name).build(registry.config("tasks", name)(**options), targets)


# Tasks whose examples are the rows of a table; those that cut their own are held over whole recipes
# by test_families.py.
ROW_TASKS = [
    name
    for name in registry.names("tasks")
    if registry.task_facts(name).asks in ("classes", "labels", "numbers", "several")
]


def _accepted() -> list[tuple[str, str]]:
    pairs = []
    for name in ROW_TASKS:
        least, most = registry.task_facts(name).targets
        for label, targets in TARGETS.items():
            if least <= len(targets) <= (most or 10**9):
                try:
                    made(name, targets)
                except DataError:
                    continue
                pairs.append((name, label))
    return pairs


ACCEPTED = _accepted()
every_accepted = pytest.mark.parametrize(("name", "label"), ACCEPTED)
every_task = pytest.mark.parametrize("name", registry.names("tasks"))
every_row_task = pytest.mark.parametrize("name", ROW_TASKS)


def leaves(target: Any) -> list[np.ndarray]:
    return (
        [leaf for each in target.values() for leaf in leaves(each)]
        if isinstance(target, dict)
        else [target]
    )


@every_row_task
def test_every_task_accepts_some_target(name: str) -> None:
    assert any(task == name for task, _ in ACCEPTED)


@every_task
def test_the_defaults_of_a_task_fit_it(name: str) -> None:
    facts, defaults = registry.task_facts(name), registry.defaults("tasks", name)
    assert defaults["loss"] in facts.losses
    assert defaults["metrics"]
    assert {
        metric if isinstance(metric, str) else metric["name"] for metric in defaults["metrics"]
    } <= set(facts.metrics)
    split = defaults.get("data.split", "random")
    assert (split if isinstance(split, str) else split["name"]) in registry.names("splits")


@every_task
def test_every_loss_and_metric_a_task_names_stands_on_its_shelf(name: str) -> None:
    facts = registry.task_facts(name)
    assert set(facts.losses) <= set(registry.names("losses"))
    assert set(facts.metrics) <= set(registry.names("metrics"))


@pytest.mark.parametrize("kind", ["losses", "metrics"])
def test_every_loss_and_metric_fits_some_task(kind: str) -> None:
    asked = {registry.task_facts(name).asks for name in registry.names("tasks")}
    for part in registry.names(kind):
        assert set(registry.facts(kind, part).FITS) & asked, part


@every_accepted
def test_a_restored_task_encodes_and_answers_alike(name: str, label: str) -> None:
    task = made(name, TARGETS[label])
    state = json.loads(json.dumps(task.state(), allow_nan=False))
    again = registry.take("tasks", name).restore(registry.config("tasks", name)(), state)
    outputs = torch.from_numpy(DRAW.normal(0, 2, (13, task.output.size))).float()
    assert again.output == task.output
    assert again.target_names == task.target_names
    assert again.state() == task.state()
    assert again.answers(outputs) == task.answers(outputs)
    for mine, other in zip(
        leaves(task.encode(TARGETS[label])), leaves(again.encode(TARGETS[label])), strict=True
    ):
        assert np.array_equal(mine, other)


@every_accepted
def test_encoded_targets_have_the_promised_shape_and_dtype(name: str, label: str) -> None:
    task = made(name, TARGETS[label])
    encoded = task.encode(TARGETS[label])
    asks = registry.task_facts(name).asks
    assert isinstance(encoded, dict) == (asks == "several")
    for leaf in leaves(encoded):
        assert len(leaf) == ROWS
        assert leaf.dtype == (np.int64 if leaf.ndim == 1 else np.float32)
        assert np.isfinite(leaf).all()
    if asks == "classes":
        assert encoded.shape == (ROWS,)
        assert set(encoded) == set(range(task.output.size))
    elif asks != "several":
        assert encoded.shape == (ROWS, task.output.size)


@every_accepted
def test_there_is_one_answer_a_row_and_it_is_plain_json(name: str, label: str) -> None:
    task = made(name, TARGETS[label])
    for rows in (0, 1, 7):
        answers = task.answers(
            torch.from_numpy(DRAW.normal(0, 3, (rows, task.output.size))).float()
        )
        assert len(answers) == rows
        json.dumps(answers, allow_nan=False)
        assert all("prediction" in answer for answer in answers)


@every_accepted
def test_encoding_depends_on_no_other_row(name: str, label: str) -> None:
    task = made(name, TARGETS[label])
    some = np.array([5, 3, 3, 40])
    few = task.encode({target: column.take(some) for target, column in TARGETS[label].items()})
    for mine, whole in zip(leaves(few), leaves(task.encode(TARGETS[label])), strict=True):
        assert np.array_equal(mine, whole[some])


@every_accepted
def test_a_missing_target_is_refused_with_its_count(name: str, label: str) -> None:
    targets = dict(TARGETS[label])
    first, column = next(iter(targets.items()))
    lost = [4, 9]
    if column.kind == "text":
        gone = np.zeros(ROWS, dtype=bool)
        gone[lost] = True
        targets[first] = Column(first, "text", column.values, offsets=column.offsets, missing=gone)
    else:
        values = column.values.copy()
        values[lost] = np.nan if column.kind == "number" else -1
        targets[first] = Column(first, column.kind, values, categories=column.categories)
    for use in (lambda: made(name, targets), lambda: made(name, TARGETS[label]).encode(targets)):
        with pytest.raises(DataError, match=rf"{first} is missing in 2 of {ROWS} rows") as caught:
            use()
        assert caught.value.problem.hint


@every_accepted
def test_a_task_describes_itself_in_one_line(name: str, label: str) -> None:
    line = made(name, TARGETS[label]).describe()
    assert "\n" not in line
    assert all(target in line for target in TARGETS[label])


@every_accepted
def test_the_baseline_gives_finite_numbers(name: str, label: str) -> None:
    task = made(name, TARGETS[label])
    encoded = task.encode(TARGETS[label])
    scores = task.baseline(encoded, encoded)
    assert scores
    assert all(type(value) is float and np.isfinite(value) for value in scores.values())


@every_accepted
def test_the_deciding_score_is_the_loss_or_a_default_metric(name: str, label: str) -> None:
    metric, better = made(name, TARGETS[label]).score_order
    assert better in ("higher", "lower")
    if metric != "loss":
        assert metric in registry.defaults("tasks", name)["metrics"]
        assert better == registry.metric_facts(metric).better


@every_accepted
def test_ten_thousand_rows_get_ten_thousand_answers(name: str, label: str) -> None:
    task = made(name, TARGETS[label])
    outputs = torch.randn(10_000, task.output.size)
    assert len(task.answers(outputs)) == 10_000


@every_row_task
def test_no_rows_are_refused(name: str) -> None:
    label = next(label for task, label in ACCEPTED if task == name)
    nothing = {
        target: column.take(np.zeros(0, dtype=np.int64))
        for target, column in TARGETS[label].items()
    }
    with pytest.raises(DataError, match="no rows"):
        made(name, nothing)


def test_taking_every_task_loss_and_metric_imports_no_torch() -> None:
    program = (
        "import sys, danlu.registry as s\n"
        "[s.take(f, n) for f in ('tasks', 'losses', 'metrics') for n in s.names(f)]\n"
        "[s.task_facts(n) for n in s.names('tasks')]\n"
        "print(sorted(set(sys.modules) & {'torch', 'pyarrow', 'sklearn', 'scipy', 'PIL'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# --- classification ---------------------------------------------------------------------------------------------------


def test_classes_are_sorted_and_numbers_by_size() -> None:
    assert made("classification", TARGETS["words"]).classes == ("apple", "fig", "pear")
    assert made("classification", TARGETS["yes or no"]).classes == (False, True)
    assert made("classification", TARGETS["digits"]).classes == tuple(range(10))
    assert made("classification", {"n": category("n", ["10", "9", "-1", "2.5"] * 5)}).classes == (
        "-1",
        "2.5",
        "9",
        "10",
    )
    assert made(
        "classification", {"n": category("n", ["b", "nan", "a", "10", "9"] * 5)}
    ).classes == ("10", "9", "a", "b", "nan")


def test_a_class_keeps_its_type_in_answers() -> None:
    def first(label: str) -> Any:
        task = made("classification", TARGETS[label])
        return task.answers(torch.eye(task.output.size)[-1:])[0]["prediction"]

    assert first("digits") == 9
    assert type(first("digits")) is int
    assert first("yes or no") is True
    assert first("words") == "pear"


def test_probabilities_are_those_of_softmax_and_add_to_one() -> None:
    task = made("classification", TARGETS["words"])
    outputs = torch.tensor([[1.0, 2.0, -3.0], [1e4, 0.0, -1e4]])
    answers = task.answers(outputs)
    expected = outputs.double().softmax(1).tolist()
    assert [list(answer["probabilities"].values()) for answer in answers] == expected
    assert all(abs(sum(row) - 1) < 1e-12 for row in expected)  # float64 rounding
    assert [answer["prediction"] for answer in answers] == ["fig", "apple"]


def test_a_class_never_seen_in_training_is_refused_by_name() -> None:
    task = made("classification", TARGETS["words"])
    with pytest.raises(
        DataError, match="kind holds plum in 2 rows, which no training row has"
    ) as caught:
        task.encode({"kind": category("kind", ["fig", "plum", "plum"])})
    assert "apple, fig, pear" in str(caught.value)


def test_a_category_that_no_training_row_holds_is_no_class() -> None:
    column = Column(
        "kind", "category", np.array([0, 2, 0, 2], dtype=np.int32), categories=("a", "b", "c")
    )
    task = made("classification", {"kind": column})
    assert task.classes == ("a", "c")
    assert task.class_counts == (2, 2)


def test_classes_are_matched_by_name_not_by_code() -> None:
    task = made("classification", {"kind": category("kind", ["a", "b", "c"])})
    assert task.encode({"kind": category("kind", ["c", "a", "b", "a"])}).tolist() == [2, 0, 1, 0]
    digits = made("classification", TARGETS["digits"])
    assert digits.encode({"digit": category("digit", ["7", "0"])}).tolist() == [7, 0]


@pytest.mark.parametrize("values", [DRAW.normal(size=ROWS), np.arange(500.0)])
def test_a_continuous_number_is_refused_and_regression_suggested(values: np.ndarray) -> None:
    with pytest.raises(DataError, match="looks continuous") as caught:
        made("classification", {"price": number("price", values)})
    assert "regression" in caught.value.problem.hint


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(DataError, match="is a in all 3 training rows"):
        made("classification", {"kind": category("kind", ["a"] * 3)})


@pytest.mark.parametrize(
    "column", [text("t", ["a", "b"]), Column("t", "datetime", np.array([1, 2], dtype=np.int64))]
)
def test_text_and_dates_are_no_classes(column: Column) -> None:
    with pytest.raises(DataError, match="no classes"):
        made("classification", {"t": column})


def test_the_positive_class_can_be_chosen_and_must_exist() -> None:
    assert made("classification", TARGETS["yes or no"]).positive_class == 1
    assert made("classification", TARGETS["yes or no"], positive=False).positive_class == 0
    assert made("classification", TARGETS["digits"], positive=3).positive_class == 3
    with pytest.raises(DataError, match="is not a class") as caught:
        made("classification", TARGETS["words"], positive="aple")
    assert caught.value.problem.hint == "did you mean apple?"


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    task = made("classification", TARGETS["digits"])
    target = task.encode(TARGETS["digits"])
    expected = compute_class_weight("balanced", classes=np.arange(10), y=target)
    assert np.allclose(
        task.class_weights("balanced"), expected, rtol=1e-12
    )  # the same quotient, other order of rounding
    assert task.class_weights({"3": 2.5})[2:5] == [1.0, 2.5, 1.0]
    with pytest.raises(DataError, match="is not a class"):
        task.class_weights({"12": 2.0})


def test_the_description_names_shares() -> None:
    column = category("income", ["<=50K"] * 76 + [">50K"] * 24)
    assert (
        made("classification", {"income": column}).describe()
        == "classification of income: 2 classes (<=50K 76 %, >50K 24 %)"
    )
    assert (
        made("classification", TARGETS["digits"])
        .describe()
        .startswith("classification of digit: 10 classes (commonest ")
    )


def test_the_baseline_of_classes_is_the_commonest_of_the_training_rows() -> None:
    task = made("classification", TARGETS["yes or no"])
    scores = task.baseline(np.array([1, 1, 1, 0]), np.array([1, 0, 0, 0, 1]))
    assert scores["accuracy"] == 0.4
    assert scores["log_loss"] == pytest.approx(
        -(2 * np.log(0.75) + 3 * np.log(0.25)) / 5, rel=1e-12
    )


# --- regression -------------------------------------------------------------------------------------------------------


def test_scaled_targets_have_mean_zero_and_deviation_one_and_come_back_exactly() -> None:
    for label in ("a price", "two prices", "a wide number"):
        task = made("regression", TARGETS[label])
        encoded = task.encode(TARGETS[label])
        assert np.allclose(
            encoded.mean(axis=0, dtype=np.float64), 0, atol=1e-6
        )  # float32 rounding of ROWS numbers
        assert np.allclose(encoded.std(axis=0, dtype=np.float64), 1, atol=1e-6)
        back = task.to_units(torch.from_numpy(encoded)).numpy()
        values = np.concatenate(
            [column.values.reshape(ROWS, -1) for column in TARGETS[label].values()], axis=1
        )
        # float32 keeps 2^-24 of a deviation, not of the value: 3 +- 0.0001 comes back to 1e-11
        assert np.abs((back - values) / values.std(axis=0)).max() < 4e-7


def test_unscaled_targets_are_the_numbers_themselves() -> None:
    task = made("regression", TARGETS["a price"], scale_target=False)
    encoded = task.encode(TARGETS["a price"])
    assert np.array_equal(encoded[:, 0], TARGETS["a price"]["price"].values.astype(np.float32))
    assert task.answers(torch.tensor([[2.5]])) == [{"prediction": 2.5}]


def test_several_numbers_are_answered_by_name() -> None:
    two = made("regression", TARGETS["two prices"], scale_target=False)
    assert two.answers(torch.tensor([[1.0, 2.0]])) == [{"prediction": {"low": 1.0, "high": 2.0}}]
    wide = made("regression", TARGETS["a wide number"])
    assert wide.output.names == ("position.x", "position.y", "position.z")


def test_a_category_is_no_number() -> None:
    with pytest.raises(DataError, match="kind is category; regression needs numbers") as caught:
        made("regression", TARGETS["words"])
    assert "classification" in caught.value.problem.hint


def test_infinite_constant_and_huge_targets_are_refused() -> None:
    with pytest.raises(DataError, match="infinite in 1 of 3 rows"):
        made("regression", {"y": number("y", [1, np.inf, 3])})
    with pytest.raises(DataError, match=r"y is 2\.5 in all 3 training rows"):
        made("regression", {"y": number("y", [2.5, 2.5, 2.5])})
    with pytest.raises(DataError, match="too large for float32"):
        made("regression", {"y": number("y", [1, 2, 3])}, scale_target=False).encode(
            {"y": number("y", [1e39])}
        )


def test_the_baseline_of_numbers_is_the_mean_of_the_training_rows_in_units() -> None:
    train, other = number("y", [10.0, 20.0, 60.0]), number("y", [30.0, 50.0])
    for scaled in (True, False):
        task = made("regression", {"y": train}, scale_target=scaled)
        scores = task.baseline(task.encode({"y": train}), task.encode({"y": other}))
        # encoded targets are float32: 6e-8 of the deviation, 22
        assert scores == pytest.approx(
            {"mse": 200.0, "rmse": 200**0.5, "mae": 10.0, "r2": -1.0}, abs=1e-4
        )


# --- multi-label ------------------------------------------------------------------------------------------------------


def test_joined_labels_are_split_trimmed_and_counted_once() -> None:
    cells = ["red|round", "sweet", "", " red | sweet|red"]
    task = made("multi_label", {"tags": text("tags", cells)})
    assert task.classes == ("red", "round", "sweet")
    assert task.label_counts == (2, 1, 2)
    assert task.encode({"tags": text("tags", cells)}).tolist() == [
        [1, 1, 0],
        [0, 0, 1],
        [0, 0, 0],
        [1, 0, 1],
    ]
    assert task.encode({"tags": category("tags", cells[:2])}).tolist() == [[1, 1, 0], [0, 0, 1]]
    assert (
        made(
            "multi_label",
            {"tags": category("tags", [cell.replace("|", ";") for cell in cells])},
            separator=";",
        ).classes
        == task.classes
    )


def test_a_column_of_joined_labels_may_bear_the_name_of_its_only_label() -> None:
    task = made("multi_label", {"spam": text("spam", ["spam", "", "spam"])})
    assert task.encode({"spam": text("spam", ["", "spam"])}).tolist() == [[0], [1]]


def test_a_missing_cell_may_mean_no_labels() -> None:
    for column in (text("tags", ["a|b", None, "b"]), category("tags", ["a|b", None, "b"])):
        task = made("multi_label", {"tags": column}, empty="no_labels")
        assert task.encode({"tags": column}).tolist() == [[1, 1], [0, 0], [0, 1]]


def test_what_stands_in_the_bytes_of_a_missing_cell_is_no_label() -> None:
    whole = text("tags", ["a|b", "c", "b"])
    column = Column(
        "tags", "text", whole.values, offsets=whole.offsets, missing=np.array([False, True, False])
    )
    task = made("multi_label", {"tags": column}, empty="no_labels")
    assert task.classes == ("a", "b")
    assert task.encode({"tags": column}).tolist() == [[1, 1], [0, 0], [0, 1]]


def test_a_label_that_only_other_rows_hold_is_not_asked_for() -> None:
    column = category("tags", ["a|b", "b", "z"])
    task = made("multi_label", {"tags": column.take(np.array([0, 1]))})
    assert task.classes == ("a", "b")
    assert task.encode({"tags": column.take(np.array([1, 0]))}).tolist() == [[0, 1], [1, 1]]


def test_labels_are_given_at_the_threshold_and_above() -> None:
    outputs = torch.tensor([[0.0, 2.0, -2.0], [-9.0, -9.0, -9.0]])
    answers = made("multi_label", TARGETS["flags"]).answers(outputs)
    assert [answer["prediction"] for answer in answers] == [["red", "round"], []]
    assert answers[0]["probabilities"] == pytest.approx(
        {"red": 0.5, "round": 0.880797, "sweet": 0.119203}, abs=1e-6
    )
    assert made("multi_label", TARGETS["flags"], threshold=0.1).answers(outputs)[0][
        "prediction"
    ] == ["red", "round", "sweet"]


def test_a_label_never_seen_in_training_is_refused_by_name() -> None:
    task = made("multi_label", TARGETS["joined labels"])
    with pytest.raises(DataError, match=r"tags holds the label\(s\) sour"):
        task.encode({"tags": text("tags", ["red|sour"])})


def test_a_number_that_is_neither_0_nor_1_is_no_label() -> None:
    with pytest.raises(DataError, match="red holds 2 in 1 of 3 rows; a label is 0 or 1"):
        made("multi_label", {"red": number("red", [0, 1, 2])})
    with pytest.raises(DataError, match="has no label"):
        made("multi_label", {"red": number("red", [0, 0, 0])})


# --- multi-task -------------------------------------------------------------------------------------------------------


def test_targets_get_a_task_by_their_kind_and_outputs_side_by_side() -> None:
    task = made("multi_task", TARGETS["word and price"])
    assert {name: part.name for name, part in task.parts.items()} == {
        "kind": "classification",
        "price": "regression",
    }
    assert task.output.size == 3
    assert task.output.names == ("kind/a", "kind/b", "price/price")
    (answer,) = task.answers(torch.tensor([[0.0, 5.0, 0.0]]))
    assert answer["prediction"]["kind"] == "b"
    assert answer["prediction"]["price"] == pytest.approx(
        TARGETS["word and price"]["price"].values.mean(), rel=1e-9
    )
    assert set(answer["probabilities"]) == {"kind"}


def test_a_number_of_0_and_1_alone_is_classified() -> None:
    task = made("multi_task", {**TARGETS["a price"], "red": TARGETS["flags"]["red"]})
    assert [part.name for part in task.parts.values()] == ["regression", "classification"]


def test_a_target_takes_its_task_weight_and_columns_from_the_recipe() -> None:
    targets = {**TARGETS["flags"], **TARGETS["a price"], **TARGETS["digits"]}
    config = registry.config("tasks", "multi_task").model_validate(
        {
            "targets": {
                "look": {
                    "task": {"name": "multi_label", "threshold": 0.3},
                    "columns": ["red", "round", "sweet"],
                    "weight": 0.5,
                },
                "price": {"task": {"name": "regression", "scale_target": False}},
                "digit": {"task": "classification"},
            }
        }
    )
    task = registry.take("tasks", "multi_task").build(config, targets)
    assert task.slices == {"look": slice(0, 3), "price": slice(3, 4), "digit": slice(4, 14)}
    assert task.weights == {"look": 0.5, "price": 1.0, "digit": 1.0}
    assert task.tasks["look"].config.threshold == 0.3
    assert not task.tasks["price"].scaled
    again = registry.take("tasks", "multi_task").restore(
        config, json.loads(json.dumps(task.state()))
    )
    assert again.state() == task.state()
    assert again.tasks["look"].config.threshold == 0.3


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"task": "multi_task"}, "cannot hold itself"),
        ({"task": "clasification"}, "did you mean classification"),
        (
            {"task": {"name": "regression", "scale_targt": True}},
            "scale_targt is no option of regression",
        ),
        ({"task": {"name": "multi_label", "threshold": 2.0}}, "threshold of multi_label"),
        ({"weight": 0}, "greater than 0"),
    ],
)
def test_a_wrong_inner_task_is_told_as_the_recipe_is_read(
    target: dict[str, Any], said: str
) -> None:
    from pydantic import ValidationError

    with pytest.raises(ValidationError, match=said):
        registry.config("tasks", "multi_task").model_validate({"targets": {"price": target}})


def test_a_target_without_its_column_is_refused() -> None:
    config = registry.config("tasks", "multi_task").model_validate(
        {"targets": {"prize": {"task": "regression"}}}
    )
    with pytest.raises(DanluError, match=r"task.targets.prize asks for the column prize") as caught:
        registry.take("tasks", "multi_task").build(config, TARGETS["a price"])
    assert "price" in caught.value.problem.hint
