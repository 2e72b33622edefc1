"""One update: the gradient is that of the batch's mean loss, and nothing moves on a NaN."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from danlu import registry
from danlu.data.batches import Batches, Rows
from danlu.recipe import Part, Regularization, Train, read
from danlu.system.placement import placement_for
from danlu.terms import Column
from danlu.training.setup import build_training
from danlu.training.state import TrainingState
from danlu.training.step import NonFiniteError, SupervisedStep
from make import iris, part

ROWS, FEATURES, CLASSES = 53, 7, 3


class Net(nn.Module):
    """A small net with dropout, over the input called numbers."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, 11), nn.Tanh(), nn.Dropout(dropout), nn.Linear(11, CLASSES)
        )

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.layers(inputs["numbers"])


def setup(
    *,
    dropout: float = 0.0,
    loss: Part | None = None,
    numbers: np.ndarray | None = None,
    train: dict[str, Any] | None = None,
    **regular: Any,
) -> SupervisedStep:
    draw = np.random.default_rng(0)
    numbers = draw.normal(size=(ROWS, FEATURES)).astype(np.float32) if numbers is None else numbers
    labels = draw.integers(0, CLASSES, ROWS).astype(np.int64)
    settings = Train.model_validate({"threads": 1, "batch_size": 19, **(train or {})})
    placement = placement_for(settings)
    column = Column("label", "category", labels.astype(np.int32), ("a", "b", "c"))
    task = registry.build_task(part("tasks", "classification"), {"label": column})
    batches = Batches(
        Rows({"numbers": numbers}, {}, labels, placement),
        np.arange(ROWS),
        int(settings.batch_size),
        settings.seed,
    )
    torch.manual_seed(1)
    module = Net(dropout)
    optimizer = registry.build_optimizer(
        part("optimizers", "sgd", learning_rate=0.1), [{"params": list(module.parameters())}]
    )
    regularization = Regularization.model_validate(regular)
    state = TrainingState(
        module, optimizer, ema=regularization.ema_decay is not None, keep_best=False
    )
    loss_object = registry.build_loss(loss or part("losses", "cross_entropy"), task)
    return SupervisedStep(
        state, batches, loss_object, lambda n: 1.0, 0.1, [], placement, settings, regularization
    )


def weights(step: SupervisedStep) -> list[torch.Tensor]:
    return [tensor.clone() for tensor in step.state.live.values()]


def run(step: SupervisedStep, updates: int) -> list[torch.Tensor]:
    for n in range(updates):
        step(n)
    return weights(step)


@pytest.mark.parametrize("balanced", [False, True])
def test_accumulation_over_unequal_micro_batches_gives_the_gradient_of_the_whole_batch(
    balanced: bool,
) -> None:
    loss = part("losses", "cross_entropy", class_weights="balanced" if balanced else None)
    whole = run(setup(loss=loss), 6)
    pieces = run(setup(loss=loss, train={"micro_batch": 5}), 6)  # 19 = 5 + 5 + 5 + 4
    for one, other in zip(whole, pieces):
        # float32 sums in another order: a few units in the last place after six updates
        assert torch.allclose(one, other, atol=2e-6)


def test_the_reported_loss_is_the_mean_over_rows_whether_cut_or_not() -> None:
    whole, pieces = setup(), setup(train={"micro_batch": 5})
    run(whole, 3), run(pieces, 3)
    assert whole.state.loss_count == pieces.state.loss_count == ROWS
    assert whole.state.loss_sum == pytest.approx(pieces.state.loss_sum, rel=1e-5)


def test_an_update_is_a_function_of_the_seed_and_its_number_alone() -> None:
    steps = setup(dropout=0.5), setup(dropout=0.5)
    run(steps[0], 4)
    torch.manual_seed(12345)  # somebody else draws in between
    run(steps[1], 2)
    torch.rand(100)
    for n in (2, 3):
        steps[1](n)
    assert all(torch.equal(one, other) for one, other in zip(weights(steps[0]), weights(steps[1])))
    other_seed = run(setup(dropout=0.5, train={"seed": 1}), 4)
    assert not all(torch.equal(one, other) for one, other in zip(weights(steps[0]), other_seed))


def test_l2_and_l1_penalties_move_matrices_by_their_gradient_and_spare_biases() -> None:
    before = setup()
    start = weights(before)
    run(before, 1)
    plain, l2, l1 = weights(before), run(setup(l2=0.3), 1), run(setup(l1=0.2), 1)
    for w0, w, with_l2, with_l1 in zip(start, plain, l2, l1):
        matrix = w0.ndim >= 2
        # learning rate 0.1; float32 rounding of the difference of two nearby numbers
        assert torch.allclose(w - with_l2, 0.1 * 0.3 * w0 * matrix, atol=1e-6)
        assert torch.allclose(w - with_l1, 0.1 * 0.2 * torch.sign(w0) * matrix, atol=1e-6)


def test_clip_norm_bounds_the_length_of_the_update() -> None:
    step = setup(train={"clip_norm": 0.01})
    start = weights(step)
    run(step, 1)
    moved = torch.cat([(one - other).flatten() for one, other in zip(weights(step), start)]).norm()
    assert 0 < moved.item() <= 0.1 * 0.01 * 1.001


def test_the_average_of_weights_follows_its_formula() -> None:
    step = setup(ema_decay=0.5)
    average = weights(step)
    for n in range(5):
        step(n)
        decay = min(0.5, (1 + n) / (10 + n))
        average = [decay * held + (1 - decay) * live for held, live in zip(average, weights(step))]
    assert step.state.ema is not None
    for wanted, held in zip(average, step.state.ema.values()):
        assert torch.allclose(wanted, held, atol=1e-6)  # float32 rounding over five updates


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("micro_batch", [None, 4])
def test_a_number_that_is_not_finite_stops_before_any_weight_moves(
    value: float, micro_batch: int | None
) -> None:
    numbers = np.random.default_rng(0).normal(size=(ROWS, FEATURES)).astype(np.float32)
    numbers[17, 3] = value
    step = setup(numbers=numbers, train={"micro_batch": micro_batch})
    start = weights(step)
    with pytest.raises(NonFiniteError) as found:
        for n in range(step.batches.steps_per_epoch):
            start = weights(step)
            step(n)
    assert 17 in found.value.rows
    assert step.state.step == found.value.step
    assert all(torch.equal(one, other) for one, other in zip(start, weights(step)))


def test_a_gradient_that_is_not_finite_under_a_finite_loss_is_noticed() -> None:
    step = setup()
    step.parameters[0].register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteError, match=r"gradient of layers\.0\.weight"):
        step(0)


@pytest.mark.parametrize("micro_batch", [None, 4])
def test_the_first_loss_is_kept_beside_that_of_outputs_of_zero(micro_batch: int | None) -> None:
    train = {"steps": 2, "batch_size": 16, "micro_batch": micro_batch}
    recipe = iris(loss="cross_entropy", train=train)
    update = build_training(read(recipe, registry)).update
    assert isinstance(update, SupervisedStep)
    update(0)
    assert update.first_losses is not None
    loss, uninformed = (float(value) for value in update.first_losses)
    assert uninformed == pytest.approx(math.log(3))
    assert 0.2 < loss < 3
