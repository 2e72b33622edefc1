"""What a recurrent network reads, and its outputs: one vector a row, or one output a place.

B batch, T places, I numbers at a place, D numbers of a state, S numbers of an output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.generation.kv_cache import Cache, Cached
from danlu.layers.pooling import real_places
from danlu.layers.recurrent.rnn import LockedDropout, Recurrent
from danlu.terms import PADDING


def lengths_of(name: str, inputs: Mapping[str, Tensor]) -> Tensor:
    """How many places each row of an input has, int64 (B,): from NAME_lengths (frames), from its
    padding (tokens), or all places (series).

    >>> lengths_of("tokens", {"tokens": torch.tensor([[5, 7, 0]])}).tolist()
    [2]
    """
    lengths = inputs.get(f"{name}_lengths")
    if lengths is not None:
        return lengths
    x = inputs[name]
    if x.is_floating_point():
        return torch.full((x.shape[0],), x.shape[1], dtype=torch.int64, device=x.device)
    return ((x if x.ndim == 2 else x[:, :, 0]) != PADDING).sum(dim=1)


class Reader(nn.Module):
    """inputs -> (x_BTI, lengths_B): one or several inputs over the same places, concatenated at
    each place, and the length of each row.

    Each of `bodies` makes (B, T, size) of its input; None takes the input as it is (frames,
    series). A batch without any place gets one place of zeros.
    """

    def __init__(
        self, names: Sequence[str], bodies: Sequence[nn.Module | None], dropout: float
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.bodies = nn.ModuleList(body or nn.Identity() for body in bodies)
        self.dropout = LockedDropout(dropout)

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        lengths_B = lengths_of(self.names[0], inputs)
        embedded = [
            body(self._not_empty(inputs[name])) for name, body in zip(self.names, self.bodies)
        ]
        return self.dropout(
            embedded[0] if len(embedded) == 1 else torch.cat(embedded, dim=2)
        ), lengths_B

    @staticmethod
    def _not_empty(x: Tensor) -> Tensor:
        return x if x.shape[1] else functional.pad(x, [0, 0] * (x.ndim - 2) + [0, 1])


class RowVector(nn.Module):
    """inputs -> (B, D): the last states of a row, or with `pooling` a pooling of all its states."""

    def __init__(self, reader: Reader, recurrent: Recurrent, pooling: nn.Module | None) -> None:
        super().__init__()
        self.reader, self.recurrent, self.pooling = reader, recurrent, pooling

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        x_BTI, lengths_B = self.reader(inputs)
        states_BTD = self.recurrent(x_BTI, lengths_B)
        if self.pooling is None:
            return self.recurrent.last(states_BTD, lengths_B)
        return self.pooling(states_BTD, real_places(lengths_B, states_BTD.shape[1]))


class PlaceOutputs(nn.Module):
    """inputs -> (B, T, S): an output for each place. `aside` makes (B, D) of a row's other inputs,
    which is appended to the state at every place; `after` changes the outputs (a CRF)."""

    def __init__(
        self,
        reader: Reader,
        recurrent: Recurrent,
        aside: nn.Module | None,
        head: nn.Module,
        after: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.reader, self.recurrent, self.aside, self.head, self.after = (
            reader,
            recurrent,
            aside,
            head,
            after,
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        places = inputs[self.reader.names[0]].shape[1]
        x_BTI, lengths_B = self.reader(inputs)
        outputs_BTS = self.head(self._beside(self.recurrent(x_BTI, lengths_B), inputs))
        if self.after is not None:
            outputs_BTS = self.after(outputs_BTS, lengths_B)
        return outputs_BTS[:, :places]

    def _beside(self, states_BTD: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        if self.aside is None:
            return states_BTD
        return torch.cat(
            [states_BTD, self.aside(inputs)[:, None].expand(-1, states_BTD.shape[1], -1)], dim=2
        )


class GeneratingPlaceOutputs(PlaceOutputs, Cached):
    """PlaceOutputs in one direction over one input of tokens, which may come piece by piece
    (danlu.layers.generation.kv_cache.Cached)."""

    def cache(self, batch: int, length: int) -> Cache:
        """A cache that holds the state before the first token."""
        return Cache(batch, length, len(self.recurrent.forwards))

    def extend(
        self, tokens_BT: Tensor, cache: Cache, sizes_B: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        """The logits (B, T, S) of tokens that are appended to the cache."""
        x_BTI, _ = self.reader({self.reader.names[0]: tokens_BT})
        sizes = None if sizes_B is None else torch.as_tensor(sizes_B, dtype=torch.int64)
        states_BTH = self.recurrent.resume(x_BTI, cache.layers, sizes)
        cache.advance(tokens_BT.shape[1], sizes_B)
        return self.head(states_BTH)
