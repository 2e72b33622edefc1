"""Which rows of a batch a NaN or infinity comes from."""

from __future__ import annotations

import torch
from torch import nn

from danlu.data.batches import Rows, row_pieces, rows_at_once
from danlu.layers.tensors import as_floats, as_ints


def find_nonfinite_rows(module: nn.Module, rows: Rows, batch: list[int]) -> list[int]:
    """The rows of `batch` whose own outputs are NaN or infinite; where there is none, the whole
    batch, the rows with the largest inputs first."""
    bad: list[int] = []
    module.eval()
    with torch.no_grad():
        for piece in row_pieces(batch, rows_at_once(rows)):
            outputs = module(rows.gather(rows.placement.put(piece)).inputs)
            finite = torch.isfinite(outputs).reshape(len(piece), -1).all(1).cpu()
            bad += as_ints(piece[~finite])
    module.train()
    return bad or _by_size(rows, batch)


def _by_size(rows: Rows, batch: list[int]) -> list[int]:
    """The rows by their largest input value, descending: where no output is wrong yet, the row with
    an extreme input is the likely cause."""
    sizes: list[float] = []
    for piece in row_pieces(batch, rows_at_once(rows)):
        inputs = [
            tensor
            for tensor in rows.gather(rows.placement.put(piece)).inputs.values()
            if tensor.is_floating_point()
        ]
        largest = [tensor.abs().flatten(1).amax(1) for tensor in inputs if tensor.numel()]
        sizes += as_floats(torch.stack(largest).amax(0)) if largest else [0.0] * len(piece)
    return [row for _, row in sorted(zip(sizes, batch), key=lambda pair: -pair[0])]
