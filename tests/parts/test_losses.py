"""The promise of losses/: every loss on every task it fits, then each against torch.nn.functional."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from danlu import registry
from danlu.errors import DanluError, DataError
from danlu.terms import Batch, Column

ROWS = 53


def _targets(asks: str) -> dict[str, Column]:
    draw = np.random.default_rng(3)
    if asks == "classes":
        codes = np.concatenate(
            [np.arange(5), draw.choice(5, ROWS - 5, p=[0.5, 0.2, 0.15, 0.1, 0.05])]
        )
        return {
            "kind": Column(
                "kind", "category", codes.astype(np.int32), categories=("a", "b", "c", "d", "e")
            )
        }
    if asks == "labels":
        return {
            name: Column(name, "boolean", (draw.random(ROWS) < share).astype(np.int8))
            for name, share in (("x", 0.2), ("y", 0.6), ("z", 0.9))
        }
    if asks == "numbers":
        return {
            name: Column(name, "number", draw.normal(4, scale, ROWS))
            for name, scale in (("low", 1e-3), ("high", 1e6))
        }
    return _targets("classes") | {"low": _targets("numbers")["low"]}


def _tasks() -> dict[str, list[tuple[str, Any]]]:
    found: dict[str, list[tuple[str, Any]]] = {}
    for name in registry.names("tasks"):
        asks = registry.task_facts(name).asks
        if asks not in (
            "classes",
            "labels",
            "numbers",
            "several",
        ):  # families.py: what cuts its own examples is held over real recipes
            continue
        try:
            task = registry.take("tasks", name).build(
                registry.config("tasks", name)(), _targets(asks)
            )
        except DataError:  # it asks the same of a target of another kind
            continue
        found.setdefault(asks, []).append((name, task))
    return found


TASKS = _tasks()
# Options worth a run of the whole contract; a loss not named here runs with its defaults.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "cross_entropy": [
        {"label_smoothing": 0.1},
        {"class_weights": "balanced"},
        {"class_weights": {"b": 0.25, "e": 7.5}, "label_smoothing": 0.2},
    ],
    "binary_cross_entropy": [
        {"positive_weight": "balanced"},
        {"positive_weight": 3.0},
        {"positive_weight": {"x": 2.5}},
    ],
    "focal": [{"gamma": 0.0}, {"gamma": 0.5}],
    "huber": [{"delta": 0.1}],
}


def _cases() -> list[Any]:
    cases = []
    for loss in registry.names("losses"):
        for asks in registry.loss_facts(loss).fits:
            for task, _ in TASKS.get(asks, []):
                for options in [{}, *VARIANTS.get(loss, [])]:
                    cases.append(pytest.param(loss, options, task, id=f"{loss}-{task}-{options}"))
    return cases


every_case = pytest.mark.parametrize(("name", "options", "task_name"), _cases())


def task_of(name: str) -> Any:
    return next(task for tasks in TASKS.values() for each, task in tasks if each == name)


def built(name: str, options: dict[str, Any], task: Any) -> Any:
    return registry.take("losses", name).build(registry.config("losses", name)(**options), task)


def tensors(target: Any) -> Any:
    return (
        {name: tensors(each) for name, each in target.items()}
        if isinstance(target, dict)
        else torch.from_numpy(target)
    )


def cut(target: Any, rows: slice) -> Any:
    return (
        {name: cut(each, rows) for name, each in target.items()}
        if isinstance(target, dict)
        else target[rows]
    )


def batch_of(task: Any, asks: str, rows: slice = slice(None)) -> Batch:
    target = cut(tensors(task.encode(_targets(asks))), rows)
    return Batch({}, target, torch.arange(ROWS)[rows])


def asks_of(task_name: str) -> str:
    return registry.task_facts(task_name).asks


def outputs_for(task: Any, scale: float = 1.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(ROWS, task.output.size, generator=generator) * scale).requires_grad_()


@every_case
def test_the_sum_is_float32_with_gradient_and_the_count_is_that_of_the_batch_alone(
    name: str, options: dict[str, Any], task_name: str
) -> None:
    task = task_of(task_name)
    loss, batch, outputs = (
        built(name, options, task),
        batch_of(task, asks_of(task_name)),
        outputs_for(task),
    )
    total, count = loss(outputs, batch)
    assert total.dtype == torch.float32
    assert total.requires_grad
    assert not count.requires_grad
    assert (
        total.shape
        == count.shape
        == ((len(task.tasks),) if asks_of(task_name) == "several" else ())
    )
    assert torch.equal(count, loss.count(batch))
    assert bool((count > 0).all())
    (total / count).sum().backward()
    assert outputs.grad is not None
    assert bool(outputs.grad.isfinite().all())
    assert bool(outputs.grad.any())


@every_case
def test_pieces_of_a_batch_add_up_to_the_whole(
    name: str, options: dict[str, Any], task_name: str
) -> None:
    task, asks = task_of(task_name), asks_of(task_name)
    loss, whole, pieces = built(name, options, task), outputs_for(task), outputs_for(task)
    batch = batch_of(task, asks)
    total, count = loss(whole, batch)
    (total / count).sum().backward()
    cuts = [slice(0, 1), slice(1, 18), slice(18, 20), slice(20, ROWS)]
    counts = torch.stack([loss.count(batch_of(task, asks, rows)) for rows in cuts]).sum(dim=0)
    value = torch.zeros(())
    for rows in cuts:
        part, _ = loss(pieces[rows], batch_of(task, asks, rows))
        share = (part / counts).sum()
        share.backward()
        value = value + share.detach()
    # float32 sums in another order: 53 terms of rounding 6e-8
    assert torch.allclose(value, (total / count).sum().detach(), rtol=1e-6, atol=0)
    assert pieces.grad is not None
    assert whole.grad is not None
    assert torch.allclose(pieces.grad, whole.grad, rtol=1e-5, atol=1e-9)


@every_case
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_outputs_of_ten_thousand_give_a_finite_loss_and_gradient(
    name: str, options: dict[str, Any], task_name: str, sign: float
) -> None:
    task = task_of(task_name)
    loss, batch = built(name, options, task), batch_of(task, asks_of(task_name))
    flips = torch.where(torch.arange(ROWS * task.output.size).reshape(ROWS, -1) % 3 == 0, 1.0, -1.0)
    for outputs in (
        flips * 1e4 * sign,
        torch.full_like(flips, 1e4 * sign),
        torch.zeros_like(flips),
    ):
        outputs = outputs.clone().requires_grad_()
        total, count = loss(outputs, batch)
        assert bool(total.isfinite().all())
        (total / count).sum().backward()
        assert outputs.grad is not None
        assert bool(outputs.grad.isfinite().all())


@every_case
def test_bfloat16_outputs_are_added_up_in_float32(
    name: str, options: dict[str, Any], task_name: str
) -> None:
    task = task_of(task_name)
    loss, batch = built(name, options, task), batch_of(task, asks_of(task_name))
    rounded = outputs_for(task, 3.0).detach().bfloat16()
    total, _ = loss(rounded, batch)
    assert total.dtype == torch.float32
    assert torch.equal(total, loss(rounded.float(), batch)[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss(rounded, batch)[0], total)


@every_case
def test_a_loss_first_used_by_an_evaluation_can_still_train(
    name: str, options: dict[str, Any], task_name: str
) -> None:
    task = task_of(task_name)
    loss, batch, outputs = (
        built(name, options, task),
        batch_of(task, asks_of(task_name)),
        outputs_for(task),
    )
    with torch.inference_mode():
        first = (loss(outputs, batch)[0] / loss.count(batch)).sum().item()
    total, count = loss(outputs, batch)
    (total / count).sum().backward()
    assert (total / count).sum().item() == first


@every_case
def test_the_better_answer_has_the_smaller_loss(
    name: str, options: dict[str, Any], task_name: str
) -> None:
    task, asks = task_of(task_name), asks_of(task_name)
    loss, batch = built(name, options, task), batch_of(task, asks)

    def right(part: Any, target: Tensor) -> Tensor:
        if target.ndim == 1:
            return functional.one_hot(target, part.output.size).float() * 4
        return target if hasattr(part, "to_units") else target * 4 - 2

    if asks == "several":
        good = torch.cat(
            [right(part, batch.target[each]) for each, part in task.tasks.items()], dim=1
        )
    else:
        good = right(task, batch.target)
    for worse in (torch.zeros_like(good), -good):
        assert float(loss(good, batch)[0].sum()) < float(loss(worse, batch)[0].sum())


@pytest.mark.parametrize("name", registry.names("losses"))
def test_a_loss_can_be_traced(name: str) -> None:
    for asks in registry.loss_facts(name).fits:
        for _, task in TASKS.get(asks, []):
            loss, batch, outputs = (
                built(name, {}, task),
                batch_of(task, asks),
                outputs_for(task).detach(),
            )
            torch._dynamo.reset()  # its cache holds 8 code objects, and there are more cases
            traced = torch.compile(
                lambda x, loss=loss, batch=batch: loss(x, batch), backend="eager", fullgraph=True
            )
            for mine, other in zip(traced(outputs), loss(outputs, batch), strict=True):
                assert torch.equal(mine, other)


# --- against torch ----------------------------------------------------------------------------------------------------


def mean(name: str, options: dict[str, Any], task: Any, outputs: Tensor, target: Tensor) -> Tensor:
    total, count = built(name, options, task)(outputs, Batch({}, target, torch.arange(len(target))))
    return total / count


NUMBERS: list[tuple[str, dict[str, Any], Callable[..., Tensor]]] = [
    ("mse", {}, functional.mse_loss),
    ("mae", {}, functional.l1_loss),
    (
        "huber",
        {"delta": 0.3},
        lambda outputs, target: functional.huber_loss(outputs, target, delta=0.3),
    ),
]


@pytest.mark.parametrize(
    ("name", "options", "torchs"), NUMBERS, ids=[name for name, _, _ in NUMBERS]
)
def test_losses_of_numbers_are_torchs_mean(
    name: str, options: dict[str, Any], torchs: Callable[..., Tensor]
) -> None:
    task = task_of("regression")
    outputs, target = outputs_for(task), batch_of(task, "numbers").target
    mine, theirs = mean(name, options, task, outputs, target), torchs(outputs, target)
    assert torch.allclose(
        mine, theirs, rtol=1e-6
    )  # sum then divide, or the other way round: float32 rounding
    ((mine_gradient,), (gradient,)) = (
        torch.autograd.grad(mine, outputs),
        torch.autograd.grad(theirs, outputs),
    )
    assert torch.allclose(mine_gradient, gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("smoothing", [0.0, 0.15])
@pytest.mark.parametrize("weighted", [None, "balanced", {"b": 0.25, "e": 7.5}])
def test_cross_entropy_is_torchs_mean_with_weights_and_smoothing(
    smoothing: float, weighted: Any
) -> None:
    task = task_of("classification")
    outputs, target = outputs_for(task), batch_of(task, "classes").target
    weights = None if weighted is None else torch.tensor(task.class_weights(weighted))
    mine = mean(
        "cross_entropy",
        {"label_smoothing": smoothing, "class_weights": weighted},
        task,
        outputs,
        target,
    )
    theirs = functional.cross_entropy(outputs, target, weights, label_smoothing=smoothing)
    assert torch.allclose(mine, theirs, rtol=1e-6)
    assert torch.allclose(
        *(torch.autograd.grad(each, outputs)[0] for each in (mine, theirs)), rtol=1e-5, atol=1e-9
    )


def mixed(task: Any) -> Tensor:
    """Soft targets as mixup makes them."""
    hard = functional.one_hot(batch_of(task, "classes").target, task.output.size).float()
    return 0.7 * hard + 0.3 * hard.roll(1, 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.15])
def test_cross_entropy_of_soft_targets_is_torchs_mean(smoothing: float) -> None:
    task = task_of("classification")
    outputs = outputs_for(task)
    mine = mean("cross_entropy", {"label_smoothing": smoothing}, task, outputs, mixed(task))
    assert torch.allclose(
        mine, functional.cross_entropy(outputs, mixed(task), label_smoothing=smoothing), rtol=1e-6
    )


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
def test_a_soft_target_that_is_one_hot_gives_the_loss_of_the_hard_one(name: str) -> None:
    task = task_of("classification")
    outputs, hard = outputs_for(task), batch_of(task, "classes").target
    soft = functional.one_hot(hard, task.output.size).float()
    weights = {"cross_entropy": "class_weights", "focal": "alpha"}[name]
    for options in ({}, {weights: "balanced"}):
        assert torch.allclose(
            mean(name, options, task, outputs, soft),
            mean(name, options, task, outputs, hard),
            rtol=1e-6,
        )


def test_mixing_rows_of_a_batch_leaves_the_divisor_of_cross_entropy_as_it_was() -> None:
    task = task_of("classification")
    loss = built("cross_entropy", {"class_weights": {"b": 0.25, "e": 7.5}}, task)
    batch = batch_of(task, "classes")
    assert abs(float(loss.count(batch)) - ROWS) > 1
    assert torch.allclose(
        loss.count(Batch({}, mixed(task), batch.rows)), loss.count(batch), rtol=1e-6
    )  # float32 sums


@pytest.mark.parametrize("weight", [None, "balanced", 3.0, {"x": 2.5}])
def test_binary_cross_entropy_is_torchs_mean_with_positive_weights(weight: Any) -> None:
    task = task_of("multi_label")
    outputs, target = outputs_for(task), batch_of(task, "labels").target
    weights = None if weight is None else torch.tensor(task.positive_weights(weight))
    theirs = functional.binary_cross_entropy_with_logits(outputs, target, pos_weight=weights)
    assert torch.allclose(
        mean("binary_cross_entropy", {"positive_weight": weight}, task, outputs, target),
        theirs,
        rtol=1e-6,
    )


def test_balanced_labels_weigh_yes_and_no_alike() -> None:
    task = task_of("multi_label")
    target = batch_of(task, "labels").target
    weights = torch.tensor(task.positive_weights("balanced"))
    assert torch.allclose((target * weights).sum(dim=0), (1 - target).sum(dim=0))


def test_focal_with_gamma_0_is_cross_entropy() -> None:
    for task_name, other in (
        ("classification", "cross_entropy"),
        ("multi_label", "binary_cross_entropy"),
    ):
        task = task_of(task_name)
        outputs, target = outputs_for(task, 4.0), batch_of(task, asks_of(task_name)).target
        mine = mean("focal", {"gamma": 0.0}, task, outputs, target)
        assert torch.allclose(mine, mean(other, {}, task, outputs, target), rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_is_its_formula_in_float64(gamma: float) -> None:
    task = task_of("multi_label")
    outputs, target = outputs_for(task, 4.0).detach(), batch_of(task, "labels").target
    p = torch.where(target > 0.5, outputs, -outputs).double().sigmoid()
    alpha = torch.where(target > 0.5, 0.25, 0.75)
    expected = (-alpha * (1 - p) ** gamma * p.log()).mean()
    assert float(
        mean("focal", {"gamma": gamma, "alpha": 0.25}, task, outputs, target)
    ) == pytest.approx(float(expected), rel=2e-6)
    task = task_of("classification")
    outputs, target = outputs_for(task, 4.0).detach(), batch_of(task, "classes").target
    p = outputs.double().softmax(1).gather(1, target[:, None])[:, 0]
    weights = torch.tensor(task.class_weights("balanced"))[target]
    expected = (-weights * (1 - p) ** gamma * p.log()).mean()
    assert float(
        mean("focal", {"gamma": gamma, "alpha": "balanced"}, task, outputs, target)
    ) == pytest.approx(float(expected), rel=2e-6)


def test_focal_takes_one_alpha_for_two_classes_only() -> None:
    column = Column("y", "boolean", np.array([0, 1, 1, 0, 1], dtype=np.int8))
    task = registry.take("tasks", "classification").build(
        registry.config("tasks", "classification")(), {"y": column}
    )
    assert built("focal", {"alpha": 0.2}, task).alpha.values.tolist() == pytest.approx([0.8, 0.2])
    with pytest.raises(DanluError, match="there are 5 classes"):
        built("focal", {"alpha": 0.2}, task_of("classification"))
    with pytest.raises(DanluError, match="with labels"):
        built("focal", {"alpha": "balanced"}, task_of("multi_label"))


def test_a_weight_for_a_class_that_is_none_is_refused() -> None:
    with pytest.raises(DanluError, match="'f' is not a class of kind"):
        built("cross_entropy", {"class_weights": {"f": 2.0}}, task_of("classification"))
    with pytest.raises(DanluError, match="'w' is not a label"):
        built("binary_cross_entropy", {"positive_weight": {"w": 2.0}}, task_of("multi_label"))


def test_weighted_is_the_sum_of_the_targets_own_losses() -> None:
    config = registry.config("tasks", "multi_task").model_validate(
        {"targets": {"kind": {"weight": 0.5}, "low": {"weight": 3.0}}}
    )
    task = registry.take("tasks", "multi_task").build(config, _targets("several"))
    outputs, batch = outputs_for(task), batch_of(task, "several")
    config = registry.config("losses", "weighted").model_validate(
        {"losses": {"low": {"name": "huber", "delta": 0.2}}}
    )
    total, count = registry.take("losses", "weighted").build(config, task)(outputs, batch)
    first = functional.cross_entropy(outputs[:, :5], batch.target["kind"])
    second = functional.huber_loss(outputs[:, 5:], batch.target["low"], delta=0.2)
    assert torch.allclose((total / count).sum(), 0.5 * first + 3 * second, rtol=1e-6)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({"low": "cross_entropy"}, "does not fit the task regression"),
        ({"lov": "mse"}, "no such target"),
    ],
)
def test_weighted_refuses_a_loss_that_does_not_fit(losses: dict[str, Any], said: str) -> None:
    config = registry.config("losses", "weighted").model_validate({"losses": losses})
    with pytest.raises(DanluError, match=said):
        registry.take("losses", "weighted").build(config, task_of("multi_task"))


def test_the_count_of_rows_is_made_once_for_each_size() -> None:
    task = task_of("classification")
    loss, batch = built("cross_entropy", {}, task), batch_of(task, "classes")
    assert loss.count(batch) is loss(outputs_for(task), batch)[1]
