"""An adversarial update: two sides of one optimizer, both moved or neither, and every bit of it resumable."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from danlu import registry
from danlu.data.batches import Batches, Rows
from danlu.errors import PartError
from danlu.recipe import Part, Regularization, Train
from danlu.system.placement import placement_for
from danlu.terms import Column, InputSpec, Table
from danlu.training.state import TrainingState
from danlu.training.step import AdversarialStep, NonFiniteError
from make import part

ROWS, SIDE, CLASSES = 23, 17, 3


def setup(
    *,
    images: np.ndarray | None = None,
    optimizer: Part | None = None,
    loss: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    **regular: Any,
) -> AdversarialStep:
    draw = np.random.default_rng(0)
    images = (
        draw.integers(0, 256, (ROWS, SIDE, SIDE, 1)).astype(np.uint8) if images is None else images
    )
    codes = draw.integers(0, CLASSES, ROWS).astype(np.int32)
    settings = Train.model_validate({"threads": 1, "batch_size": 7, **(train or {})})
    placement = placement_for(settings)
    target = Column("kind", "category", codes, ("a", "b", "c"))
    table = Table({"kind": target}, "made")
    described = {"image": InputSpec("image", (1, SIDE, SIDE), mean=(0.4,), std=(0.3,))}
    task = registry.build_task(part("tasks", "image_generation"), {"kind": target})
    examples = task.make_examples(
        {"image": images}, described, {"kind": target}, {"train": np.arange(ROWS)}, table
    )
    pixels = {"image": {"mean": [0.4], "std": [0.3]}} if images.dtype == np.uint8 else {}
    batches = Batches(
        Rows(examples.inputs, pixels, None, placement),
        np.arange(ROWS),
        int(settings.batch_size),
        settings.seed,
    )
    torch.manual_seed(1)
    module = registry.build_model(
        part("models", "gan", **{"latent": 5, "width": 4, "class_size": 3, **(model or {})}),
        examples.input_specs,
        task.output,
    )
    parameters = list(module.parameters())
    built = registry.build_optimizer(
        optimizer or part("optimizers", "adam", learning_rate=0.01, beta1=0.5),
        [{"params": parameters}],
    )
    regularization = Regularization.model_validate(regular)
    state = TrainingState(module, built, ema=regularization.ema_decay is not None, keep_best=False)
    loss_object = registry.build_adversarial_loss(
        part("losses", "adversarial", **(loss or {})), task
    )
    return AdversarialStep(
        state, batches, loss_object, lambda n: 1.0, 0.01, [], placement, settings, regularization
    )


def everything(step: AdversarialStep) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in step.state.tensors().items()}


def run(step: AdversarialStep, first: int, last: int) -> dict[str, torch.Tensor]:
    for n in range(first, last):
        step(n)
    return everything(step)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor], side: str) -> bool:
    names = [
        name
        for name in before
        if name.startswith(f"weights.{side}.") and "running" not in name and "tracked" not in name
    ]
    names = [name for name in names if not name.endswith(("_u", "_v"))]
    return any(not torch.equal(before[name], after[name]) for name in names)


HARD = [
    {"loss": {"form": "hinge"}},
    {"loss": {"form": "non_saturating", "discriminator_steps": 2}, "ema_decay": 0.9},
    {
        "loss": {"form": "wasserstein", "gradient_penalty": 10.0, "discriminator_steps": 3},
        "model": {"discriminator_normalization": "none"},
    },
    {
        "loss": {"form": "least_squares"},
        "model": {"discriminator_normalization": "batch"},
        "ema_decay": 0.9,
    },
    {
        "loss": {"form": "non_saturating", "r1": 1.0, "penalty_every": 2},
        "train": {"micro_batch": 3},
    },
]


@pytest.mark.parametrize("options", HARD, ids=lambda each: each["loss"]["form"])
def test_a_run_resumed_at_any_update_ends_in_the_same_bits(options: dict[str, Any]) -> None:
    whole = run(setup(**options), 0, 6)
    for cut in range(1, 6):
        first = setup(**options)
        run(first, 0, cut)
        facts = json.loads(json.dumps(first.state.facts()))
        torch.rand(7)  # somebody else draws in between
        again = setup(**options)
        again.state.restore(everything(first), facts)
        assert_same(run(again, cut, 6), whole)


@pytest.mark.parametrize("name", registry.names("optimizers"))
def test_every_optimizer_serves_both_sides_and_resumes(name: str) -> None:
    chosen = part("optimizers", name)
    whole = run(setup(optimizer=chosen), 0, 4)
    first = setup(optimizer=chosen)
    start = everything(first)
    half = run(first, 0, 2)
    assert moved(start, half, "generator") and moved(start, half, "discriminator")
    again = setup(optimizer=chosen)
    again.state.restore(half, json.loads(json.dumps(first.state.facts())))
    assert_same(run(again, 2, 4), whole)


def test_each_side_moves_by_its_own_learning_rate() -> None:
    for side, other in (("generator", "discriminator"), ("discriminator", "generator")):
        step = setup(loss={f"{side}_learning_rate_scale": 0.0})
        start = everything(step)
        end = run(step, 0, 2)
        assert not moved(start, end, side) and moved(start, end, other)


def test_the_generator_waits_for_the_steps_of_the_discriminator() -> None:
    step = setup(loss={"discriminator_steps": 3})
    for n in range(6):
        before = everything(step)
        step(n)
        assert moved(before, everything(step), "discriminator")
        assert moved(before, everything(step), "generator") == (n % 3 == 2)
    assert (
        step.state.reported["generator_loss"][1] == 7 + 7
    )  # rows of the two updates that moved it


def test_an_update_is_a_function_of_the_seed_and_its_number_alone() -> None:
    assert_same(run(setup(), 0, 3), run(setup(), 0, 3))
    other = run(setup(train={"seed": 1}), 0, 3)
    assert moved(run(setup(), 0, 3), other, "generator")


def test_micro_batches_give_the_gradient_of_the_whole_batch() -> None:
    plain = {"generator_normalization": "none", "discriminator_normalization": "none"}
    chosen = part("optimizers", "sgd", learning_rate=0.01)
    whole = run(setup(optimizer=chosen, model=plain), 0, 4)
    pieces = run(setup(optimizer=chosen, model=plain, train={"micro_batch": 3}), 0, 4)
    for name in whole:
        # float32 sums in another order: a few units in the last place of weights of about 0.1
        assert torch.allclose(whole[name], pieces[name], atol=1e-6), name


def test_a_nan_among_the_real_images_moves_nothing() -> None:
    images = np.random.default_rng(0).normal(size=(ROWS, 1, SIDE, SIDE)).astype(np.float32)
    images[11, 0, 4, 4] = np.nan
    step = setup(images=images, ema_decay=0.9)
    before = everything(step)
    with pytest.raises(NonFiniteError) as found:
        for n in range(step.batches.steps_per_epoch):
            before = everything(step)
            step(n)
    assert 11 in found.value.rows
    assert_same(before, everything(step))


@pytest.mark.parametrize("first", [0, 3])
def test_where_only_the_generator_fails_the_discriminator_is_put_back(first: int) -> None:
    step = setup(ema_decay=0.9)
    run(step, 0, first)
    before = everything(step)
    weight = step.state.module.get_parameter("generator.body.entry.weight")
    handle = weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(NonFiniteError, match=r"gradient of generator\.body\.entry\.weight"):
        step(first)
    assert_same(before, everything(step))
    handle.remove()
    assert_same(run(step, first, 5), run(setup(ema_decay=0.9), 0, 5))


class Slope(nn.Module):
    """A discriminator whose gradient is known: logit = weight . image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 4.0]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images @ self.weight


def test_penalties_have_their_formula_and_its_gradient() -> None:
    judge, real, fake = Slope(), torch.randn(6, 2), torch.randn(6, 2)
    penalty = registry.build_adversarial_loss(
        part("losses", "adversarial", form="wasserstein", gradient_penalty=10.0), None
    ).penalty(judge, real, fake)
    assert penalty.item() == pytest.approx(6 * 10 * (5 - 1) ** 2, rel=1e-5)  # |w| = 5
    (slope,) = torch.autograd.grad(penalty, judge.weight)
    assert torch.allclose(slope, 6 * 10 * 2 * (5 - 1) * judge.weight.detach() / 5, rtol=1e-4)
    r1 = registry.build_adversarial_loss(
        part("losses", "adversarial", r1=2.0, penalty_every=4), None
    ).penalty(judge, real, fake)
    assert r1.item() == pytest.approx(4 * 6 * 2 / 2 * 25, rel=1e-5)


@pytest.mark.parametrize("form", ["non_saturating", "hinge", "least_squares", "wasserstein"])
def test_each_form_has_its_formula(form: str) -> None:
    options = {"gradient_penalty": 1.0} if form == "wasserstein" else {}
    loss = registry.build_adversarial_loss(
        part("losses", "adversarial", form=form, **options), None
    )
    real, fake = torch.tensor([2.0, -0.5]), torch.tensor([0.3, -3.0])
    by_hand = {
        "non_saturating": (
            sum(np.log1p(np.exp([-2.0, 0.5, 0.3, -3.0]))),
            sum(np.log1p(np.exp([-0.3, 3.0]))),
        ),
        "hinge": (0 + 1.5 + 1.3 + 0, -0.3 + 3.0),
        "least_squares": ((1 + 2.25 + 0.09 + 9) / 2, (0.49 + 16) / 2),
        "wasserstein": (0.3 - 3.0 - 2.0 + 0.5, -0.3 + 3.0),
    }
    total, count = loss.discriminator(real, fake)
    assert (total.item(), loss.generator(fake)[0].item()) == pytest.approx(by_hand[form], rel=1e-5)
    assert count.item() == 2


def test_a_penalty_beside_batch_normalisation_is_refused() -> None:
    with pytest.raises(PartError, match="batch normalisation mixes"):
        setup(loss={"r1": 1.0}, model={"discriminator_normalization": "batch"})


def test_a_model_with_one_side_is_refused() -> None:
    step = setup()
    step.state.module = nn.Linear(2, 2)
    with pytest.raises(PartError, match="the model has no generator"):
        AdversarialStep(
            step.state,
            step.batches,
            step.loss,
            step.schedule,
            0.1,
            [],
            step.placement,
            step.train,
            Regularization(),
        )
