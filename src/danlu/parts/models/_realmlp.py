"""Perceptrons over a table that learn side by side, over one shared embedding of its columns.

M members, B rows, F features, P pieces of a feature, E numbers made of it, C columns of categories,
V their one-hot features, I inputs and O outputs of a layer, S output size.

Every tensor is stored divided by a factor that multiplies it in the forward pass. An optimizer that
moves entries by a length of its own (Adam, Lion) then moves the tensor itself by that factor: the
learning rates of the paper, which differ by tensor, at one learning rate of the recipe.
Source: Holzmüller et al., 2024, arXiv:2407.04491.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from danlu.layers.activations import Activation, activation
from danlu.layers.averaging import average_outputs
from danlu.layers.dropout import Dropout
from danlu.terms import OutputSpec

MADE = 3  # numbers made of each feature, beside itself
# factors on the learning rate of a dense matrix, as in the paper (those of its waves for pieces)
_SCALE, _BIAS, _PIECES = 6.0, 0.1, 0.1


class PieceEmbedding(nn.Module):
    """x_BF -> (B, F * (1 + MADE)): the features x, and MADE learnt functions of each, linear within
    each of P equally wide pieces of u = Phi(x), the rank of x under a standard normal distribution.

    Features that the quantile scale made have equally many training rows in each piece.
    Sources: Gorishniy et al., 2022, arXiv:2203.05556 (piecewise linear encoding); Holzmüller et
    al., 2024 (a bias, no activation, and the feature beside its embedding)."""

    starts: Tensor

    def __init__(self, features: int, pieces: int, rate: float) -> None:
        super().__init__()
        self.rate = rate * _PIECES
        self.pieces = pieces
        self.width = features * (1 + MADE)
        spread = pieces**-0.5 / self.rate
        self.weight_FPE = nn.Parameter(torch.randn(features, pieces, MADE) * spread)
        self.bias = nn.Parameter(torch.randn(features * MADE) * 0.3 / self.rate)
        starts = torch.arange(pieces, dtype=torch.get_default_dtype())
        self.register_buffer("starts", starts, persistent=False)

    def forward(self, x_BF: Tensor) -> Tensor:
        rank_BF = (torch.erf(x_BF * 0.5**0.5) + 1) * (self.pieces / 2)
        share_FBP = (rank_BF.t()[:, :, None] - self.starts).clamp(0.0, 1.0)
        made_FBE = torch.bmm(share_FBP, self.weight_FPE.to(x_BF.dtype))
        made_BD = made_FBE.transpose(0, 1).flatten(1) + self.bias
        return torch.cat([x_BF, made_BD * self.rate], dim=1)


class OneHot(nn.Module):
    """codes_BC int64 -> (B, V) of 0 and 1: a feature for each value of each column in `columns`.
    Code 0, an unknown or missing value, sets none."""

    column: Tensor
    code: Tensor

    def __init__(self, cardinalities: Sequence[int], columns: Sequence[int]) -> None:
        super().__init__()
        pairs = [(column, code) for column in columns for code in range(1, cardinalities[column])]
        self.width = len(pairs)
        self.register_buffer(
            "column", torch.tensor([column for column, _ in pairs]), persistent=False
        )
        self.register_buffer("code", torch.tensor([code for _, code in pairs]), persistent=False)

    def forward(self, codes_BC: Tensor) -> Tensor:
        return (codes_BC[:, self.column] == self.code).to(torch.get_default_dtype())


class ScaledTable(nn.Module):
    """codes_BC int64 -> (B, columns * size): a learnt vector for each value of each column in
    `columns`, normal with deviation 1; that of code 0 starts at 0."""

    column: Tensor
    offset: Tensor

    def __init__(
        self, cardinalities: Sequence[int], columns: Sequence[int], size: int, rate: float
    ) -> None:
        super().__init__()
        sizes = [cardinalities[column] for column in columns]
        self.rate = rate
        self.width = len(sizes) * size
        offset = torch.tensor([0, *sizes[:-1]]).cumsum(0)
        self.register_buffer("column", torch.tensor(list(columns)), persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        table = torch.randn(sum(sizes), size) / rate
        table[offset] = 0.0
        self.table = nn.Parameter(table)

    def forward(self, codes_BC: Tensor) -> Tensor:
        places_BC = codes_BC[:, self.column] + self.offset
        return nn.functional.embedding(places_BC, self.table).flatten(1) * self.rate


class FeatureScale(nn.Module):
    """x_BI -> (M, B, I): x times one learnt factor for each member and feature, 1 at the start.

    Members choose their features softly. The factors are stored as a vector, which weight decay
    spares."""

    def __init__(self, members: int, width: int, rate: float) -> None:
        super().__init__()
        self.members, self.rate = members, rate * _SCALE
        self.factors = nn.Parameter(torch.full((members * width,), 1 / self.rate))

    def forward(self, x_BI: Tensor) -> Tensor:
        factors_M1I = (self.factors * self.rate).view(self.members, 1, -1)
        return x_BI[None] * factors_M1I


class MemberDense(nn.Module):
    """x_MBI -> (M, B, O): x_m W_m / sqrt(I) + b_m, entries of W and b normal with deviation 1 at
    the start (the neural tangent parametrization)."""

    def __init__(self, members: int, inputs: int, outputs: int, rate: float) -> None:
        super().__init__()
        self.members = members
        self.weight_rate, self.bias_rate = rate * inputs**-0.5, rate * _BIAS
        self.weight_MIO = nn.Parameter(torch.randn(members, inputs, outputs) / rate)
        self.bias = nn.Parameter(torch.randn(members * outputs) / self.bias_rate)

    def forward(self, x_MBI: Tensor) -> Tensor:
        y_MBO = torch.bmm(x_MBI * self.weight_rate, self.weight_MIO.to(x_MBI.dtype))
        return y_MBO + (self.bias * self.bias_rate).view(self.members, 1, -1)


class Perceptrons(nn.Module):
    """inputs -> in training (B * M, S), the members of a row side by side; in evaluation (B, S),
    their average (danlu.layers.averaging).

    `features` maps the inputs to (B, `width`).
    """

    def __init__(
        self,
        features: nn.Module,
        width: int,
        output: OutputSpec,
        *,
        members: int,
        hidden: Sequence[int],
        activation_name: Activation,
        dropout: float,
        rate: float,
    ) -> None:
        super().__init__()
        self.members = members
        self.output = output
        self.features = features
        layers: list[nn.Module] = [FeatureScale(members, width, rate)]
        for next_width in hidden:
            layers += [
                MemberDense(members, width, next_width, rate),
                activation(activation_name),
            ]
            if dropout:
                layers.append(Dropout(dropout))
            width = next_width
        self.body = nn.Sequential(*layers, MemberDense(members, width, output.size, rate))

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        y_MBS = self.body(self.features(inputs))
        if self.training:
            return y_MBS.transpose(0, 1).flatten(0, 1)
        return average_outputs(y_MBS, self.output)
