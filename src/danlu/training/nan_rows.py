"""Which rows of a batch a NaN or infinity comes from."""

from __future__ import annotations

import torch
from torch import nn

from danlu.data.batches import Rows, rows_at_once


def find_nonfinite_rows(module: nn.Module, rows: Rows, batch: list[int]) -> list[int]:
    """The rows of `batch` whose own outputs are not finite; where none is, the whole batch, the
    most extreme inputs first."""
    bad: list[int] = []
    module.eval()
    with torch.no_grad():
        for piece in torch.tensor(batch).split(rows_at_once(rows)):
            outputs = module(rows.gather(rows.placement.put(piece)).inputs)
            bad += piece[~torch.isfinite(outputs).reshape(len(piece), -1).all(1).cpu()].tolist()
    module.train()
    return bad or _by_size(rows, batch)


def _by_size(rows: Rows, batch: list[int]) -> list[int]:
    """Rows with the largest input value of each first: where no output is wrong yet, the row that
    spoils a batch is an extreme one."""
    sizes: list[float] = []
    for piece in torch.tensor(batch).split(rows_at_once(rows)):
        inputs = [
            tensor
            for tensor in rows.gather(rows.placement.put(piece)).inputs.values()
            if tensor.is_floating_point()
        ]
        largest = [tensor.abs().flatten(1).amax(1) for tensor in inputs if tensor.numel()]
        sizes += torch.stack(largest).amax(0).tolist() if largest else [0.0] * len(piece)
    return [row for _, row in sorted(zip(sizes, batch), key=lambda pair: -pair[0])]
