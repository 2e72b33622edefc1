"""The inputs of tabular Transformers: the features of each column, and one token per column.

B batch, F features, C columns, D width of a token.
Source: Gorishniy et al., 2021, arXiv:2106.11959 (feature tokenizer).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from danlu.layers.tabular.categories import CategoryTable
from danlu.layers.tabular.merging import TakeInput
from danlu.layers.tabular.periodic import EMBEDDING, PeriodicEmbedding
from danlu.layers.text.summary import TokenSummary
from danlu.layers.transformer.blocks import Stack, StackSizes
from danlu.terms import InputSpec


def features_per_column(numbers: InputSpec) -> list[int]:
    """How many of the F features belong to each column, in their order; one each where the spec
    does not say."""
    if not numbers.of:
        return [1] * numbers.shape[0]
    return [len(list(features)) for _, features in itertools.groupby(numbers.of)]


class NumberTokens(nn.Module):
    """x_BF -> (B, C, D): one vector for each column, linear in its features, with a bias.

    With `frequencies`, the PeriodicEmbedding of each feature is appended first.
    """

    def __init__(
        self, widths: Sequence[int], size: int, frequencies: int = 0, scale: float = 0.05
    ) -> None:
        super().__init__()
        self.widths = list(widths)
        self.periodic = PeriodicEmbedding(sum(widths), frequencies, scale) if frequencies else None
        inner = [width * (1 + EMBEDDING) if frequencies else width for width in widths]
        edges = torch.tensor(inner).rsqrt().repeat_interleave(torch.tensor(inner))
        self.weight_FD = nn.Parameter((torch.rand(sum(inner), size) * 2 - 1) * edges[:, None])
        self.bias_CD = nn.Parameter((torch.rand(len(inner), size) * 2 - 1) * size**-0.5)
        self.inner = inner

    def forward(self, x_BF: Tensor) -> Tensor:
        if self.periodic is not None:
            x_BF = torch.cat(self._by_column(self.periodic(x_BF)), dim=1)
        if len(self.inner) == x_BF.shape[1]:
            return x_BF[:, :, None] * self.weight_FD + self.bias_CD
        pieces = zip(x_BF.split(self.inner, dim=1), self.weight_FD.split(self.inner), strict=True)
        return torch.stack([x @ weight for x, weight in pieces], dim=1) + self.bias_CD

    def _by_column(self, x: Tensor) -> list[Tensor]:
        """Features followed by their embeddings, reordered column by column."""
        features = sum(self.widths)
        plain, embedded = x[:, :features], x[:, features:]
        pairs = zip(
            plain.split(self.widths, 1),
            embedded.split([width * EMBEDDING for width in self.widths], 1),
            strict=True,
        )
        return [piece for pair in pairs for piece in pair]


class FeatureTransformer(nn.Module):
    """inputs -> (B, D): the class token after a Transformer over the columns."""

    def __init__(
        self, inputs: Mapping[str, InputSpec], sizes: StackSizes, frequencies: int, scale: float
    ) -> None:
        super().__init__()
        self.tokens = Tokens(inputs, sizes.width, frequencies, scale)
        self.stack = Stack(sizes, causal=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.stack(self.tokens(inputs))[:, 0]


class Tokens(nn.Module):
    """inputs -> (B, 1 + C, D): a class token, then one token for each column of numbers, each
    column of categories and each text."""

    def __init__(
        self, inputs: Mapping[str, InputSpec], size: int, frequencies: int, scale: float
    ) -> None:
        super().__init__()
        self.gathering_D = nn.Parameter((torch.rand(size) * 2 - 1) * size**-0.5)
        self.bodies = nn.ModuleList()
        for name, spec in inputs.items():
            if spec.kind == "numbers":
                self.bodies.append(
                    TakeInput(
                        name, NumberTokens(features_per_column(spec), size, frequencies, scale)
                    )
                )
            elif spec.kind == "categories":
                self.bodies.append(TakeInput(name, CategoryTokens(spec.cardinalities, size)))
            else:
                self.bodies.append(TakeInput(name, TextToken(spec, size)))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        tokens = [body(inputs) for body in self.bodies]
        first = self.gathering_D.expand(tokens[0].shape[0], 1, -1)
        return torch.cat([first, *tokens], dim=1)


class TextToken(nn.Module):
    """tokens (B, T) or (B, T, codes) -> (B, 1, D): a text as one token."""

    def __init__(self, described: InputSpec, size: int) -> None:
        super().__init__()
        self.summary = TokenSummary(described)
        self.linear = nn.Linear(self.summary.width, size)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(self.summary(tokens))[:, None]


class CategoryTokens(nn.Module):
    """codes_BC -> (B, C, D): the vector of each category plus the vector of its column."""

    def __init__(self, cardinalities: Sequence[int], size: int) -> None:
        super().__init__()
        self.lookup = CategoryTable(cardinalities, size, size**-0.5)
        self.bias_CD = nn.Parameter((torch.rand(len(cardinalities), size) * 2 - 1) * size**-0.5)

    def forward(self, codes_BC: Tensor) -> Tensor:
        return self.lookup(codes_BC) + self.bias_CD
