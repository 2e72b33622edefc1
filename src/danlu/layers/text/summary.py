"""A row of tokens as one vector, for models that read a text beside other inputs.

It tells which tokens the text has, and which phrases.
B batch, T places, D codes of a place, E size of an embedding.
Sources: Iyyer et al., 2015, "Deep unordered composition rivals syntactic methods" (the mean of
embeddings); Kim, 2014, arXiv:1408.5882 (the maximum of filters over neighbouring tokens).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.pooling import MaxPooling, MeanPooling
from danlu.layers.text.embeddings import WordEmbedding
from danlu.terms import PADDING, InputSpec

SIZE = 64  # width of a token's embedding, and number of filters over phrases
PHRASE = 3  # tokens that a filter covers
LETTERS = 16  # width of a letter's embedding, where a place holds letters
UNKNOWN_SHARE = 0.02  # of the tokens that training reads as unknown


class TokenSummary(nn.Module):
    """tokens (B, T) or (B, T, D) int64 -> (B, width): the mean of the embeddings, and the maximum
    of each filter."""

    def __init__(self, described: InputSpec, size: int = SIZE) -> None:
        super().__init__()
        self.words = WordEmbedding(
            described.cardinalities,
            described.names,
            size,
            letter_size=LETTERS,
            filters=size,
            unknown=UNKNOWN_SHARE,
        )
        self.convolution = nn.Conv1d(self.words.width, size, PHRASE, padding=PHRASE // 2)
        self.mean, self.largest = MeanPooling(), MaxPooling()
        self.width = self.words.width + size

    def forward(self, tokens: Tensor) -> Tensor:
        inside_BT = (tokens if tokens.ndim == 2 else tokens[:, :, 0]) != PADDING
        # padding is 0, as is what the convolution adds after the longest row: a filter at a row's
        # end sees the same in every batch
        words_BTE = self.words(tokens).masked_fill(~inside_BT[:, :, None], 0.0)
        phrases_BTE = functional.relu(self.convolution(words_BTE.transpose(1, 2)).transpose(1, 2))
        return torch.cat(
            [self.mean(words_BTE, inside_BT), self.largest(phrases_BTE, inside_BT)], dim=1
        )
