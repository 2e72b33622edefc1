"""A place of a text as one vector: embeddings of its word, letters, ending and shape, concatenated.

B batch, T places, D codes of a place, L letters of a word, E size of an embedding, F filters.
Letters by a small convolution: Santos and Zadrozny, 2014; Ma and Hovy, 2016, arXiv:1603.01354.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.embedding_size import embedding_size
from danlu.terms import PADDING, UNKNOWN

# Words whose letters are convolved at once: all words of a scored batch would take a gigabyte.
_TOGETHER = 8192


def padded_embedding(cardinality: int, size: int, spread: float) -> nn.Embedding:
    """An embedding drawn with standard deviation `spread`; the vector of padding is 0 and stays
    0."""
    table = nn.Embedding(cardinality, size, padding_idx=PADDING)
    table.spread = spread  # type: ignore[assignment]
    with torch.no_grad():
        table.weight.normal_(0.0, spread)
        table.weight[PADDING] = 0.0
    return table


class LetterConvolution(nn.Module):
    """letters_NL int64 -> (N, filters): the maximum of each filter over windows of three letters.

    A word of fewer letters is padded with 0 at its end; windows without any letter are ignored.
    """

    def __init__(self, cardinality: int, size: int, filters: int) -> None:
        super().__init__()
        self.embedding = padded_embedding(cardinality, size, size**-0.5)
        self.convolution = nn.Conv1d(size, filters, 3, padding=1)
        self.width = filters

    def forward(self, letters_NL: Tensor) -> Tensor:
        return torch.cat([self._strongest(some) for some in letters_NL.split(_TOGETHER)])

    def _strongest(self, letters_NL: Tensor) -> Tensor:
        found_NFL = self.convolution(self.embedding(letters_NL).transpose(1, 2))
        gap_NL = letters_NL == PADDING
        gap_NL[:, 0] = False  # a word without letters has one window, of padding
        return functional.relu(
            found_NFL.masked_fill(gap_NL[:, None], torch.finfo(found_NFL.dtype).min).amax(dim=2)
        )


class WordEmbedding(nn.Module):
    """tokens_BT or tokens_BTD int64 -> (B, T, width).

    `cardinalities` counts the values of each of the D codes. Codes with the same name in `names`
    are letters of one alphabet: they share a table and a LetterConvolution. The first code is the
    word, an embedding of `size`; every other code gets a small embedding. In training a share
    `unknown` of the words is read as unknown (their letters stay), so that the model learns to
    handle unknown words.
    """

    def __init__(
        self,
        cardinalities: Sequence[int],
        names: Sequence[str],
        size: int,
        *,
        letter_size: int,
        filters: int,
        unknown: float,
    ) -> None:
        super().__init__()
        self.groups = _groups(len(cardinalities), names)
        self.unknown = unknown
        tables: list[nn.Module] = []
        self.width = 0
        for number, (first, count) in enumerate(self.groups):
            cardinality = cardinalities[first]
            if count > 1:
                tables.append(LetterConvolution(cardinality, letter_size, filters))
                self.width += filters
            else:
                wide = size if number == 0 else min(embedding_size(cardinality), size)
                tables.append(padded_embedding(cardinality, wide, wide**-0.5))
                self.width += wide
        self.tables = nn.ModuleList(tables)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens_BTD = tokens[:, :, None] if tokens.ndim == 2 else tokens
        parts = []
        for number, ((first, count), table) in enumerate(zip(self.groups, self.tables)):
            if count > 1:
                letters = tokens_BTD[:, :, first : first + count]
                parts.append(table(letters.flatten(0, 1)).unflatten(0, letters.shape[:2]))
            else:
                codes_BT = tokens_BTD[:, :, first]
                parts.append(table(self._some_unknown(codes_BT) if number == 0 else codes_BT))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def _some_unknown(self, codes_BT: Tensor) -> Tensor:
        if not self.training or not self.unknown:
            return codes_BT
        chosen_BT = self.drawn(codes_BT) < self.unknown
        return codes_BT.masked_fill(chosen_BT & (codes_BT != PADDING), UNKNOWN)

    def drawn(self, codes_BT: Tensor) -> Tensor:
        """One uniform number in [0, 1) for each code; a method, so that a stack of models can draw
        for each of them (danlu.training.population.batched_layers)."""
        return torch.rand(codes_BT.shape, device=codes_BT.device)


def _groups(count: int, names: Sequence[str]) -> list[tuple[int, int]]:
    """(index of the first, how many) of each run of codes with the same name."""
    groups: list[tuple[int, int]] = []
    for code in range(count):
        if groups and len(names) == count and code and names[code] == names[code - 1]:
            groups[-1] = (groups[-1][0], groups[-1][1] + 1)
        else:
            groups.append((code, 1))
    return groups
