"""A text as one vector without recurrence: convolutions over words, or pooled embeddings.

B batch, T places, D codes of a place, I numbers of a word's embedding, F filters, N length of a run
of words.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.activations import init_linear
from danlu.layers.dropout import Dropout
from danlu.layers.pooling import MaxPooling, MeanPooling
from danlu.layers.text.embeddings import WordEmbedding, padded_embedding
from danlu.layers.vision.pooling import ChannelsLast, MeanOfPixels
from danlu.layers.vision.residual import ResidualBlock
from danlu.terms import PADDING

_PRIMES = (
    0x9E3779B1,
    0x85EBCA77,
    0xC2B2AE3D,
    0x27D4EB2F,
    0x165667B1,
    0x2545F491,
    0x5851F42D,
    0x14057B7F,
)  # odd, below 2**32


def words_and_inside(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """(the words int64 (B, T); which places are no padding, bool (B, T)) of tokens_BT or
    tokens_BTD."""
    words_BT = tokens if tokens.ndim == 2 else tokens[:, :, 0]
    return words_BT, words_BT != PADDING


def with_one_place(tokens: Tensor) -> Tensor:
    """The tokens; one place of padding where no row of the batch has a token."""
    return (
        tokens if tokens.shape[1] else functional.pad(tokens, [0, 0] * (tokens.ndim - 2) + [0, 1])
    )


class ConvolvedText(nn.Module):
    """tokens -> (B, F of all widths): the maximum over the row of each filter, for filters of each
    of `widths` words.

    A filter may begin before the row or end after it, where it sees zeros, so that it also covers
    rows shorter than itself. 0 for an empty row.
    Source: Kim, 2014, arXiv:1408.5882.
    """

    def __init__(
        self, embedding: WordEmbedding, widths: Sequence[int], filters: int, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.dropout = Dropout(dropout)
        convolutions = [
            nn.Conv1d(embedding.width, filters, width, padding=width // 2) for width in widths
        ]
        for convolution in convolutions:
            init_linear(convolution, "relu")
        self.convolutions = nn.ModuleList(convolutions)
        self.pooling = MaxPooling()
        self.width = filters * len(widths)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = with_one_place(tokens)
        _, inside_BT = words_and_inside(tokens)
        x_BTI = self.dropout(self.embedding(tokens)).masked_fill(~inside_BT[:, :, None], 0.0)
        x_BIT = x_BTI.transpose(1, 2)
        pooled = []
        for convolution in self.convolutions:
            y_BTF = functional.relu(convolution(x_BIT)).transpose(1, 2)[:, : inside_BT.shape[1]]
            pooled.append(self.pooling(y_BTF, inside_BT))
        return torch.cat(pooled, dim=1)


class BagOfWords(nn.Module):
    """tokens -> (B, width): mean, maximum or both of the embeddings of all words and of all runs of
    2 to `longest` words (n-grams).

    A run is hashed to one of `buckets` embeddings, so the table does not grow with the vocabulary
    of runs. 0 for an empty row.
    Source: Joulin, Grave, Bojanowski and Mikolov, 2016, arXiv:1607.01759 (fastText).
    """

    def __init__(
        self, embedding: WordEmbedding, longest: int, buckets: int, pooling: str, dropout: float
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.longest = longest
        self.buckets = buckets
        self.runs = (
            padded_embedding(buckets, embedding.width, embedding.width**-0.5)
            if longest > 1
            else None
        )
        self.dropout = Dropout(dropout)
        self.poolings = nn.ModuleList(
            ([MeanPooling()] if "mean" in pooling else [])
            + ([MaxPooling()] if "max" in pooling else [])
        )
        self.width = embedding.width * len(self.poolings)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = with_one_place(tokens)
        words_BT, inside_BT = words_and_inside(tokens)
        parts, inside = [self.embedding(tokens)], [inside_BT]
        if self.runs is not None:
            runs_BT = self._hashed(words_BT)
            parts.append(self.runs(runs_BT))
            inside.append(runs_BT != PADDING)
        x_BTI, inside_BT = self.dropout(torch.cat(parts, dim=1)), torch.cat(inside, dim=1)
        return torch.cat([pooling(x_BTI, inside_BT) for pooling in self.poolings], dim=1)

    def _hashed(self, words_BT: Tensor) -> Tensor:
        """The bucket of every run of 2 to `longest` words, int64 (B, runs), 1 to buckets - 1; 0 for
        a run that would reach beyond its row."""
        buckets = []
        mixed_BT = words_BT * _PRIMES[0]
        for number in range(1, self.longest):
            behind_BT = functional.pad(words_BT, (0, number))[:, number:]
            mixed_BT = (mixed_BT ^ (mixed_BT >> 15)) * _PRIMES[
                number % len(_PRIMES)
            ] + behind_BT * _PRIMES[(number + 3) % len(_PRIMES)]
            mixed_BT = mixed_BT & 0x7FFFFFFF  # so that devices that differ beyond 63 bits agree
            bucket_BT = 1 + (mixed_BT ^ (mixed_BT >> 13)) % (self.buckets - 1)
            buckets.append(bucket_BT.masked_fill(behind_BT == PADDING, PADDING))
        return torch.cat(buckets, dim=1)


def small_image(shape: Sequence[int], size: int) -> tuple[nn.Module, int]:
    """(a module that makes (B, size) of an image beside a text, size): three residual blocks, each
    at half the height and width of the one before."""
    channels, height, width = shape
    narrow = max(size // 4, 8)
    blocks = [
        ResidualBlock(before, after, stride=stride, batch_norm=True, activation_name="relu")
        for before, after, stride in (
            (channels, narrow, 1 if min(height, width) < 16 else 2),
            (narrow, 2 * narrow, 2),
            (2 * narrow, size, 2),
        )
    ]
    return nn.Sequential(ChannelsLast(), *blocks, MeanOfPixels()), size
