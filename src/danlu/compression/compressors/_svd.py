"""A linear layer approximated by the product of two narrower ones (singular value decomposition).

R rank, O outputs, I inputs.
"""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import torch
from torch import Tensor, nn

from danlu.layers.quantization.int8 import weight_matrix


class Factored(nn.Module):
    """Two linear layers, inputs -> rank -> outputs, whose product is the best approximation of
    `layer` of this rank (Eckart and Young, 1936).

    `empty`: only the shapes are set up, for weights that are read later. ValueError for a rank that
    is not from 1 to the smaller side of the matrix."""

    def __init__(self, layer: nn.Module, rank: int, *, empty: bool = False) -> None:
        super().__init__()
        matrix_OI = weight_matrix(layer).detach()
        outputs, inputs = matrix_OI.shape
        if type(rank) is not int or not 0 < rank <= min(outputs, inputs):
            raise ValueError(f"a matrix of {outputs} x {inputs} has no rank {rank}")
        bias = layer.bias
        self.in_features, self.out_features = inputs, outputs
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=bias is not None)
        if empty:
            return
        left_OR, values_R, right_RI = (
            factor for factor in torch.linalg.svd(matrix_OI.double(), full_matrices=False)
        )
        root_R = values_R[:rank].sqrt()
        with torch.no_grad():
            self.up.weight.copy_(left_OR[:, :rank] * root_R)
            self.down.weight.copy_(root_R[:, None] * right_RI[:rank])
            if bias is not None:
                self.up.bias.copy_(bias)  # type: ignore[arg-type]

    @property
    def weight(self) -> Tensor:
        """The product of the two matrices, (outputs, inputs)."""
        return self.up.weight @ self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        """x (..., inputs) times the transposed product, plus the bias: (..., outputs)."""
        return self.up(self.down(x))


def rank_of(matrix_OI: Tensor, energy: float | None, share: float | None) -> int:
    """The rank that keeps `energy` of the sum of squares, or `share` of the smaller side."""
    if energy is None:
        return max(1, round((share or 1.0) * min(matrix_OI.shape)))
    squares = torch.linalg.svdvals(matrix_OI.detach().double()).square()
    kept = squares.cumsum(0) / squares.sum().clamp(min=1e-30)
    return min(int((kept < energy).sum()) + 1, len(squares))
