"""What every sampler promises: the same for the same seed and history, inside the space, with conditions, and in batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from danlu import registry
from danlu.recipe import Dimension, Part, Space, contains_point
from danlu.search.suggest import PastTrial, Suggester

pytest.importorskip("optuna")

SAMPLERS = registry.names("samplers")
MIXED: Space = (
    Dimension("optimizer.learning_rate", "float", low=1e-4, high=0.1, log=True),
    Dimension("optimizer", "choice", choices=("sgd", "momentum")),
    Dimension("model.hidden", "choice", choices=([8], [8, 4], [])),
    Dimension("optimizer.momentum", "float", low=0.5, high=0.99, when={"optimizer": ("momentum",)}),
    Dimension(
        "train.batch_size", "integer", low=16, high=70, step=16
    ),  # 16, 32, 48, 64: the end is no step
    Dimension("train.seed", "integer", low=1, high=1000, log=True),
    Dimension("regularization.dropout", "float", low=0.0, high=0.5, step=0.1),
)
DIRECTIONS = ["higher"]


def part(name: str) -> Part:
    """A sampler whose random start is short, so that its own rule is met within few trials."""
    config = registry.config("samplers", name)
    short = {"random_trials": 4} if "random_trials" in config.model_fields else {}
    small = {"population": 4} if "population" in config.model_fields else {}
    points = {"points": 3} if "points" in config.model_fields else {}
    return Part(name, config(**short, **small, **points))


def score(values: Mapping[str, Any], number: int) -> PastTrial:
    """What became of a trial: its result is a function of its values; every fifth failed, every
    seventh was pruned."""
    height = (
        -abs(values["optimizer.learning_rate"] - 0.01) + len(values.get("model.hidden", [])) * 0.01
    )
    curve = {1: height / 2, 2: height}
    if number % 5 == 4:
        return PastTrial(values, {}, "failed")
    if number % 7 == 6:
        return PastTrial(values, {}, "pruned", curve={1: height / 2})
    return PastTrial(values, {}, "complete", (height,), curve)


class Search:
    """A study in memory: batches of trials, each told before the next."""

    def __init__(
        self, name: str, space: Space = MIXED, seed: int = 3, directions: list[str] = DIRECTIONS
    ) -> None:
        self.name, self.space, self.seed, self.directions = name, space, seed, directions
        self.trials: list[PastTrial] = []
        self.suggester = self.anew()

    def anew(self) -> Suggester:
        return Suggester(part(self.name), self.space, self.directions, self.seed)

    def batch(self, count: int, suggesting: Suggester | None = None) -> list[Any]:
        """What is suggested next."""
        suggesting = suggesting or self.suggester
        suggesting.update(len(self.trials), lambda number: self.trials[number])
        return [suggesting.suggest() for _ in range(count)]

    def run(self, batches: int, count: int) -> None:
        for _ in range(batches):
            for made in self.batch(count):
                told = self.told(made.values, len(self.trials))
                self.trials.append(
                    PastTrial(told.values, made.system_attrs, told.state, told.scores, told.curve)
                )

    def told(self, values: Mapping[str, Any], number: int) -> PastTrial:
        found = score(values, number)
        if len(self.directions) > 1:  # nobody prunes by several objectives
            if found.scores is None:
                return PastTrial(values, {}, "failed")
            return PastTrial(
                found.values,
                {},
                "complete",
                (found.scores[0], float(values["train.batch_size"])),
                {},
            )
        return found


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_and_history_give_the_same_suggestions(name: str, count: int) -> None:
    one, other = Search(name), Search(name)
    one.run(9 // count, count)
    other.run(9 // count, count)
    assert [each.values for each in one.trials] == [each.values for each in other.trials]
    assert len({repr(sorted(each.values.items())) for each in one.trials}) > 5


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_made_anew_from_the_history_goes_on_as_the_one_that_lived_through_it(
    name: str, count: int
) -> None:
    search = Search(name)
    for _ in range(9 // count):
        anew = search.batch(count, search.anew())
        search.run(1, count)
        assert [each.values for each in anew] == [each.values for each in search.trials[-count:]]
        assert [each.system_attrs for each in anew] == [
            each.system_attrs for each in search.trials[-count:]
        ]


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_suggestion_is_inside_the_space_and_follows_its_conditions(name: str) -> None:
    search = Search(name)
    search.run(6, 2)
    for each in search.trials:
        assert contains_point(MIXED, each.values), each.values
    assert {type(each.values["train.batch_size"]) for each in search.trials} == {int}
    assert {each.values["optimizer"] for each in search.trials} == {"sgd", "momentum"}


@pytest.mark.parametrize("name", SAMPLERS)
def test_another_seed_gives_other_suggestions(name: str) -> None:
    one, other = Search(name, seed=1), Search(name, seed=2)
    one.run(4, 2)
    other.run(4, 2)
    assert [each.values for each in one.trials] != [each.values for each in other.trials]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_batch_holds_no_suggestion_twice_in_a_space_of_numbers(name: str) -> None:
    search = Search(name, MIXED[:1])
    search.run(4, 2)
    batch = search.batch(3)
    assert len({each.values["optimizer.learning_rate"] for each in batch}) == 3


@pytest.mark.parametrize(
    "name",
    [each for each in SAMPLERS if getattr(registry.facts("samplers", each), "SEVERAL", True)],
)
def test_a_sampler_for_several_objectives_takes_two(name: str) -> None:
    search = Search(name, directions=["higher", "lower"])
    search.run(5, 2)
    assert all(contains_point(MIXED, each.values) for each in search.trials)


def test_a_grid_holds_every_combination_once() -> None:
    search = Search("grid", MIXED[1:4])
    grid = registry.facts("samplers", "grid")
    size = grid.size(part("grid").options, MIXED[1:4])
    assert size == 3 * (1 + 3)  # sgd; momentum with three points
    search.told = lambda values, number: PastTrial(values, {}, "complete", (0.0,))  # type: ignore[method-assign]
    search.run(size, 1)
    assert len({repr(sorted(each.values.items())) for each in search.trials}) == size


@pytest.mark.parametrize(
    ("name", "trials"), [("bayesian", 32), ("gaussian_process", 12), ("evolution", 32)]
)
def test_a_sampler_that_learns_comes_nearer_than_its_start(name: str, trials: int) -> None:
    space: Space = tuple(Dimension(f"x{place}", "float", low=0.0, high=1.0) for place in range(2))
    search = Search(name, space)

    def told(values: Mapping[str, Any], number: int) -> PastTrial:
        return PastTrial(
            values, {}, "complete", (-sum((value - 0.3) ** 2 for value in values.values()),)
        )

    search.told = told  # type: ignore[method-assign]
    search.run(trials, 1)
    heights = [each.scores[0] for each in search.trials if each.scores]
    assert sum(heights[-4:]) > sum(heights[:4])
    assert max(heights[4:]) > max(heights[:4])
