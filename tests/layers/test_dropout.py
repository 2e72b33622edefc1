"""Dropout's masks: the share they drop, what stays, and that a stack draws each model's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from danlu.layers.dropout import Dropout, dropout_mask, dropout_masks


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_mask_drops_its_share_and_keeps_the_mean(share: float) -> None:
    torch.manual_seed(0)
    drawn = dropout_mask((1000, 400), share, torch.float32)
    # the share of 400,000 draws has a standard deviation of at most 0.0008
    assert float((drawn == 0).float().mean()) == pytest.approx(share, abs=0.004)
    assert float(drawn.mean()) == pytest.approx(1.0, abs=0.04)
    assert drawn.unique().numel() == 2


def test_entries_are_dropped_independently_of_their_neighbours() -> None:
    torch.manual_seed(0)
    kept = (dropout_mask((100_000,), 0.5, torch.float32) > 0).float()
    for distance in (1, 2, 3, 4, 8):  # four entries come of one draw
        together = float((kept[:-distance] * kept[distance:]).mean())
        assert together == pytest.approx(0.25, abs=0.008)  # five standard deviations


def test_the_same_seed_gives_the_same_mask_and_another_seed_another() -> None:
    def drawn(seed: int) -> torch.Tensor:
        return dropout_mask((33, 7), 0.3, torch.float32, torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_masks_of_many_are_those_of_each_alone() -> None:
    shares = [0.2, 0.0, 0.7]
    together = dropout_masks(
        (5, 3), shares, torch.bfloat16, [torch.Generator().manual_seed(seed) for seed in range(3)]
    )
    for seed, share in enumerate(shares):
        alone = (
            dropout_mask((5, 3), share, torch.bfloat16, torch.Generator().manual_seed(seed))
            if share
            else torch.ones(5, 3, dtype=torch.bfloat16)
        )
        assert torch.equal(together[seed], alone)


def test_nothing_is_dropped_outside_training_and_gradients_pass_where_numbers_do() -> None:
    layer = Dropout(0.5)
    assert isinstance(layer, nn.Dropout)
    x = torch.randn(64, 32, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad != 0, y != 0)
    assert torch.equal(y[y != 0], (2 * x)[y != 0])  # half stay, at twice their size
    layer.eval()
    assert layer(x) is x


def test_everything_or_nothing_can_be_dropped() -> None:
    x = torch.ones(4, 4)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1.0)(x), torch.zeros(4, 4))
