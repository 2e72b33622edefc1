"""What every pruner promises: the same for the same curves, the best goes on, and nothing is needed but curves."""

from __future__ import annotations

import random

import numpy as np
import pytest

from danlu import registry

PRUNERS = registry.names("pruners")


def built(name: str, direction: str = "higher", seed: int = 5):  # type: ignore[no-untyped-def]
    return registry.take("pruners", name).build(registry.config("pruners", name)(), direction, seed)


def curves(count: int, length: int, seed: int = 0) -> dict[int, list[float]]:
    """Rising curves of different heights; the higher its number, the better a trial."""
    draw = random.Random(seed)
    return {
        number: [number * (1 - 0.5**step) + 0.01 * draw.random() for step in range(1, length + 1)]
        for number in range(count)
    }


def pruned(name: str, direction: str = "higher", length: int = 9) -> dict[int, int]:
    """The evaluation at which each of 20 trials that run side by side was ended, 0 where it was
    not."""
    sign = 1.0 if direction == "higher" else -1.0
    full = {number: [sign * each for each in curve] for number, curve in curves(20, length).items()}
    rule, ended = built(name, direction), dict.fromkeys(full, 0)
    for step in range(1, length + 1):
        alive = [number for number in full if not ended[number]]
        at = {number: full[number][: ended[number] or step] for number in full}
        for number in alive:
            others = {other: curve for other, curve in at.items() if other != number}
            ended[number] = step if rule.prune(number, at[number], others) else 0
    return ended


@pytest.mark.parametrize("name", PRUNERS)
def test_the_same_curves_give_the_same_answer(name: str) -> None:
    assert pruned(name) == pruned(name)


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_the_best_trial_goes_on(name: str, direction: str) -> None:
    assert pruned(name, direction)[19] == 0


@pytest.mark.parametrize("name", PRUNERS)
def test_direction_only_turns_the_scores(name: str) -> None:
    assert pruned(name, "higher") == pruned(name, "lower")


@pytest.mark.parametrize("name", PRUNERS)
def test_a_trial_without_others_goes_on(name: str) -> None:
    rule = built(name)
    assert not any(rule.prune(3, [0.1] * length, {}) for length in range(1, 30))


@pytest.mark.parametrize("name", ["median", "successive_halving", "hyperband"])
def test_trials_that_fall_behind_are_ended_and_the_worse_ones_first(name: str) -> None:
    ended = pruned(name)
    assert sum(step > 0 for step in ended.values()) >= 5
    worse, better = (
        [ended[number] or 99 for number in range(10)],
        [ended[number] or 99 for number in range(10, 20)],
    )
    assert sum(worse) < sum(better)


def test_successive_halving_keeps_a_third_at_each_rung() -> None:
    ended = pruned("successive_halving")
    assert set(ended.values()) <= {0, 1, 3, 9}
    alive = [number for number, step in ended.items() if step in (0, 9)]
    assert 19 in alive and len(alive) <= 3


def test_equal_scores_end_nobody_at_a_rung() -> None:
    assert not built("successive_halving").prune(
        0, [1.0], {number: [1.0] for number in range(1, 20)}
    )


def test_population_based_training_replaces_the_worst_by_copies_of_the_best() -> None:
    rule = built("population_based")
    scores = [0.1, None, 0.9, 0.8, float("nan"), 0.5, 0.4, 0.3, 0.2, 0.7]
    options = {"optimizer.learning_rate": [0.1 * (number + 1) for number in range(10)]}
    source, after = rule.exploit(scores, options, np.random.default_rng(0))
    again = rule.exploit(scores, options, np.random.default_rng(0))
    assert (source == again[0]).all() and (
        after["optimizer.learning_rate"] == again[1]["optimizer.learning_rate"]
    ).all()
    changed = [number for number in range(10) if source[number] != number]
    assert set(changed) == {1, 4}  # the two without a score
    for number in changed:
        assert source[number] in (2, 3)
        was = options["optimizer.learning_rate"][source[number]]
        now = after["optimizer.learning_rate"][number]
        assert min(abs(now - 1.2 * was), abs(now - was / 1.2)) < 1e-12  # one rounding
    assert not any(source[number] != number for number in (2, 3))


def test_population_based_training_leaves_equals_alone() -> None:
    source, _ = built("population_based").exploit(
        [0.5] * 6, {"x": [1.0] * 6}, np.random.default_rng(0)
    )
    assert (source == np.arange(6)).all()
