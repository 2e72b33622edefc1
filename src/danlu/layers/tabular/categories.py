"""Categories as learnt numbers: embeddings, and for linear models one weight for each value.

B batch, C columns, E size of an embedding, S output size. Code 0 is an unknown or missing value.
Source: Guo and Berkhahn, 2016, arXiv:1604.06737 (entity embeddings).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.embedding_size import embedding_size


class CategoryTable(nn.Module):
    """codes_BC int64 -> (B, C, E): one embedding table for all columns, in which each column has
    its own rows.

    Weights are drawn with standard deviation `spread`. The row of code 0 starts at zero, so that a
    value that training never saw has no random effect.
    """

    offsets: Tensor

    def __init__(self, cardinalities: Sequence[int], size: int, spread: float) -> None:
        super().__init__()
        starts_C = torch.tensor([0, *cardinalities[:-1]]).cumsum(0)
        self.register_buffer("offsets", starts_C, persistent=False)
        table = (
            torch.randn(sum(cardinalities), size) * spread
            if spread
            else torch.zeros(sum(cardinalities), size)
        )
        table[starts_C] = 0.0
        self.table = nn.Parameter(table)

    def forward(self, codes_BC: Tensor) -> Tensor:
        return functional.embedding(codes_BC + self.offsets, self.table)


class CategoryEmbedding(nn.Module):
    """codes_BC int64 -> (B, width): the embeddings of all columns, concatenated; columns whose
    embeddings have the same size are next to each other.

    `size` is the size of every embedding; None: `embedding_size` of each column's cardinality.
    """

    order: Tensor

    def __init__(self, cardinalities: Sequence[int], size: int | None = None) -> None:
        super().__init__()
        columns: dict[int, list[int]] = {}
        for column, cardinality in enumerate(cardinalities):
            columns.setdefault(size or embedding_size(cardinality), []).append(column)
        self.lookups = nn.ModuleList(
            CategoryTable([cardinalities[column] for column in members], width, width**-0.5)
            for width, members in columns.items()
        )
        order_C = torch.tensor([column for members in columns.values() for column in members])
        self.register_buffer("order", order_C, persistent=False)
        self.counts = [len(members) for members in columns.values()]
        self.widths = [
            width for width, members in columns.items() for _ in members
        ]  # in the order of the output
        self.width = sum(self.widths)

    def forward(self, codes_BC: Tensor) -> Tensor:
        if len(self.counts) == 1:
            return self.lookups[0](codes_BC).flatten(1)
        groups = codes_BC[:, self.order].split(self.counts, dim=1)
        return torch.cat(
            [lookup(group).flatten(1) for lookup, group in zip(self.lookups, groups)], dim=1
        )


class CategoryWeights(nn.Module):
    """codes_BC int64 -> (B, S): the sum over columns of one weight vector for each value, as
    one-hot columns times a matrix.

    Weights start at zero. `bias` adds a learnt vector, the same for all rows.
    """

    def __init__(self, cardinalities: Sequence[int], output_size: int, *, bias: bool) -> None:
        super().__init__()
        self.lookup = CategoryTable(cardinalities, output_size, 0.0)
        self.bias = nn.Parameter(torch.zeros(output_size)) if bias else None

    def forward(self, codes_BC: Tensor) -> Tensor:
        total_BS = self.lookup(codes_BC).sum(1)
        return total_BS if self.bias is None else total_BS + self.bias
