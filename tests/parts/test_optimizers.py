"""What every optimizer promises: the pure rule is torch's update, and a saved state goes on to the same bits."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from danlu import registry
from danlu.recipe import Part

NAMES = registry.names("optimizers")
SHAPES = [
    (),
    (7,),
    (5, 3),
    (3, 11),
    (1, 9),
    (5, 3, 3, 2),
    (3, 2, 5),
]  # a number, a vector, tall, wide, one row, kernels


def part(name: str, **options: Any) -> Part:
    return Part(name, registry.config("optimizers", name)(**options))


def parameters(dtype: torch.dtype = torch.float64, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in SHAPES]


def gradient(parameter: Tensor, number: int, step: int) -> Tensor:
    """A gradient that depends on the weights, with noise, and is exactly 0 for a third of the
    entries in the first ten steps."""
    generator = torch.Generator().manual_seed(1000 * number + step)
    noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    silent = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(number)) < 1 / 3
    found = torch.tanh(parameter - 0.5) + 0.3 * noise
    return torch.where(silent, 0.0, found) if step < 10 else found


def run_torch(
    optimizer: torch.optim.Optimizer, weights: list[Tensor], first: int, last: int
) -> None:
    """Steps `first` to `last` - 1, the learning rate changed in every one of them as the training
    loop does it."""
    starts = [group["initial_lr"] for group in optimizer.param_groups]
    for step in range(first, last):
        for group, start in zip(optimizer.param_groups, starts):
            group["lr"] = start * (1 + math.cos(step))
        for number, weight in enumerate(weights):
            weight.grad = gradient(weight.detach(), number, step)
        optimizer.step()


def build(name: str, weights: list[Tensor], **options: Any) -> torch.optim.Optimizer:
    """The optimizer over two groups: one as the options say, one without weight decay."""
    groups = [
        {"params": weights[::2]},
        {"params": weights[1::2], "weight_decay": 0.0, "learning_rate_scale": 0.5},
    ]
    optimizer = registry.build_optimizer(part(name, **options), groups)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


def run_rule(
    name: str, weights: list[Tensor], options: dict[str, Any], steps: int, decays: list[float]
) -> list[Tensor]:
    module = registry.take("optimizers", name)
    result = []
    for number, weight in enumerate(weights):
        state = module.initial(weight)
        for step in range(steps):
            now = {
                **options,
                "learning_rate": options["learning_rate"] * (1 + math.cos(step)),
                "weight_decay": decays[number],
            }
            weight, state = module.update(
                weight, gradient(weight, number, step), state, step + 1, now
            )
        result.append(weight)
    return result


VARIANTS = {
    "default": {},
    "decaying": {"weight_decay": 0.1, "learning_rate": 0.03},
    "rough": {"learning_rate": 0.3},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_the_pure_rule_is_torchs_update_over_50_steps(name: str, variant: str) -> None:
    chosen = part(name, **VARIANTS[variant])
    options = chosen.options.model_dump()
    weights = [each.requires_grad_() for each in parameters()]
    optimizer = build(name, weights, **VARIANTS[variant])
    run_torch(optimizer, weights, 0, 50)
    decays = [options["weight_decay"] if number % 2 == 0 else 0.0 for number in range(len(SHAPES))]
    rule = run_rule(name, parameters(), options, 50, decays)
    for weight, other in zip(weights, rule):
        # float64: only the order of roundings differs. In float32 that order alone comes to 1e-5
        # over 50 steps of a sign or a root.
        torch.testing.assert_close(weight.detach(), other, rtol=1e-6, atol=1e-9)
        assert not torch.equal(other, parameters()[0].expand_as(other))


@pytest.mark.parametrize("name", NAMES)
def test_in_float32_rule_and_torch_stay_close(name: str) -> None:
    options = {"precision": "float32"} if name == "muon" else {}
    chosen = part(name, **options)
    weights = [each.requires_grad_() for each in parameters(torch.float32)]
    run_torch(build(name, weights, **options), weights, 0, 10)
    full = chosen.options.model_dump()
    decays = [full["weight_decay"] if number % 2 == 0 else 0.0 for number in range(len(SHAPES))]
    for weight, other in zip(weights, run_rule(name, parameters(torch.float32), full, 10, decays)):
        # 10 updates of up to 0.2 each, rounded at 6e-8 and passed on through a gradient that
        # depends on them
        torch.testing.assert_close(weight.detach(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_over_trials_gives_each_trial_its_own_learning_rate(name: str) -> None:
    module = registry.take("optimizers", name)
    options = part(name).options.model_dump()
    rates = torch.tensor([0.001, 0.02, 0.3], dtype=torch.float64)
    axes = {key: 0 if key == "learning_rate" else None for key in options}
    for number in range(len(SHAPES)):
        starts = torch.stack([parameters(seed=trial)[number] for trial in range(3)])
        trials = starts.clone()
        states = torch.func.vmap(module.initial)(trials)
        for step in range(7):
            gradients = torch.stack([gradient(trial, number, step) for trial in trials])
            trials, states = torch.func.vmap(module.update, in_dims=(0, 0, 0, None, axes))(
                trials, gradients, states, step + 1, {**options, "learning_rate": rates}
            )
        for trial, rate in enumerate(rates.tolist()):
            weight = starts[trial]
            state = module.initial(weight)
            for step in range(7):
                now = {**options, "learning_rate": rate}
                weight, state = module.update(
                    weight, gradient(weight, number, step), state, step + 1, now
                )
            # batched and single matrix products add in another order: 1e-16 a step, times what the
            # iteration makes of it
            torch.testing.assert_close(trials[trial], weight, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NAMES)
def test_a_saved_and_loaded_optimizer_goes_on_bit_for_bit(
    name: str, layout: torch.memory_format
) -> None:
    def fresh() -> list[Tensor]:
        drawn = parameters(torch.float32)
        return [
            each.contiguous(memory_format=layout).requires_grad_()
            if each.ndim == 4
            else each.requires_grad_()
            for each in drawn
        ]

    unbroken = fresh()
    whole = build(name, unbroken)
    run_torch(whole, unbroken, 0, 10)

    first = fresh()
    optimizer = build(name, first)
    run_torch(optimizer, first, 0, 4)
    saved = copy.deepcopy(optimizer.state_dict())
    for state in saved["state"].values():  # a file holds contiguous tensors
        for key, value in state.items():
            state[key] = value.contiguous() if isinstance(value, Tensor) else value
    second = fresh()
    with torch.no_grad():
        for new, old in zip(second, first):
            new.copy_(old)
    restored = build(name, second)
    restored.load_state_dict(saved)
    run_torch(restored, second, 4, 10)

    for one, other in zip(unbroken, second):
        assert torch.equal(one, other)
    one, other = whole.state_dict(), restored.state_dict()
    assert one["param_groups"] == other["param_groups"]
    assert one["state"].keys() == other["state"].keys()
    for number in one["state"]:
        assert one["state"][number].keys() == other["state"][number].keys()
        for key, value in one["state"][number].items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(other["state"][number][key])
            ), (number, key)


@pytest.mark.parametrize("name", NAMES)
def test_state_is_nothing_but_tensors_and_numbers(name: str) -> None:
    weights = [each.requires_grad_() for each in parameters()]
    optimizer = build(name, weights)
    run_torch(optimizer, weights, 0, 2)
    for state in optimizer.state_dict()["state"].values():
        assert all(
            isinstance(value, Tensor | int | float) or value is None for value in state.values()
        )
    for group in optimizer.state_dict()["param_groups"]:
        for key, value in group.items():
            flat = list(value) if isinstance(value, tuple | list) else [value]
            assert all(isinstance(each, int | float | str | None) for each in flat), key


@pytest.mark.parametrize("name", NAMES)
def test_groups_keep_their_own_weight_decay_and_what_the_caller_put_there(name: str) -> None:
    weights = [each.requires_grad_() for each in parameters()]
    optimizer = build(name, weights, weight_decay=0.2)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.0]
    assert optimizer.param_groups[1]["learning_rate_scale"] == 0.5
    assert "learning_rate_scale" not in optimizer.param_groups[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_in_another_layout_moves_the_right_entries(name: str) -> None:
    drawn = torch.randn(5, 3, 3, 2, generator=torch.Generator().manual_seed(3))
    plain, turned = (
        drawn.clone().requires_grad_(),
        drawn.clone().contiguous(memory_format=torch.channels_last).requires_grad_(),
    )
    for weight in (plain, turned):
        optimizer = registry.build_optimizer(part(name), [{"params": [weight]}])
        for step in range(3):
            weight.grad = gradient(drawn, 0, step).contiguous()
            optimizer.step()
    torch.testing.assert_close(
        plain, turned, rtol=1e-5, atol=1e-7
    )  # the same sums in another order of memory: float32 rounding
    assert not torch.equal(plain.detach(), drawn)


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_without_gradient_stays(name: str) -> None:
    weights = [each.requires_grad_() for each in parameters()]
    optimizer = build(name, weights)
    weights[2].grad = torch.ones_like(weights[2])
    optimizer.step()
    for number, (weight, start) in enumerate(zip(weights, parameters())):
        assert torch.equal(weight.detach(), start) == (number != 2)


@pytest.mark.parametrize("name", NAMES)
def test_learning_rate_0_changes_nothing(name: str) -> None:
    weights = [each.requires_grad_() for each in parameters()]
    optimizer = build(name, weights, learning_rate=0.0)
    run_torch(optimizer, weights, 0, 3)
    for weight, start in zip(weights, parameters()):
        assert torch.equal(weight.detach(), start)


def least_squares() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, y, (slope, intercept)): the textbook's 100 points around y = 2x + 1."""
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, 100)
    y = 2 * x + 1 + 0.1 * random.standard_normal(100)
    return x, y, np.linalg.lstsq(np.stack([x, np.ones(100)], axis=1), y, rcond=None)[0]


@pytest.mark.parametrize(
    "name", ["gd", "sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "adagrad"]
)
def test_the_textbook_line_reaches_the_least_squares_solution(name: str) -> None:
    x, y, solution = least_squares()
    assert np.abs(solution - [2, 1]).max() < 0.1  # the points are what they should be
    full = getattr(registry.take("optimizers", name), "FULL_BATCH", False)
    rate = {"gd": 0.5, "sgd": 0.2, "momentum": 0.02, "nesterov": 0.02, "adagrad": 0.5}.get(
        name, 0.05
    )
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = registry.build_optimizer(
        part(name, learning_rate=rate, weight_decay=0.0), [{"params": [weights]}]
    )
    schedule = (
        registry.build_schedule(Part("linear", registry.config("schedules", "linear")()), 1000)
        if not full
        else lambda step: 1.0
    )
    inputs, targets = torch.tensor(np.stack([x, np.ones(100)], axis=1)), torch.tensor(y)
    order = np.random.default_rng(1)
    for step in range(1000):
        rows = torch.arange(100) if full else torch.tensor(order.permutation(100)[:10])
        optimizer.param_groups[0]["lr"] = rate * schedule(step)
        optimizer.zero_grad()
        ((inputs[rows] @ weights - targets[rows]) ** 2).mean().backward()
        optimizer.step()
    reached = weights.detach().numpy()
    assert np.abs(reached / solution - 1).max() < 0.01, (reached, solution)


def test_only_gradient_descent_takes_all_rows() -> None:
    assert [
        name for name in NAMES if getattr(registry.take("optimizers", name), "FULL_BATCH", False)
    ] == ["gd"]


@pytest.mark.parametrize("name", ["gd", "sgd", "momentum", "nesterov", "adagrad", "adam", "adamw"])
def test_the_fused_kernel_is_used_where_torch_has_one(name: str) -> None:
    weights = [each.requires_grad_() for each in parameters(torch.float32)]
    assert all(group["fused"] for group in build(name, weights).param_groups)
    sparse_memory = torch.zeros(4, 6)[
        :, ::2
    ].requires_grad_()  # gaps in memory: a fused kernel would write into them
    assert not any(group["fused"] for group in build(name, [sparse_memory, *weights]).param_groups)


def test_muon_is_torchs_muon_on_matrices() -> None:
    mine, theirs = (
        [torch.randn(24, 40, generator=torch.Generator().manual_seed(5)).requires_grad_()]
        for _ in range(2)
    )
    optimizer = registry.build_optimizer(
        part("muon", precision="bfloat16", learning_rate=0.01), [{"params": mine}]
    )
    peer = torch.optim.Muon(
        theirs, lr=0.01, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(20):
        for weights, each in ((mine, optimizer), (theirs, peer)):
            weights[0].grad = gradient(torch.zeros(24, 40), 0, step)
            each.step()
    # bfloat16 keeps 8 bits: one product in another order is 0.4 % of an entry of the update, whose
    # size is about 0.002 a step
    torch.testing.assert_close(mine[0], theirs[0], rtol=0, atol=20 * 0.002 * 0.02)


def test_muon_makes_every_direction_of_a_matrix_alike() -> None:
    module = registry.take("optimizers", "muon")
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(31, 17, generator=generator, dtype=torch.float64) * torch.logspace(
        0, -1.5, 17, dtype=torch.float64
    )
    before = torch.linalg.svdvals(matrix)
    after = torch.linalg.svdvals(module.newton_schulz(matrix[None], 5, torch.float64)[0])
    assert before[0] / before[-1] > 20
    assert (
        0.6 < after[-1] <= after[0] < 1.3
    )  # Jordan's quintic does not converge to 1; it stays about there


def test_muon_leaves_embeddings_to_adamw_where_a_group_says_so() -> None:
    table, matrix = (
        torch.randn(9, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
        for _ in range(2)
    )
    optimizer = registry.build_optimizer(
        part("muon", learning_rate=0.001),
        [{"params": [matrix]}, {"params": [table], "muon": False}],
    )
    peer = table.detach().clone().requires_grad_()
    adamw = torch.optim.AdamW([peer], lr=0.001, weight_decay=0.01, fused=True)
    for step in range(5):
        for each in (table, matrix, peer):
            each.grad = gradient(torch.zeros(9, 5), 0, step)
        optimizer.step()
        adamw.step()
    assert torch.equal(table, peer)
    assert not torch.equal(matrix, peer)
