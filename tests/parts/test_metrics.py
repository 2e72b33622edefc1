"""The promise of metrics/: every metric on every task it fits, then each against scikit-learn."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch import Tensor

from danlu import registry
from danlu.errors import DanluError, DataError
from danlu.terms import Batch, Column

ROWS = 307  # odd and prime: no batch size divides it


def _classes(name: str, count: int, draw: np.random.Generator) -> Column:
    codes = np.concatenate([np.arange(count), draw.integers(0, count, ROWS - count)])
    return Column(name, "category", codes.astype(np.int32), categories=tuple("abcdefgh"[:count]))


def _targets() -> dict[str, dict[str, Column]]:
    draw = np.random.default_rng(11)
    two, seven = {"won": _classes("won", 2, draw)}, {"kind": _classes("kind", 7, draw)}
    labels = {
        name: Column(name, "boolean", (draw.random(ROWS) < share).astype(np.int8))
        for name, share in (("x", 0.1), ("y", 0.5), ("z", 0.8))
    }
    price = {"price": Column("price", "number", draw.normal(2e5, 3e4, ROWS))}
    pair = price | {"size": Column("size", "number", draw.gamma(2, 1e-3, ROWS))}
    return {
        "two": two,
        "seven": seven,
        "labels": labels,
        "price": price,
        "pair": pair,
        "mixed": seven | price | two,
    }


TARGETS = _targets()
MATCH = {
    "classes": ("two", "seven"),
    "labels": ("labels",),
    "numbers": ("price", "pair"),
    "several": ("mixed",),
}
# Options worth a run of the whole contract; a metric not named here runs with its defaults.
AVERAGES = [{"average": average} for average in ("macro", "micro", "weighted")]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "precision": AVERAGES,
    "recall": AVERAGES,
    "f1": AVERAGES,
    "top_k": [{"k": 1}, {"k": 3}],
    "calibration_error": [{"bins": 4}],
}


def task_for(name: str, label: str, **options: Any) -> Any:
    return registry.take("tasks", name).build(
        registry.config("tasks", name)(**options), TARGETS[label]
    )


def _cases() -> list[Any]:
    cases = []
    for metric in registry.names("metrics"):
        for task in registry.names("tasks"):
            asks = registry.task_facts(task).asks
            if asks not in registry.metric_facts(metric).fits:
                continue
            for label in MATCH.get(asks, ()):
                try:
                    task_for(task, label)
                except DataError:
                    continue
                for options in [{}, *VARIANTS.get(metric, [])]:
                    cases.append(
                        pytest.param(
                            metric, options, task, label, id=f"{metric}-{task}-{label}-{options}"
                        )
                    )
    return cases


CASES = _cases()
every_case = pytest.mark.parametrize(("name", "options", "task_name", "label"), CASES)


def built(name: str, options: dict[str, Any], task: Any) -> Any:
    return registry.take("metrics", name).build(registry.config("metrics", name)(**options), task)


def tensors(target: Any) -> Any:
    return (
        {name: tensors(each) for name, each in target.items()}
        if isinstance(target, dict)
        else torch.from_numpy(target)
    )


def at(target: Any, rows: Tensor) -> Any:
    return (
        {name: at(each, rows) for name, each in target.items()}
        if isinstance(target, dict)
        else target[rows]
    )


def outputs_for(task: Any, seed: int = 1) -> Tensor:
    """Logits with many ties: rounded to halves."""
    draw = torch.Generator().manual_seed(seed)
    return (torch.randn(ROWS, task.output.size, generator=draw) * 4).round() / 2


def scored(metric: Any, outputs: Tensor, target: Any, cuts: list[int]) -> Any:
    """The score over rows cut into batches of these sizes, added or joined as an evaluation does
    it."""
    counts: dict[str, list[Tensor]] = {}
    start = 0
    for size in cuts:
        rows = torch.arange(start, start + size)
        for key, value in metric.count(outputs[rows], Batch({}, at(target, rows), rows)).items():
            counts.setdefault(key, []).append(value)
        start += size
    assert start == len(outputs)
    joined = metric.joined
    return metric.score(
        {
            key: torch.cat(each) if joined else torch.stack(each).sum(0)
            for key, each in counts.items()
        }
    )


def score(name: str, task: Any, outputs: Tensor, target: Tensor, **options: Any) -> Any:
    return scored(built(name, options, task), outputs, target, [len(outputs)])


def numbers(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in numbers(each)]
    return [value]


@pytest.mark.parametrize("name", registry.names("metrics"))
def test_every_metric_says_which_way_is_better(name: str) -> None:
    assert registry.metric_facts(name).better in ("higher", "lower")


@every_case
def test_a_score_is_plain_numbers_and_the_same_however_rows_are_cut(
    name: str, options: dict[str, Any], task_name: str, label: str
) -> None:
    task = task_for(task_name, label)
    metric, outputs, target = (
        built(name, options, task),
        outputs_for(task),
        tensors(task.encode(TARGETS[label])),
    )
    whole = scored(metric, outputs, target, [ROWS])
    json.dumps(whole, allow_nan=False)
    assert all(type(each) in (float, int) for each in numbers(whole))
    for cuts in ([64, 64, 64, 64, 51], [1] * 7 + [300], [306, 1], [153, 1, 153]):
        again = scored(metric, outputs, target, cuts)
        # what is counted is equal; float64 sums may differ in the order they were added: 307
        # roundings of 1e-16
        assert numbers(again) == pytest.approx(numbers(whole), rel=1e-12, abs=1e-15)


@every_case
def test_what_is_added_is_exact_in_whole_numbers_or_float64(
    name: str, options: dict[str, Any], task_name: str, label: str
) -> None:
    task = task_for(task_name, label)
    metric, outputs, target = (
        built(name, options, task),
        outputs_for(task),
        tensors(task.encode(TARGETS[label])),
    )
    counts = metric.count(outputs, Batch({}, target, torch.arange(ROWS)))
    if not metric.joined:
        assert {value.dtype for value in counts.values()} <= {torch.int64, torch.float64}


@every_case
@pytest.mark.parametrize("rows", [1, 2])
def test_a_score_over_hardly_any_rows_is_a_number_or_none(
    name: str, options: dict[str, Any], task_name: str, label: str, rows: int
) -> None:
    task = task_for(task_name, label)
    target = at(
        tensors(task.encode(TARGETS[label])), torch.zeros(rows, dtype=torch.int64)
    )  # one row, repeated: one class
    for outputs in (
        outputs_for(task)[:rows],
        torch.zeros(rows, task.output.size),
        torch.full((rows, task.output.size), 1e4),
    ):
        value = scored(built(name, options, task), outputs, target, [1] * rows)
        json.dumps(value, allow_nan=False)
        assert all(each is None or math.isfinite(each) for each in numbers(value))


@every_case
def test_outputs_that_are_no_numbers_never_score_nan(
    name: str, options: dict[str, Any], task_name: str, label: str
) -> None:
    task = task_for(task_name, label)
    target = tensors(task.encode(TARGETS[label]))
    value = scored(
        built(name, options, task), torch.full((ROWS, task.output.size), math.nan), target, [ROWS]
    )
    json.dumps(value, allow_nan=False)


@pytest.mark.parametrize(
    ("name", "options", "task_name", "label"),
    [
        case for case in CASES if case.values[0] not in ("per_target", "confusion_matrix")
    ],  # several scores, and a table
)
def test_a_perfect_answer_is_not_worse_than_any_other(
    name: str, options: dict[str, Any], task_name: str, label: str
) -> None:
    task = task_for(task_name, label)
    target = tensors(task.encode(TARGETS[label]))
    if target.ndim == 1:
        perfect = torch.nn.functional.one_hot(target, task.output.size).float() * 40
    else:
        perfect = target if hasattr(task, "to_units") else target * 80 - 40
    metric = built(name, options, task)
    best = numbers(scored(metric, perfect, target, [ROWS]))
    sign = 1 if registry.metric_facts(name).better == "higher" else -1
    for seed in range(3):
        assert all(
            sign * (mine - other) >= 0
            for mine, other in zip(
                best, numbers(scored(metric, outputs_for(task, seed), target, [ROWS]))
            )
        )


# --- against scikit-learn ---------------------------------------------------------------------------------------------

CLASS_TASKS = [("two", None), ("two", 1), ("seven", None), ("seven", 3)]


def answered(label: str, absent: int | None) -> tuple[Any, Tensor, Tensor, np.ndarray, np.ndarray]:
    """(task, outputs, target, true classes, predicted classes); class `absent` is then neither true
    nor predicted."""
    task = task_for("classification", label)
    outputs, target = outputs_for(task), torch.from_numpy(task.encode(TARGETS[label]))
    if absent is not None:
        rows = target != absent
        outputs, target = outputs[rows], target[rows]
        outputs[:, absent] = -50.0
    return task, outputs, target, target.numpy(), outputs.argmax(1).numpy()


@pytest.mark.parametrize(("label", "absent"), CLASS_TASKS)
def test_accuracy_and_the_confusion_matrix_are_scikit_learns(
    label: str, absent: int | None
) -> None:
    task, outputs, target, true, predicted = answered(label, absent)
    assert score("accuracy", task, outputs, target) == sklearn.accuracy_score(true, predicted)
    table = sklearn.confusion_matrix(true, predicted, labels=range(len(task.classes)))
    assert score("confusion_matrix", task, outputs, target) == {"confusion_matrix": table.tolist()}


@pytest.mark.parametrize(("label", "absent"), CLASS_TASKS)
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_precision_recall_and_f1_are_scikit_learns(
    name: str, average: str, label: str, absent: int | None
) -> None:
    task, outputs, target, true, predicted = answered(label, absent)
    expected = getattr(sklearn, f"{name}_score")(true, predicted, average=average, zero_division=0)
    assert score(name, task, outputs, target, average=average) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_two_classes_score_the_positive_one_and_more_the_mean(name: str) -> None:
    function = getattr(sklearn, f"{name}_score")
    task, outputs, target, true, predicted = answered("two", None)
    assert score(name, task, outputs, target) == pytest.approx(function(true, predicted), rel=1e-12)
    other = task_for("classification", "two", positive="a")
    assert score(name, other, outputs, target) == pytest.approx(
        function(true, predicted, pos_label=0), rel=1e-12
    )
    task, outputs, target, true, predicted = answered("seven", None)
    assert score(name, task, outputs, target) == pytest.approx(
        function(true, predicted, average="macro"), rel=1e-12
    )
    with pytest.raises(DanluError, match=r"binary of .* needs two classes"):
        built(name, {"average": "binary"}, task)


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_precision_recall_and_f1_of_labels_are_scikit_learns(name: str, average: str) -> None:
    task = task_for("multi_label", "labels")
    outputs, target = outputs_for(task), torch.from_numpy(task.encode(TARGETS["labels"]))
    expected = getattr(sklearn, f"{name}_score")(
        target.numpy(), (outputs >= 0).numpy(), average=average
    )
    assert score(name, task, outputs, target, average=average) == pytest.approx(expected, rel=1e-12)


def test_a_class_predicted_but_never_true_counts_as_zero() -> None:
    task, outputs, target, *_ = answered("seven", None)
    rows = target != 2
    outputs, target = outputs[rows], target[rows]
    true, predicted = target.numpy(), outputs.argmax(1).numpy()
    assert (predicted == 2).any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn tells of the class without true rows
        for name in ("precision", "recall", "f1"):
            expected = getattr(sklearn, f"{name}_score")(
                true, predicted, average="macro", zero_division=0
            )
            assert score(name, task, outputs, target, average="macro") == pytest.approx(
                expected, rel=1e-12
            )


@pytest.mark.parametrize("k", [1, 2, 3, 7, 9])
def test_top_k_is_scikit_learns_where_nothing_ties(k: int) -> None:
    task = task_for("classification", "seven")
    outputs = torch.randn(ROWS, 7, generator=torch.Generator().manual_seed(5))
    target = torch.from_numpy(task.encode(TARGETS["seven"]))
    metric = built("top_k", {"k": k}, task)
    assert metric.label == f"top_{k}"
    if k < 7:
        expected = sklearn.top_k_accuracy_score(
            target.numpy(), outputs.numpy(), k=k, labels=range(7)
        )
        assert scored(metric, outputs, target, [ROWS]) == pytest.approx(expected, rel=1e-12)
    else:
        assert scored(metric, outputs, target, [ROWS]) == 1.0


def test_top_1_is_accuracy_also_where_outputs_tie() -> None:
    task, outputs, target, *_ = answered("seven", None)
    assert (outputs == outputs.max(1, keepdim=True).values).sum() > ROWS
    assert score("top_k", task, outputs, target, k=1) == score("accuracy", task, outputs, target)


@pytest.mark.parametrize(
    ("name", "function"),
    [("auroc", sklearn.roc_auc_score), ("average_precision", sklearn.average_precision_score)],
)
def test_rankings_are_scikit_learns_also_with_ties(name: str, function: Any) -> None:
    task, outputs, target, true, _ = answered("two", None)
    margin = (outputs[:, 1] - outputs[:, 0]).numpy()
    assert len(np.unique(margin)) < ROWS / 5
    assert score(name, task, outputs, target) == pytest.approx(function(true, margin), rel=1e-12)
    other = task_for("classification", "two", positive="a")
    assert score(name, other, outputs, target) == pytest.approx(
        function(1 - true, -margin), rel=1e-12
    )

    task, outputs, target, true, _ = answered("seven", None)
    p = (
        outputs.double() - outputs.double().logsumexp(1, keepdim=True)
    ).numpy()  # logarithms rank alike
    each = [function(true == number, p[:, number]) for number in range(7)]
    assert score(name, task, outputs, target) == pytest.approx(np.mean(each), rel=1e-12)

    task, outputs, target, true, _ = answered("seven", 4)
    p = (
        outputs.double() - outputs.double().logsumexp(1, keepdim=True)
    ).numpy()  # logarithms rank alike
    each = [function(true == number, p[:, number]) for number in range(7) if number != 4]
    assert score(name, task, outputs, target) == pytest.approx(np.mean(each), rel=1e-12)

    task = task_for("multi_label", "labels")
    outputs, target = outputs_for(task), torch.from_numpy(task.encode(TARGETS["labels"]))
    assert score(name, task, outputs, target) == pytest.approx(
        function(target.numpy(), outputs.numpy(), average="macro"), rel=1e-12
    )


def test_auroc_tells_rows_apart_whose_probability_rounds_to_one() -> None:
    task = task_for("classification", "two")
    outputs = torch.tensor([[0.0, 60.0], [0.0, 50.0], [0.0, 40.0], [0.0, 30.0]])
    assert len(outputs.softmax(1)[:, 1].unique()) == 1
    assert score("auroc", task, outputs, torch.tensor([1, 1, 0, 0])) == 1.0


@pytest.mark.parametrize("target", [[0, 0, 0], [1, 1, 1]])
def test_auroc_of_one_class_has_no_meaning(target: list[int]) -> None:
    assert (
        score("auroc", task_for("classification", "two"), torch.randn(3, 2), torch.tensor(target))
        is None
    )


def test_average_precision_without_a_true_row_has_no_meaning() -> None:
    task = task_for("classification", "two")
    assert score("average_precision", task, torch.randn(3, 2), torch.tensor([0, 0, 0])) is None
    assert score("average_precision", task, torch.randn(3, 2), torch.tensor([1, 1, 1])) == 1.0


@pytest.mark.parametrize(("label", "absent"), CLASS_TASKS)
def test_log_loss_is_scikit_learns(label: str, absent: int | None) -> None:
    task, outputs, target, true, _ = answered(label, absent)
    p = outputs.double().softmax(1).numpy()
    expected = sklearn.log_loss(true, p, labels=range(len(task.classes)))
    # scikit-learn keeps probabilities 2e-16 from 0 and 1
    assert score("log_loss", task, outputs, target) == pytest.approx(expected, rel=1e-9)


def test_log_loss_of_labels_is_the_mean_over_labels() -> None:
    task = task_for("multi_label", "labels")
    outputs, target = outputs_for(task), torch.from_numpy(task.encode(TARGETS["labels"]))
    p = outputs.double().sigmoid().numpy()
    expected = np.mean(
        [sklearn.log_loss(target.numpy()[:, number], p[:, number]) for number in range(3)]
    )
    assert score("log_loss", task, outputs, target) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("bins", [1, 15])
def test_the_calibration_error_is_its_formula(bins: int) -> None:
    task, outputs, target, true, predicted = answered("seven", None)
    stated = outputs.double().softmax(1).max(1).values.numpy()
    edges = np.linspace(0, 1, bins + 1)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (stated > low) & (stated <= high)
        if inside.any():
            expected += inside.mean() * abs(
                (predicted == true)[inside].mean() - stated[inside].mean()
            )
    assert score("calibration_error", task, outputs, target, bins=bins) == pytest.approx(
        expected, rel=1e-12
    )


def test_a_probability_on_the_edge_of_two_bins_belongs_to_the_lower() -> None:
    task = task_for("classification", "two")
    outputs = torch.tensor(
        [[0.0, 0.0], [0.0, math.log(3.0)]]
    )  # stated 0.5, right; stated 0.75, wrong
    value = score("calibration_error", task, outputs, torch.tensor([0, 0]), bins=2)
    assert value == pytest.approx(
        (0.5 + 0.75) / 2, abs=1e-7
    )  # together in one bin it would be 0.125; float32 logarithm


def test_a_calibrated_guess_has_no_calibration_error() -> None:
    task = task_for("classification", "two")
    outputs = torch.tensor([[0.0, math.log(3.0)]]).repeat(4, 1)
    # 3 of 4 right at a stated 0.75; float32 rounding of the logarithm
    assert score("calibration_error", task, outputs, torch.tensor([1, 1, 0, 1])) == pytest.approx(
        0.0, abs=1e-7
    )
    assert score("calibration_error", task, outputs, torch.tensor([0, 0, 0, 1])) == pytest.approx(
        0.5, abs=1e-7
    )


ERRORS = {
    "mse": sklearn.mean_squared_error,
    "rmse": sklearn.root_mean_squared_error,
    "mae": sklearn.mean_absolute_error,
    "r2": sklearn.r2_score,
}


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("name", sorted(ERRORS))
def test_errors_of_numbers_are_scikit_learns_in_the_units_of_the_data(
    name: str, scaled: bool
) -> None:
    task = task_for("regression", "price", scale_target=scaled)
    target = torch.from_numpy(task.encode(TARGETS["price"]))
    outputs = target + 0.3 * torch.randn(ROWS, 1, generator=torch.Generator().manual_seed(2)) * (
        1 if scaled else 3e4
    )
    truth, answers = (
        TARGETS["price"]["price"].values,
        [answer["prediction"] for answer in task.answers(outputs)],
    )
    # float32 targets and outputs: 6e-8 of the value (2e5 where it is not scaled) against errors of
    # 1e4
    assert score(name, task, outputs, target) == pytest.approx(
        ERRORS[name](truth, answers), rel=2e-5
    )


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_several_numbers_have_a_mean_and_one_score_each(name: str) -> None:
    task = task_for("regression", "pair")
    target = torch.from_numpy(task.encode(TARGETS["pair"]))
    outputs = target + 0.3 * torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(2))
    true, answers = task.to_units(target).numpy(), task.to_units(outputs).numpy()
    each = ERRORS[name](true, answers, multioutput="raw_values")
    expected = {name: each.mean(), f"price/{name}": each[0], f"size/{name}": each[1]}
    assert score(name, task, outputs, target) == pytest.approx(expected, rel=1e-9)
    assert expected[name] == pytest.approx(ERRORS[name](true, answers), rel=1e-9)


@pytest.mark.parametrize("scaled", [True, False])
def test_r2_of_a_constant_split_has_no_meaning_and_a_large_mean_costs_no_digits(
    scaled: bool,
) -> None:
    values = 1e7 + np.arange(9.0)
    task = registry.take("tasks", "regression").build(
        registry.config("tasks", "regression").model_validate({"scale_target": scaled}),
        {"y": Column("y", "number", values)},
    )
    target = torch.from_numpy(task.encode({"y": Column("y", "number", values)}))
    for rows in range(1, 40):  # the squares of some leave a rounding error that looks like variance
        same = target[2:3].repeat(rows, 1)
        assert score("r2", task, same + 1, same) is None
    outputs = target.roll(1, 0)
    assert score("r2", task, outputs, target) == pytest.approx(
        sklearn.r2_score(values, np.roll(values, 1)), rel=1e-6
    )


def test_baselines_are_what_the_metrics_say_of_a_constant_answer() -> None:
    for name, label in (
        ("classification", "two"),
        ("classification", "seven"),
        ("multi_label", "labels"),
        ("regression", "price"),
        ("regression", "pair"),
    ):
        task = task_for(name, label)
        encoded = task.encode(TARGETS[label])
        train, other = encoded[:200], encoded[200:]
        if name == "classification":
            guess = torch.from_numpy(
                np.log(np.bincount(train, minlength=task.output.size) / 200)
            ).repeat(len(other), 1)
        elif name == "multi_label":
            guess = (
                torch.from_numpy(train.astype(np.float64).mean(axis=0))
                .logit()
                .repeat(len(other), 1)
            )
        else:
            guess = torch.from_numpy(train.astype(np.float64).mean(axis=0)).repeat(len(other), 1)
        for metric, value in task.baseline(train, other).items():
            found = score(metric, task, guess, torch.from_numpy(other))
            assert (found[metric] if isinstance(found, dict) else found) == pytest.approx(
                value, rel=1e-9, abs=1e-12
            )


def test_per_target_gives_each_target_its_own_metrics() -> None:
    task = task_for("multi_task", "mixed")
    outputs, target = outputs_for(task), tensors(task.encode(TARGETS["mixed"]))
    scores = scored(built("per_target", {}, task), outputs, target, [300, 7])
    kind, price = task_for("classification", "seven"), task_for("regression", "price")
    assert scores["kind/auroc"] == score("auroc", kind, outputs[:, :7], target["kind"])
    assert scores["kind/accuracy"] == score("accuracy", kind, outputs[:, :7], target["kind"])
    assert scores["price/rmse"] == pytest.approx(
        score("rmse", price, outputs[:, 7:8], target["price"]), rel=1e-12
    )
    assert len(scores["won/confusion_matrix"]) == 2
    config = registry.config("metrics", "per_target").model_validate(
        {
            "metrics": {
                "kind": [{"name": "top_k", "k": 2}, {"name": "top_k", "k": 3}],
                "price": ["r2"],
                "won": [],
            }
        }
    )
    few = scored(
        registry.take("metrics", "per_target").build(config, task), outputs, target, [ROWS]
    )
    assert set(few) == {"kind/top_2", "kind/top_3", "price/r2"}


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"price": ["accuracy"]}, "does not fit the task regression"),
        ({"prize": ["r2"]}, "names prize, which is no target"),
    ],
)
def test_per_target_refuses_what_does_not_fit(metrics: dict[str, Any], said: str) -> None:
    config = registry.config("metrics", "per_target").model_validate({"metrics": metrics})
    with pytest.raises(DanluError, match=said):
        registry.take("metrics", "per_target").build(config, task_for("multi_task", "mixed"))
