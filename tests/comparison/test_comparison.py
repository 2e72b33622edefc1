"""danlu compare: who is compared, which learning rates are tried, and what the numbers say."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import danlu
from danlu.comparison.contestants import contestants, split_words
from danlu.comparison.learning_rates import best_rate, first_rates, second_rates
from danlu.comparison.runs import ContestantFacts, Training, TrainingResult, TrainingRunner
from danlu.comparison.statistics import margin, mean_curve, steps_to_reach, summarize
from danlu.errors import DanluError, RecipeError, RunError
from danlu.recipe import split_values


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """A noisy line: 240 rows, and an update takes about a tenth of a millisecond."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(240, 2))
    y = 3 * x[:, 0] - x[:, 1] + 1 + 0.1 * rng.normal(size=240)
    lines = [
        "a,b,y",
        *(f"{one:.5f},{other:.5f},{target:.5f}" for (one, other), target in zip(x, y)),
    ]
    (tmp_path / "line.csv").write_text("\n".join(lines) + "\n")
    return {
        "task": "regression",
        "data": {
            "source": str(tmp_path / "line.csv"),
            "target": "y",
            "split": {"name": "random", "validation": 0.2, "test": 0.2},
        },
        "model": "linear",
        "train": {"steps": 40, "batch_size": 32},
    }


# --- words and contestants


def test_commas_in_brackets_and_quotes_part_nothing() -> None:
    assert split_values("sgd,{name: adam, beta1: 0.8},[1, 2], \"a,b\",'c'") == [
        "sgd",
        "{name: adam, beta1: 0.8}",
        "[1, 2]",
        '"a,b"',
        "'c'",
    ]
    sources, among, overrides = split_words(
        ["a.yaml", "optimizer=sgd,adam", "train.steps=3", "b.yaml"]
    )
    assert (sources, among, overrides) == (
        ["a.yaml", "b.yaml"],
        {"optimizer": ["sgd", "adam"]},
        ["train.steps=3"],
    )


def test_contestants_are_all_combinations_with_names_of_their_own(recipe: dict[str, Any]) -> None:
    slow = {"name": "momentum", "momentum": 0.5}
    found = contestants([recipe], {"optimizer": ["sgd", slow], "train.batch_size": ["16", "32"]})
    assert [each.name for each in found] == [
        "sgd 16",
        "sgd 32",
        f"{json.dumps(slow)} 16",
        f"{json.dumps(slow)} 32",
    ]
    assert (
        found[2].recipe.optimizer.options.momentum == 0.5 and found[3].recipe.train.batch_size == 32
    )  # type: ignore[attr-defined]


def test_several_recipes_are_contestants_by_their_names(recipe: dict[str, Any]) -> None:
    found = contestants([{**recipe, "name": "line"}, {**recipe, "name": "net", "model": "mlp"}], {})
    assert [each.name for each in found] == ["line", "net"] and all(each.searched for each in found)


def test_a_compared_learning_rate_is_not_searched(recipe: dict[str, Any]) -> None:
    assert not any(
        each.searched
        for each in contestants([recipe], {"optimizer.learning_rate": ["0.1", "0.01"]})
    )


def test_a_space_of_the_recipe_does_not_stand_in_the_way(recipe: dict[str, Any]) -> None:
    space = {
        **recipe,
        "optimizer": "momentum",
        "tune": {"space": {"optimizer.momentum": {"low": 0.1, "high": 0.9}}},
    }
    assert [each.name for each in contestants([space], {"optimizer": ["sgd", "adam"]})] == [
        "sgd",
        "adam",
    ]


@pytest.mark.parametrize(
    ("among", "message"),
    [
        ({}, "nothing to compare"),
        ({"optimizer": ["sgd"]}, "among 1 value"),
        ({"optimizer": ["sgd", "sgd"]}, "two contestants"),
    ],
)
def test_what_is_no_comparison_is_refused(recipe: dict[str, Any], among: Any, message: str) -> None:
    with pytest.raises(DanluError, match=message):
        contestants([recipe], among)


def test_a_value_that_the_option_refuses_is_told_as_in_any_recipe(recipe: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="moon"):
        contestants([recipe], {"optimizer": ["sgd", "moon"]})


# --- learning rates


def test_every_contestant_gets_as_many_rates() -> None:
    for count in range(2, 15):
        first = first_rates(0.01, count)
        for best in range(len(first)):
            tried = [(rate, -abs(place - best) * 1.0) for place, rate in enumerate(first)]
            second = second_rates(tried, count, 1.0)
            assert len({*first, *second}) == count, (count, best)


def test_rates_close_in_on_the_best_and_go_beyond_an_edge() -> None:
    assert first_rates(0.01, 7) == [0.0001, 0.001, 0.01, 0.1, 1.0]
    inside = second_rates([(0.001, 3.0), (0.01, 1.0), (0.1, 2.0)], 5, -1.0)
    assert inside == [
        pytest.approx(0.01 / 10**0.5, rel=1e-2),
        pytest.approx(0.01 * 10**0.5, rel=1e-2),
    ]  # rates have three digits
    assert min(second_rates([(0.001, 3.0), (0.01, 2.0), (0.1, 1.0)], 5, -1.0)) > 0.1
    assert max(second_rates([(0.001, 1.0), (0.01, 2.0), (0.1, 3.0)], 5, -1.0)) < 0.001
    assert max(second_rates([(0.001, None), (0.01, None)], 4, 1.0)) < 0.001
    assert (
        best_rate([(0.1, 2.0), (0.01, 2.0), (1.0, None)], 1.0) == 0.01
        and best_rate([(0.1, None)], 1.0) is None
    )


# --- numbers


def test_the_margin_is_students_and_needs_two_values() -> None:
    assert margin([1.0], 0.95) is None
    # 2.776445 is the 97.5 % quantile of t with 4 degrees of freedom, from any table
    assert margin([1.0, 2.0, 3.0, 4.0, 5.0], 0.95) == pytest.approx(
        2.776445 * math.sqrt(2.5) / math.sqrt(5), rel=1e-6
    )


def result(
    contestant: int,
    seed: int,
    curve: list[tuple[int, float]],
    score: float | None = None,
    cause: str = "",
) -> TrainingResult:
    best = None if cause else max(value for _, value in curve) if score is None else score
    return TrainingResult(Training(contestant, 0.1, seed), best, cause, curve, [])


def fact(seconds: float) -> ContestantFacts:
    return ContestantFacts("accuracy", "higher", "loss", "lower", 30, 10, 5, "float32", seconds, "")


def test_the_verdict_ranks_pairs_seeds_and_counts_steps_to_what_the_weakest_reaches(
    tmp_path: Path,
) -> None:
    fast = [
        result(0, seed, [(10, 0.7 + 0.01 * seed), (20, 0.8 + 0.01 * seed), (30, 0.9 + 0.01 * seed)])
        for seed in (1, 2, 3)
    ]
    slow = [
        result(1, seed, [(10, 0.5), (20, 0.6 + 0.01 * seed), (30, 0.8 + 0.01 * seed)])
        for seed in (1, 2, 3)
    ]
    found = summarize(
        ["fast", "slow"],
        [fact(0.001), fact(0.002)],
        [[], []],
        [0.1, 0.1],
        [fast, slow],
        0.95,
        None,
        tmp_path,
    )
    first, second = found.standings
    assert (first.name, second.name) == ("fast", "slow")
    assert (
        found.target == pytest.approx(0.82)
        and first.steps_to_target == 20
        and second.steps_to_target == 30
    )
    assert second.seconds_to_target == pytest.approx(0.06)
    # the difference is the same at every seed, so pairing leaves nothing to chance, though each
    # mean has a margin
    assert (
        second.behind == pytest.approx(0.1)
        and second.behind_margin == pytest.approx(0, abs=1e-12)
        and (second.margin or 0) > 0.02
    )
    assert "cannot be told" not in found.sentence()


def test_a_failed_training_is_counted_and_takes_no_part_in_the_mean(tmp_path: Path) -> None:
    good = [result(0, seed, [(10, 0.9)]) for seed in (1, 2)]
    torn = [
        result(1, 1, [(10, 0.8)]),
        result(1, 2, [(10, 0.1)], cause="step 12: the loss is NaN or infinite"),
    ]
    dead = [result(2, seed, [], cause="out of memory") for seed in (1, 2)]
    names, facts = ["good", "torn", "dead"], [fact(0.001)] * 3
    found = summarize(names, facts, [[]] * 3, [0.1] * 3, [good, torn, dead], 0.95, None, tmp_path)
    assert [each.name for each in found.standings] == names
    assert (
        found.standings[1].mean == 0.8
        and found.standings[1].scores == [0.8, None]
        and found.standings[2].mean is None
    )
    rows = found.table()[1]
    assert "1 of 2 failed" in rows[1][2] and rows[2][2] == "failed"


def test_lower_is_better_where_the_score_says_so(tmp_path: Path) -> None:
    facts = [ContestantFacts("loss", "lower", "loss", "lower", 30, 10, 5, "float32", 0.001, "")] * 2
    one = [result(0, 1, [(10, 2.0), (20, 1.0)], score=1.0)]
    other = [result(1, 1, [(10, 0.9), (20, 0.5)], score=0.5)]
    found = summarize(
        ["one", "other"], facts, [[], []], [0.1, 0.1], [one, other], 0.95, None, tmp_path
    )
    assert [each.name for each in found.standings] == ["other", "one"] and found.target == 1.0
    assert found.standings[0].steps_to_target == 10 and found.standings[1].behind == 0.5


def test_a_mean_curve_holds_the_steps_that_all_have() -> None:
    assert mean_curve([[(1, 1.0), (2, 3.0)], [(1, 2.0), (2, 5.0), (3, 9.0)]]) == [
        (1, 1.5, 1.0, 2.0),
        (2, 4.0, 3.0, 5.0),
    ]
    assert mean_curve([]) == [] and steps_to_reach([], 1.0, 1.0) is None
    assert steps_to_reach([(1, 0.5, 0, 0), (2, 0.7, 0, 0)], 0.7, 1.0) == 2


# --- the whole


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".svg")
    }


def test_a_comparison_writes_a_table_curves_and_pictures(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    among = {"optimizer": ["sgd", "adam"]}
    found = danlu.compare(
        recipe, among, run=tmp_path / "c", rates=4, seeds=2, metric="rmse", on="one_by_one"
    )
    assert (
        {each.name for each in found.standings} == {"sgd", "adam"}
        and found.metric == "rmse"
        and found.seeds == [1, 2]
    )
    assert (
        found.standings[0].mean is not None and found.standings[0].mean < 0.3
    )  # the noise is 0.1, the target spreads by 3.6
    assert all(len(each.tried) == 4 for each in found.standings)
    told = json.loads((tmp_path / "c" / "comparison.json").read_text("utf-8"))
    assert [each["name"] for each in told["standings"]] == [each.name for each in found.standings]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "c" / "curves.csv").read_text("utf-8"))))
    assert {row["what"] for row in rows} == {"validation rmse", "training loss"} and {
        row["seed"] for row in rows
    } == {
        "0",
        "1",
        "2",
    }
    assert len({(row["contestant"], row["learning_rate"], row["seed"]) for row in rows}) == 2 * (
        4 + 2
    )
    for name in ("curves", "losses", "rates"):
        ElementTree.fromstring((tmp_path / "c" / f"{name}.svg").read_text("utf-8"))
    assert not list((tmp_path / "c" / "runs").iterdir()), (
        "a result that is kept needs no run folder"
    )
    again = danlu.compare(
        recipe, among, run=tmp_path / "c", rates=4, seeds=2, metric="rmse", on="one_by_one"
    )
    assert again.as_dict() == found.as_dict()


def test_a_comparison_cut_off_anywhere_ends_as_one_never_cut(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"rates": 3, "seeds": 1, "on": "one_by_one"}
    among = {"optimizer": ["sgd", "momentum"]}
    whole = danlu.compare(recipe, among, run=tmp_path / "whole", **asked)
    made = TrainingRunner._train_and_store
    lives = [0]

    def dying(self: TrainingRunner, *about: Any) -> Any:
        lives[0] += 1
        if lives[0] % 3 == 0:
            raise KeyboardInterrupt
        return made(self, *about)

    monkeypatch.setattr(TrainingRunner, "_train_and_store", dying)
    deaths = 0
    for _ in range(20):
        try:
            cut = danlu.compare(recipe, among, run=tmp_path / "cut", **asked)
            break
        except DanluError as error:
            assert "every training that ended is kept" in str(error)
            deaths += 1
    assert deaths == 3
    # seconds are measured, so they are those of this machine at that moment; all else is the same
    for one, other in zip(whole.standings, cut.standings):
        assert (one.name, one.tried, one.scores, one.curve, one.losses) == (
            other.name,
            other.tried,
            other.scores,
            other.curve,
            other.losses,
        )
    assert (tmp_path / "whole" / "curves.csv").read_bytes() == (
        tmp_path / "cut" / "curves.csv"
    ).read_bytes()


def test_a_comparison_cut_off_while_it_deletes_a_run_keeps_its_curve(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"rates": 1, "seeds": 1, "on": "one_by_one"}
    among = {"optimizer": ["sgd", "momentum"]}
    danlu.compare(recipe, among, run=tmp_path / "whole", **asked)
    delete = shutil.rmtree

    def half_deleted(folder: Path, **options: Any) -> None:
        if Path(folder).parent.name != "runs":  # a checkpoint
            return delete(folder, **options)
        (folder / "metrics.jsonl").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("danlu.comparison.runs.shutil.rmtree", half_deleted)
        with pytest.raises(DanluError, match="every training that ended is kept"):
            danlu.compare(recipe, among, run=tmp_path / "cut", **asked)
    danlu.compare(recipe, among, run=tmp_path / "cut", **asked)
    whole, cut = ((tmp_path / name / "curves.csv").read_bytes() for name in ("whole", "cut"))
    assert whole == cut
    assert not list((tmp_path / "cut" / "runs").iterdir())


def test_many_trainings_as_one_program_say_the_same_as_one_by_one(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    among = {"optimizer": ["sgd", "momentum"]}
    found = [
        danlu.compare(recipe, among, run=tmp_path / on, rates=3, seeds=2, metric="rmse", on=on)  # type: ignore[arg-type]
        for on in ("one_by_one", "vectorised")
    ]
    pairs = zip(*(sorted(each.standings, key=lambda one: one.name) for each in found))
    for alone, together in pairs:
        # the same updates in another order of sums: 40 steps of float32 part by some ulps of the
        # weights
        assert together.scores == pytest.approx(alone.scores, rel=1e-3)
        assert [step for step, *_ in together.curve] == [step for step, *_ in alone.curve]


def test_a_folder_of_another_comparison_is_refused_with_the_difference(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"run": tmp_path / "c", "rates": 1, "seeds": 1, "on": "one_by_one"}
    danlu.compare(recipe, {"optimizer": ["sgd", "adam"]}, **asked)
    with pytest.raises(RunError, match="another comparison"):
        danlu.compare(recipe, {"optimizer": ["sgd", "adam"]}, ["train.steps=41"], **asked)
    with (tmp_path / "line.csv").open("a") as file:
        file.write("1,1,1\n")
    with pytest.raises(RunError, match="data of sgd has changed"):
        danlu.compare(recipe, {"optimizer": ["sgd", "adam"]}, **asked)


def test_rates_that_diverge_lose_and_do_not_stop_the_others(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    wild = {**recipe, "optimizer": {"name": "sgd", "learning_rate": 1e6}}
    found = danlu.compare(
        wild,
        {"train.batch_size": ["16", "32"]},
        run=tmp_path / "c",
        rates=2,
        seeds=1,
        on="one_by_one",
    )
    for each in found.standings:
        assert (
            [score for _, score in each.tried] == [None, None]
            and each.mean is None
            and "lower" not in each.name
        )
        assert "NaN" in each.causes[0] or "diverged" in each.causes[0]
    assert "No training has a score" in found.sentence()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "acuracy"}, "does not measure acuracy"),
        ({"overrides": ["data.split.validation=0"]}, "needs a validation split"),
    ],
)
def test_what_cannot_be_compared_is_said_before_any_training(
    recipe: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        danlu.compare(
            recipe, {"optimizer": ["sgd", "adam"]}, run=tmp_path / "c", rates=1, seeds=1, **change
        )
