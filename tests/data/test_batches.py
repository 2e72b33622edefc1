"""Batch n is a pure function of (seed, n); every row is visited once an epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from danlu.data.batches import Batches, Rows
from danlu.recipe import Train
from danlu.system.placement import draw_seed, placement_for

PLACE = placement_for(Train(threads=1))


def rows(count: int = 23) -> Rows:
    numbers = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    return Rows({"numbers": numbers}, {}, np.arange(count), PLACE)


@pytest.mark.parametrize("size", [1, 4, 7, 11, 22, 23, 64, None])
@pytest.mark.parametrize("count", [2, 5, 23])
def test_every_row_is_visited_exactly_once_an_epoch(size: int | None, count: int) -> None:
    batches = Batches(rows(count), np.arange(count), size, seed=3)
    for epoch in range(3):
        seen = torch.cat(
            [
                batches.indices(epoch * batches.steps_per_epoch + n)
                for n in range(batches.steps_per_epoch)
            ]
        )
        assert sorted(seen.tolist()) == list(range(count))


def test_a_batch_is_the_same_whatever_was_asked_before() -> None:
    one, other = (Batches(rows(), np.arange(23), 4, seed=5) for _ in range(2))
    forward = [one.indices(n).tolist() for n in range(30)]
    backward = [other.indices(n).tolist() for n in reversed(range(30))][::-1]
    assert forward == backward


def test_epochs_and_seeds_give_different_orders() -> None:
    batches = Batches(rows(), np.arange(23), 23, seed=0)
    assert batches.indices(0).tolist() != batches.indices(1).tolist()
    assert (
        batches.indices(0).tolist()
        != Batches(rows(), np.arange(23), 23, seed=1).indices(0).tolist()
    )


def test_no_batch_of_a_single_row_is_left_at_the_end() -> None:
    batches = Batches(rows(), np.arange(23), 11, seed=0)  # 11 + 11 + 1
    assert [len(batches.indices(n)) for n in range(batches.steps_per_epoch)] == [11, 12]
    assert [
        len(piece) for piece in Batches(rows(), np.arange(23), 23, seed=0).take_micro(0, 11)
    ] == [11, 12]


def test_only_the_rows_given_are_drawn_and_targets_go_with_them() -> None:
    chosen = np.array([2, 3, 5, 7, 11, 13])
    batch = Batches(rows(), chosen, 6, seed=1).take(0)
    assert sorted(batch.rows.tolist()) == chosen.tolist()
    assert batch.target.tolist() == batch.rows.tolist()
    assert batch.inputs["numbers"][:, 0].tolist() == [3.0 * row for row in batch.rows.tolist()]


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_the_same_whether_normalised_once_or_batch_by_batch(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 5, 7, channels), dtype=np.uint8)
    constants = {"image": {"mean": [0.4, 0.5, 0.6][:channels], "std": [0.2, 0.25, 0.3][:channels]}}
    once = (
        Rows({"image": images}, constants, None, PLACE)
        .gather(torch.tensor([8, 1, 4]))
        .inputs["image"]
    )
    monkeypatch.setattr("danlu.data.gather.LARGEST_RESIDENT", 0)
    each = (
        Rows({"image": images}, constants, None, PLACE)
        .gather(torch.tensor([8, 1, 4]))
        .inputs["image"]
    )
    assert torch.equal(once, each)
    assert once.shape == (3, channels, 5, 7)
    wanted = (images[[8, 1, 4]].astype(np.float64) / 255 - constants["image"]["mean"]) / constants[
        "image"
    ]["std"]
    # float32 carries 24 bits; two roundings of numbers up to 5
    assert np.allclose(once.permute(0, 2, 3, 1).numpy(), wanted, atol=2e-6)


def test_neighbouring_seeds_share_nothing() -> None:
    drawn = {
        draw_seed(seed, purpose, number)
        for seed in range(8)
        for purpose in range(5)
        for number in range(50)
    }
    assert len(drawn) == 8 * 5 * 50
    assert all(0 <= value < 2**63 for value in drawn)
