"""The benchmark of language models runs on a text of nothing much, and its tables say what was measured."""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import language_models
from nanogpt import NanoGPT

SHAPE = language_models.Shape(
    layers=1, heads=2, width=16, context=16, batch_size=4, steps=3, warmup=1
)


@pytest.fixture(autouse=True)
def a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "input.txt"
    text.write_text("the quick brown fox jumps over the lazy dog.\n" * 60)
    monkeypatch.setattr(language_models, "TEXT", text)
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))


def test_danlu_and_the_plain_loop_train_the_same_number_of_steps() -> None:
    ours, theirs = (
        language_models._danlu(SHAPE, evaluate=True),
        language_models._other("nanogpt", SHAPE, evaluate=True),
    )
    for trained in (ours, theirs):
        assert trained.wall > 0
        ((step, seconds, loss),) = trained.points
        assert step == 3 and 0 < seconds <= trained.wall
        assert abs(loss - math.log(30)) < 1.0  # close to guessing among 28 characters or so
    assert language_models._danlu(SHAPE, evaluate=False).points == []


def test_every_character_of_the_validation_text_is_asked_once() -> None:
    _, codes, vocabulary = language_models._characters()
    network = NanoGPT(vocabulary, 1, 2, 16, 16)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    # all logits are 0: each character costs the logarithm of the vocabulary, so that a lost or
    # doubled one shows
    assert language_models._validated(network, codes, 16) == pytest.approx(
        math.log(vocabulary), rel=1e-5
    )  # float32 sums
    assert len(codes) % 16 != 1


def test_a_ratio_is_taken_within_a_round() -> None:
    def trained(wall: float) -> dict[str, float]:
        return {"wall": wall, "cpu": wall}

    rounds = [
        {"danlu": trained(1.0), "other": trained(3.0)},
        {"danlu": trained(10.0), "other": trained(30.0)},
    ]
    pair = {
        "opponent": "Peer",
        "shape": vars(SHAPE),
        "losses": {"danlu": 1.5, "other": 1.6},
        "rounds": rounds,
    }
    about = {
        "cores": 2,
        "architecture": "x",
        "vectors": "v",
        "system": "s",
        "python": "3",
        "torch": "2",
        "processor": "",
    }
    time = {
        "danlu": {"points": [(5, 2.0, 2.1), (10, 4.0, 1.8)]},
        "other": {"points": [(5, 3.0, 2.2)]},
    }
    result = {
        "machine": about,
        "cores_used_by_others": 0.0,
        "pairs": [pair],
        "time": time,
        "skipped": ["X is skipped"],
    }
    text = language_models._report(result, Namespace(target=1.88))
    assert "3.00 (3.00..3.00)" in text and "1.600" in text and "X is skipped" in text
    assert "4.0" in text and "not in 3.0" in text
