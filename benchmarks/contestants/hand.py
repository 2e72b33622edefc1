"""A training loop as short as it can be written, with all that is known to be fast.

Data lies in memory as tensors, a batch is an `index_select`, the optimizer is torch's fused one. It
does nothing else: no log, no checkpoint, no look at NaN, no seed a step."""

from __future__ import annotations

from typing import Any

from cases import Work
from measuring import Clock, Timing

NAME = "hand-written loop"
NEEDS = ("torch",)
STYLES = {"bare": "resident tensors, index_select, fused optimizer; nothing else"}


def run(work: Work, style: str) -> tuple[Timing, list[Any]]:
    """Train; see contestants."""
    from torch.nn.functional import cross_entropy

    network = work.network()
    optimizer = work.torch_optimizer(network.parameters())
    images, labels, size = work.images, work.labels, work.batch_size
    with Clock() as clock:
        for epoch in range(work.epochs):
            order = work.order(epoch)
            for begin in range(0, len(order), size):
                rows = order[begin : begin + size]
                optimizer.zero_grad(set_to_none=True)
                cross_entropy(
                    network(images.index_select(0, rows)), labels.index_select(0, rows)
                ).backward()
                optimizer.step()
    return clock.timing(work.steps), [parameter.detach() for parameter in network.parameters()]
