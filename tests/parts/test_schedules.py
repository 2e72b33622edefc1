"""What every schedule promises: a scale in [0, 1] for every step, the same whenever it is asked for."""

from __future__ import annotations

import itertools
import json
import math
import random
from typing import Any

import pytest

from danlu import registry
from danlu.recipe import Part, ScheduleOptions

NAMES = registry.names("schedules")
TOTALS = [1, 2, 7, 1000]
EXTREMES: dict[str, list[dict[str, Any]]] = {
    "step": [{"every": 3, "factor": 1.0}, {"every": 0.001}, {"every": 5000}],
    "exponential": [{"final": 1e-300}],
    "linear": [{"final": 1.0}],
    "cosine": [{"cycles": 3}, {"final": 0.3, "cycles": 50}],
    "one_cycle": [{"rise": 0.999}, {"rise": 1e-6, "start": 0.0, "final": 1.0}],
    "warmup_stable_decay": [
        {"decay": 1.0, "shape": "linear"},
        {"decay": 1e-9, "shape": "cosine", "final": 0.1},
    ],
    "inverse_square_root": [{"timescale": 400.0}, {"timescale": 1e-9}],
}
CASES = [(name, options) for name in NAMES for options in [{}, *EXTREMES.get(name, [])]]


def part(name: str, **options: Any) -> Part:
    return Part(name, registry.config("schedules", name)(**options))


def bare(name: str, total: int, **options: Any) -> Any:
    return registry.take("schedules", name).build(part(name, **options).options, total)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("total", TOTALS)
def test_every_scale_lies_in_0_to_1(name: str, options: dict[str, Any], total: int) -> None:
    for schedule in (
        bare(name, total, **options),
        registry.build_schedule(part(name, **options), total),
    ):
        scales = [schedule(step) for step in [*range(total), total, 10 * total]]
        assert all(isinstance(scale, float) and 0 <= scale <= 1 for scale in scales)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("total", TOTALS)
def test_the_scale_is_a_pure_function_of_the_step(
    name: str, options: dict[str, Any], total: int
) -> None:
    schedule = registry.build_schedule(part(name, **options), total)
    forward = [schedule(step) for step in range(total)]
    order = list(range(total))
    random.Random(0).shuffle(order)
    again = {step: schedule(step) for step in order}
    other = registry.build_schedule(part(name, **options), total)
    assert (
        forward == [again[step] for step in range(total)] == [other(step) for step in range(total)]
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("total", TOTALS)
def test_some_update_is_made_at_a_learning_rate_that_is_not_0(name: str, total: int) -> None:
    schedule = registry.build_schedule(part(name), total)
    assert schedule(total - 1) > 0 or total > 1
    assert max(schedule(step) for step in range(total)) > 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("warmup", "steps"), [(5, 5), (0.013, 13), (250.0, 250)])
def test_warm_up_rises_in_equal_steps_to_where_the_schedule_begins(
    name: str, warmup: float, steps: int
) -> None:
    schedule = registry.build_schedule(part(name, warmup=warmup), 1000)
    inner = bare(name, 1000 - steps, warmup=warmup)
    rise = [schedule(step) for step in range(steps + 1)]
    assert all(later > earlier > 0 for earlier, later in itertools.pairwise(rise))
    jumps = [later - earlier for earlier, later in itertools.pairwise(rise)]
    assert max(jumps) - min(jumps) < 1e-12  # rounding of numbers below 1
    assert [schedule(steps + each) for each in range(20)] == [inner(each) for each in range(20)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("warmup", [0.5, 3, 1e9])
@pytest.mark.parametrize("total", [1, 2, 7])
def test_a_warm_up_longer_than_training_leaves_one_step(
    name: str, warmup: float, total: int
) -> None:
    schedule = registry.build_schedule(part(name, warmup=warmup), total)
    scales = [schedule(step) for step in range(total)]
    assert all(0 < scale <= 1 for scale in scales)


@pytest.mark.parametrize("name", NAMES)
def test_options_are_those_of_a_schedule(name: str) -> None:
    assert issubclass(registry.config("schedules", name), ScheduleOptions)


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_that_hears_scores_goes_on_from_its_state(name: str) -> None:
    scores = [
        5.0,
        4.0,
        4.0,
        4.1,
        math.nan,
        3.9999,
        4.5,
        3.0,
        3.0,
        3.0,
        3.0,
        3.0,
        3.0,
        2.0,
        *[2.5] * 20,
    ]
    whole, first = (registry.build_schedule(part(name), 1000) for _ in range(2))
    assert hasattr(whole, "observe") == hasattr(whole, "state") == hasattr(whole, "load")
    if not hasattr(whole, "observe"):
        pytest.skip("this schedule is a function of the step alone")
    unbroken = []
    for score in scores:
        whole.observe(score, "lower")
        unbroken.append(whole(0))
    assert unbroken[-1] < 1
    assert all(later <= earlier for earlier, later in itertools.pairwise(unbroken))
    for cut in range(len(scores)):
        if cut:
            first.observe(scores[cut - 1], "lower")
        second = registry.build_schedule(part(name), 1000)
        second.load(json.loads(json.dumps(first.state(), allow_nan=False)))
        went_on = []
        for score in scores[cut:]:
            second.observe(score, "lower")
            went_on.append(second(0))
        assert went_on == unbroken[cut:]
        assert second.state() == whole.state()


def test_reduce_on_plateau_is_torchs_rule() -> None:
    import torch

    draw = random.Random(1)
    for better in ("lower", "higher"):
        options = {"factor": 0.7, "patience": 2, "threshold": 0.01, "smallest": 0.05}
        schedule = bare("reduce_on_plateau", 1000, **options)
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer,
            mode="min" if better == "lower" else "max",
            factor=0.7,
            patience=2,
            threshold=0.01,
            min_lr=0.05,
        )
        for number in range(200):
            score = 10 + draw.random() + (-0.02 if better == "lower" else 0.02) * number
            schedule.observe(score, better)
            peer.step(score)
            assert schedule(number) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        assert schedule(0) < 1


def test_known_values_stand_where_the_formulas_put_them() -> None:
    assert [bare("step", 10, every=4, factor=0.5)(step) for step in (0, 3, 4, 8)] == [
        1,
        1,
        0.5,
        0.25,
    ]
    assert bare("linear", 10)(5) == 0.5
    assert bare("linear", 10, final=0.2)(10) == pytest.approx(0.2)
    assert bare("exponential", 10, final=0.01)(5) == pytest.approx(0.1)
    assert bare("cosine", 10)(5) == pytest.approx(0.5)
    assert bare("cosine", 9, cycles=3)(3) == bare("cosine", 9, cycles=3)(6) == 1
    cycle = [bare("one_cycle", 100, rise=0.3, start=0.04, final=0.001)(step) for step in range(101)]
    assert (cycle[0], cycle[30], cycle[100]) == (pytest.approx(0.04), 1, pytest.approx(0.001))
    assert max(cycle) == cycle[30]
    stable = [
        bare("warmup_stable_decay", 100, decay=0.2, shape="linear")(step) for step in range(100)
    ]
    assert stable[:81] == [1.0] * 81
    assert stable[90] == pytest.approx(0.5)
    paper = registry.build_schedule(part("inverse_square_root", warmup=40, timescale=40.0), 1000)
    for step in (40, 100, 999):  # the paper's: rises to its warm-up, then sqrt(warmup / step)
        assert paper(step) == pytest.approx(math.sqrt(40 / step))


def test_one_cycle_takes_the_steps_that_a_warm_up_leaves() -> None:
    schedule = registry.build_schedule(part("one_cycle", warmup=100, start=0.2), 1100)
    scales = [schedule(step) for step in range(1100)]
    assert scales[100] == pytest.approx(0.2)
    assert scales.index(max(scales)) == 100 + 300
    assert max(scales[:100]) < 0.2
