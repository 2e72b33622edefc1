"""The private and the public entry to torch's autograd engine give the same bits."""

from __future__ import annotations

import torch
from torch import nn

from danlu.compat import torch_engine


def gradients(backward: object, losses: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.GELU(), nn.Linear(5, 3))
    for rows in (13, 4):  # gradients are added
        outputs = model(torch.randn(rows, 7))
        total = outputs.square().sum() if losses == 1 else outputs.exp().sum(0)
        count = torch.full(total.shape, float(rows))
        backward(total, count.reciprocal())  # type: ignore[operator]
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_both_entries_add_the_same_gradients() -> None:
    for losses in (1, 3):
        private = gradients(torch_engine.private_backward, losses)
        public = gradients(torch_engine.public_backward, losses)
        assert len(private) == 4
        assert all(torch.equal(one, other) for one, other in zip(private, public))


def test_the_private_entry_is_used_where_torch_has_it() -> None:
    assert torch_engine.backward is torch_engine.private_backward
