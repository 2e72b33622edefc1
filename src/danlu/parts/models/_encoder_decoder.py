"""The encoder-decoder Transformer: one stack reads the source, the other writes the target.

B batch, S positions of the source, T positions of the target, D width, V size of the target's
vocabulary.
Source: Vaswani et al., 2017, arXiv:1706.03762; with normalization before each half of a block
(Xiong et al., 2020, arXiv:2002.04745) and rotary positions in both stacks (Su et al., 2021,
arXiv:2104.09864)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor, nn

from danlu.layers.attention.rotary import Rotary
from danlu.layers.dropout import Dropout
from danlu.layers.generation.kv_cache import Cache
from danlu.layers.quantization.weight_only import tied_product
from danlu.layers.transformer.blocks import Stack, StackSizes
from danlu.layers.transformer.language_model import EMBEDDING_SPREAD, HEAD_SPREAD, Head


class EncoderDecoder(nn.Module):
    """{source: tokens_BS int64, target: tokens_BT int64} -> logits_BTV float32 of the next token at
    each position of the target.

    A position of the target attends to the whole source, and to itself and earlier positions of the
    target. 0 is padding at the end of a row, and changes nothing. To generate, `begin` reads the
    sources once, and `extend` appends tokens to the targets.
    """

    def __init__(
        self,
        source: str,
        target: str,
        cardinalities: tuple[int, int],
        encoder: StackSizes,
        decoder: StackSizes,
        *,
        longest: int,
        tied: bool,
        shared: bool,
    ) -> None:
        """`tied`: the output layer uses the target's embedding; `shared`: source and target use one
        embedding."""
        super().__init__()
        self.source, self.target = source, target
        width = encoder.width
        # A tied embedding is the output layer too, and starts like one.
        self.target_embedding = _embedding(
            cardinalities[1], width, HEAD_SPREAD if tied else EMBEDDING_SPREAD
        )
        self.source_embedding = (
            self.target_embedding
            if shared
            else _embedding(cardinalities[0], width, EMBEDDING_SPREAD)
        )
        self.dropout = Dropout(encoder.dropout) if encoder.dropout else nn.Identity()
        head_size = width // encoder.num_heads
        self.encoder = Stack(encoder, causal=False, rotary=Rotary(head_size, longest))
        self.decoder = Stack(
            replace(decoder, memory=width), causal=True, rotary=Rotary(head_size, longest)
        )
        self.head = None if tied else Head(width, cardinalities[1])

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        memory_BSD, present_BS = self.encode(inputs)
        x_BTD = self.dropout(self.target_embedding(inputs[self.target]))
        return self._logits(self.decoder(x_BTD, None, memory_BSD, present_BS))

    def encode(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(memory_BSD, present_BS): the encoded source, and True where it is no padding."""
        tokens_BS = inputs[self.source]
        present_BS = tokens_BS != 0
        return self.encoder(self.dropout(self.source_embedding(tokens_BS)), present_BS), present_BS

    def begin(self, inputs: Mapping[str, Tensor], length: int) -> Cache:
        """A cache with keys and values of the sources, and room for targets of `length` tokens (it
        grows)."""
        memory_BSD, present_BS = self.encode(inputs)
        cache = self.decoder.cache(len(present_BS), length)
        self.decoder.remember(memory_BSD, present_BS, cache)
        return cache

    def extend(
        self, tokens_BT: Tensor, cache: Cache, sizes_B: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        """logits_BTV of tokens appended to the cache's rows; the first sizes_B[b] tokens of row b
        are real, the rest padding (None: all are real)."""
        places = cache.places(tokens_BT.shape[1], tokens_BT.device)
        x_BTD = self.decoder.extend(self.dropout(self.target_embedding(tokens_BT)), cache, places)
        cache.advance(tokens_BT.shape[1], sizes_B)
        return self._logits(x_BTD)

    def _logits(self, x_BTD: Tensor) -> Tensor:
        logits_BTV = (
            tied_product(x_BTD, self.target_embedding) if self.head is None else self.head(x_BTD)
        )
        return logits_BTV.float()


def _embedding(cardinality: int, width: int, spread: float) -> nn.Embedding:
    embedding = nn.Embedding(cardinality, width)
    nn.init.normal_(embedding.weight, std=spread)
    return embedding
