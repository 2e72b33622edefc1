"""The loop does the work of a hand-written one, to the bit; the benchmarks run, and their tables say what was measured."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import accuracy  # noqa: E402
import overhead  # noqa: E402
import second_start  # noqa: E402
from cases import CASES, Work  # noqa: E402
from contestants import danlu, hand  # noqa: E402
from measuring import Neighbours  # noqa: E402


@pytest.mark.parametrize("name", CASES)
def test_danlu_trains_to_the_same_bits_as_a_hand_written_loop(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same data, batches, order, loss, gradient and update: nothing that danlu adds (logs,
    checkpoints, checks, seeds) moves a weight."""
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    # 7 rows in the last batch of an epoch; the large MLP and the CNN would take long on more
    work = Work(
        replace(CASES[name], rows=263 if name == "mlp_small" else 71, epochs=2), tmp_path / "data"
    )
    work.recipe["train"]["threads"] = 1
    ours, our_weights = danlu.run(work, "usual")
    theirs, their_weights = hand.run(work, "bare")
    assert ours.steps == theirs.steps == work.steps
    assert all(
        torch.equal(one, other) for one, other in zip(our_weights, their_weights, strict=True)
    )
    assert not any(
        torch.equal(one, start) for one, start in zip(our_weights, work.weights, strict=True)
    ), "something was learnt"


def test_the_table_gives_ratios_within_rounds(tmp_path: Path) -> None:
    def timing(wall: float) -> dict[str, float]:
        return {"steps": 100, "wall": wall, "cpu": wall / 2}

    # a machine that slows down tenfold between rounds: the ratio is the same in each
    rounds = [
        {"danlu": timing(1.0), "other": timing(1.2)},
        {"danlu": timing(10.0), "other": timing(12.0)},
    ]
    pair = {
        "case": "mlp_small", "description": "an MLP", "opponent": "Peer", "style": "bare", "style_description": "fast", "version": "1", "threads": 1,
        "steps": 100, "epochs": 1, "largest_difference_of_weights": 0.0, "rounds": rounds, "data": "random images",
    }  # fmt: skip
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
        "pairs": [pair],
        "machine": about,
        "cores_used_by_others": 0.7,
        "data": "random images",
        "skipped": ["Other is skipped"],
    }
    text = overhead._report(result)
    assert (
        "1.200 (1.200..1.200)" in text
        and "-16.7%" in text
        and "NOT a quiet machine" in text
        and "Other is skipped" in text
    )


def test_a_row_without_its_data_is_skipped_saying_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "DATA", tmp_path / "nowhere")
    (adult,) = (row for row in accuracy.ROWS if row.name == "adult")
    found = accuracy._recipe(adult, tmp_path)
    assert found.met is None and str(tmp_path / "nowhere" / "adult") in found.score


def test_the_textbooks_line_is_fitted_within_one_percent_by_rmsprop(tmp_path: Path) -> None:
    found = accuracy._line("rmsprop", tmp_path)
    assert found.met, found.score


def test_a_start_is_measured_to_its_first_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_start, "ROWS", 300)
    second_start._write(tmp_path, "mlp")
    first = second_start._in_a_process(tmp_path, 0)
    assert 0 < first["stages"]["load the table (cache)"] < first["seconds"]
    result = {
        "machine": {"cores": 2, "architecture": "x", "vectors": "v", "system": "s", "python": "3", "torch": "2"},
        "cores_used_by_others": Neighbours().cores(), "data": "random images", "rows": 300, "model": "mlp", "first": [first], "second": [first],
    }  # fmt: skip
    assert "until the first update" in second_start._report(result)
