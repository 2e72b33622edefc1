"""The Transformer encoder of texts and frames, in which every place sees the whole row.

B batch, T places, I numbers that the reader gives for a place, D width, S numbers of an output.
Source: Devlin et al., 2019, arXiv:1810.04805 (BERT); by default with the normalization before each
half of a block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.compat.torch_export import is_exporting
from danlu.errors import PartError
from danlu.layers.attention.rotary import Rotary
from danlu.layers.dropout import Dropout
from danlu.layers.normalization import normalization
from danlu.layers.pooling import real_places
from danlu.layers.recurrent.sequence_reader import Reader
from danlu.layers.transformer.blocks import Stack, StackSizes
from danlu.layers.transformer.language_model import EMBEDDING_SPREAD


class Encoder(nn.Module):
    """inputs -> (x_BTD, present_BT): a vector for each place in its context, and which places are
    no padding (bool).

    `size` is how many numbers `reader` gives for a place. A row without any place counts as one
    place of padding. `context` is the number of learned positions (None: rotary positions).
    """

    def __init__(
        self,
        reader: Reader,
        size: int,
        sizes: StackSizes,
        *,
        context: int | None,
        theta: float = 10_000.0,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.widen = (
            nn.Identity() if size == sizes.width else nn.Linear(size, sizes.width, bias=False)
        )
        self.positions = None if context is None else nn.Embedding(context, sizes.width)
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=EMBEDDING_SPREAD)
        self.norm = (
            None if sizes.norm_first else normalization(sizes.normalization, sizes.width, bias=True)
        )
        self.dropout = Dropout(sizes.dropout) if sizes.dropout else nn.Identity()
        turning = Rotary(sizes.width // sizes.num_heads, 512, theta) if context is None else None
        self.stack = Stack(sizes, causal=False, rotary=turning)
        self.width = sizes.width

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        x_BTI, lengths_B = self.reader(inputs)
        places = x_BTI.shape[1]
        present_BT = real_places(lengths_B.clamp(min=1), places)
        x_BTD = self.widen(x_BTI)
        if self.positions is not None:
            x_BTD = x_BTD + self._position_vectors(places, lengths_B)
        if self.norm is not None:
            x_BTD = self.norm(x_BTD)
        mask = (
            present_BT if is_exporting() or not bool(present_BT.all()) else None
        )  # attention has faster kernels without a mask
        return self.stack(self.dropout(x_BTD), mask), present_BT

    def _position_vectors(self, places: int, lengths_B: Tensor) -> Tensor:
        assert self.positions is not None
        reach = self.positions.num_embeddings
        if (
            is_exporting()
        ):  # a place beyond the last has no position, which stops whoever runs the graph
            return self.positions.weight[torch.arange(places, device=lengths_B.device)]
        if int(lengths_B.max()) > reach:
            raise PartError(
                f"the model learned positions for {reach:,} places, and a row has "
                f"{int(lengths_B.max()):,}.",
                hint="shorten the row (max_length of its transform), or train with positions: "
                "rotary, which have no limit",
            )
        return self.positions.weight[
            torch.arange(places, device=lengths_B.device).clamp(max=reach - 1)
        ]


class EncodedRow(nn.Module):
    """inputs -> (B, D): the places of a row pooled to one vector; without `pooling` the first
    place."""

    def __init__(self, encoder: Encoder, pooling: nn.Module | None) -> None:
        super().__init__()
        self.encoder, self.pooling = encoder, pooling

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        x_BTD, present_BT = self.encoder(inputs)
        return x_BTD[:, 0] if self.pooling is None else self.pooling(x_BTD, present_BT)


class EncodedPlaces(nn.Module):
    """inputs -> (B, T, S): an output for each place; `aside` makes (B, A) of a row's other inputs,
    which is appended at every place."""

    def __init__(self, encoder: Encoder, aside: nn.Module | None, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.aside, self.head = encoder, aside, head

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        places = inputs[self.encoder.reader.names[0]].shape[1]
        x_BTD, _ = self.encoder(inputs)
        if self.aside is not None:
            x_BTD = torch.cat(
                [x_BTD, self.aside(inputs)[:, None].expand(-1, x_BTD.shape[1], -1)], dim=2
            )
        return self.head(x_BTD)[:, :places]


class Pooler(nn.Module):
    """x_BTD, present_BT -> (B, D): the first place through a dense layer and tanh, as in BERT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, present_BT: Tensor) -> Tensor:
        return torch.tanh(self.dense(x_BTD[:, 0]))


class VocabularyHead(nn.Module):
    """x_BTD -> (B, T, V): a dense layer, GELU and a normalization before the last layer, as in
    BERT's masked language model."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.norm = normalization("layer", width, bias=True)
        self.last = nn.Linear(width, size)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.last(self.norm(functional.gelu(self.dense(x_BTD))))
