"""An ensemble in one network: members share matrices, and have own scales, biases and outputs.

B batch, K members, D width in, E width out, S output size.
Sources: Wen et al., 2020, arXiv:2002.06715 (BatchEnsemble); Gorishniy et al., 2024,
arXiv:2410.24210 (TabM)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from danlu.layers.activations import Activation, activation
from danlu.layers.averaging import average_outputs
from danlu.layers.dropout import Dropout
from danlu.terms import OutputSpec

Start = Literal["ones", "signs", "normal"]


class Scale(nn.Module):
    """x_BKD -> x times one factor per member and feature.

    Factors start at 1, at 1 or -1 at random, or from the standard normal distribution; the features
    of one chunk (an embedding, say) start with the same factor. They are stored as a vector, so
    that weight decay spares them and Muon does not orthogonalize them."""

    def __init__(
        self, members: int, width: int, start: Start = "ones", chunks: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        chunks = [1] * width if chunks is None else chunks
        if start == "signs":
            drawn = torch.randint(0, 2, (members, len(chunks))).float() * 2 - 1
        else:
            drawn = (
                torch.randn(members, len(chunks))
                if start == "normal"
                else torch.ones(members, len(chunks))
            )
        self.scales = nn.Parameter(drawn.repeat_interleave(torch.tensor(chunks), dim=1).flatten())
        self.members = members

    def forward(self, x_BKD: Tensor) -> Tensor:
        return x_BKD * self.scales.view(self.members, -1)


class EnsembleLinear(nn.Module):
    """x_BKD -> (B, K, E): (x * r_k) W * s_k + b_k, W one for all members."""

    def __init__(
        self, members: int, width: int, next_width: int, first: Scale | None = None
    ) -> None:
        super().__init__()
        self.members = members
        self.before = first if first is not None else Scale(members, width)
        self.linear = nn.Linear(width, next_width, bias=False)
        self.after = Scale(members, next_width)
        edge = width**-0.5
        nn.init.uniform_(self.linear.weight, -edge, edge)  # torch's default for a linear layer
        self.bias = nn.Parameter(torch.empty(members * next_width).uniform_(-edge, edge))

    def forward(self, x_BKD: Tensor) -> Tensor:
        return self.after(self.linear(self.before(x_BKD))) + self.bias.view(self.members, -1)


class MemberLinear(nn.Module):
    """x_BKD -> (B, K, S): one linear layer per member."""

    def __init__(self, members: int, width: int, size: int) -> None:
        super().__init__()
        edge = width**-0.5
        self.weight_KDS = nn.Parameter(torch.empty(members, width, size).uniform_(-edge, edge))
        self.bias_KS = nn.Parameter(torch.empty(members * size).uniform_(-edge, edge))
        self.members = members

    def forward(self, x_BKD: Tensor) -> Tensor:
        y_KBS = torch.bmm(x_BKD.transpose(0, 1), self.weight_KDS.to(x_BKD.dtype))
        return y_KBS.transpose(0, 1) + self.bias_KS.view(self.members, -1)


class Ensemble(nn.Module):
    """inputs -> in training (B * K, S), the members of a row side by side; in evaluation (B, S),
    their average (danlu.layers.averaging).

    `features` maps the inputs to (B, D); `chunks` are the widths of its pieces.
    """

    def __init__(
        self,
        features: nn.Module,
        chunks: Sequence[int],
        output: OutputSpec,
        *,
        members: int,
        hidden: Sequence[int],
        start: Start,
        activation_name: Activation,
        dropout: float,
    ) -> None:
        super().__init__()
        self.members = members
        self.output = output
        self.features = features
        width = sum(chunks)
        first: Scale | None = Scale(members, width, start, chunks)
        layers: list[nn.Module] = [] if hidden else [Scale(members, width, start, chunks)]
        for next_width in hidden:
            layers += [
                EnsembleLinear(members, width, next_width, first),
                activation(activation_name),
            ]
            if dropout:
                layers.append(Dropout(dropout))
            width, first = next_width, None
        self.body = nn.Sequential(*layers)
        self.last = MemberLinear(members, width, output.size)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        x_BD = self.features(inputs)
        y_BKS = self.last(self.body(x_BD[:, None].expand(-1, self.members, -1)))
        return (
            y_BKS.flatten(0, 1)
            if self.training
            else average_outputs(y_BKS.transpose(0, 1), self.output)
        )
