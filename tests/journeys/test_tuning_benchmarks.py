"""The benchmarks of tuning run at their tiniest, everyone tries the same values, and the tables say what was measured."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytest.importorskip("optuna", reason="the extra tune is not installed")

import pruning
import samplers
import tuning
from searches import DECAY, DROPOUT, RATE, SEARCHES, Work
from tuners import danlu, hand


@pytest.fixture(autouse=True)
def a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    (tmp_path / "fashion").mkdir()
    return Work(replace(SEARCHES["fashion"], trials=3, rows=400, epochs=1), tmp_path / "fashion")


def test_everyone_tries_the_values_that_danlu_tries(work: Work) -> None:
    values = danlu.values_of(work)
    assert len(values) == 3 and len({each[RATE] for each in values}) == 3
    assert all(
        0.001 <= each[RATE] <= 0.3 and 1e-6 <= each[DECAY] <= 1e-2 and 0 <= each[DROPOUT] <= 0.5
        for each in values
    )
    # run() compares the values that danlu.tune tried with them
    ours = danlu.run(work, "one_by_one", values)
    theirs = hand.optimize(lambda trial: hand.train(work, hand.suggested(trial, work)), values)
    assert len(ours.scores) == len(theirs) == 3 and ours.seconds > 0
    assert all(score is not None and 0 <= score <= 1 for score in [*ours.scores, *theirs])


def test_the_hand_written_loop_learns_the_rows_that_danlu_trains_on(work: Work) -> None:
    images, labels, held, held_labels = work.tensors
    assert (
        images.shape == (360, 784)
        and labels.shape == (360,)
        and held.shape == (40, 784)
        and held_labels.shape == (40,)
    )
    longer = Work(replace(work.search, epochs=12), work.folder)
    # guessing gives 0.1 of ten classes; 72 updates at a good rate give more than half on any of the
    # two kinds of images
    assert hand.train(longer, {RATE: 0.05, DECAY: 1e-6, DROPOUT: 0.0}) > 0.4


def test_a_contestant_is_measured_in_its_process(tmp_path: Path) -> None:
    arguments = Namespace(
        optimizer="adamw", device="cpu", trials=2, rows=300, peer_trials=1, folder=tmp_path
    )
    (tmp_path / "fashion").mkdir()
    tuning._measure("fashion", "danlu", "vectorised", arguments)
    told = json.loads((tmp_path / "one.json").read_text())
    assert (
        len(told["scores"]) == told["trials"] == 2
        and told["optimizer"] == "adamw"
        and told["seconds"] > 0
    )


def test_time_for_all_trials_is_extrapolated_from_those_measured() -> None:
    def measured(
        tuner: str, seconds: float, scores: list[float], start: float = 0.0
    ) -> dict[str, Any]:
        return {
            "table": "fashion", "description": "an MLP", "trials": 8, "epochs": 2, "batch_size": 64, "optimizer": "momentum", "tuner": tuner,
            "name": tuner, "style": "usual", "style_description": "as it is", "version": "1", "seconds": seconds, "start": start, "cpu": seconds,
            "scores": scores,
        }  # fmt: skip

    ours = measured("danlu", 4.0, [0.5, 0.6, 0.7, 0.8, 0.9, 0.1, 0.1, 0.1])
    theirs = measured("peer", 14.0, [0.55, 0.65], start=10.0)  # 2 s a trial: 26 s for all
    about = {
        "cores": 2,
        "architecture": "x",
        "vectors": "v",
        "system": "s",
        "python": "3",
        "torch": "2",
        "processor": "",
    }
    result = {
        "machine": about,
        "device": "cpu",
        "cores_used_by_others": 0.0,
        "measured": [ours, theirs],
        "skipped": ["X is skipped"],
    }
    text = tuning._report(result)
    (row,) = (line for line in text.splitlines() if line.startswith("| peer"))
    assert [cell.strip() for cell in row.split("|")[2:-1]] == [
        "2",
        "3.250",
        "~26.0",
        "~18.5",
        "6.50",
        "14.00",
        "0.6500",
        "0.6000",
    ]
    assert "X is skipped" in text


def test_trials_are_counted_until_one_is_as_good_as_the_best_of_random_search(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert samplers.needed([3.0, 2.0, 1.0, 2.0], 2.0) == 2
    assert samplers.needed([3.0, 2.0], 1.0) == 3  # never
    asked = "samplers.py --sets diabetes --seeds 1 --trials 3 --samplers bayesian"
    monkeypatch.setattr(sys, "argv", asked.split())
    samplers.main()
    printed = capsys.readouterr().out
    assert "TPE" in printed and "random, another seed" in printed and "3 trials a search" in printed


def test_pruning_and_no_pruning_get_the_same_minutes(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(
        sys,
        "argv",
        ["pruning.py", "--seeds", "1", "--minutes", "0.03", "--epochs", "3", "--rows", "400"],
    )
    pruning.main()
    printed = capsys.readouterr().out
    assert "0.03 minutes for each search" in printed and "of 1 seeds" in printed
