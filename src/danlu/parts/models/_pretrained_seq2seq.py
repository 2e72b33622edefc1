"""Encoder-decoders of the library transformers (T5, Marian, BART), for training and beam search.

B batch, S positions of the source, T positions of the target, N rows in the beam search, V size of
the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from danlu.errors import PartError
from danlu.layers.pretrained.network import PretrainedText, library
from danlu.terms import PADDING


@dataclass
class Begun:
    """Encoded sources, and the decoder's cache of the tokens written so far for each."""

    memory: Tensor  # (N, S, D)
    mask: Tensor  # (N, S)
    past: Any
    written: int = 0

    def keep(self, rows: Tensor) -> Begun:
        """Only `rows`, in their order; a row may occur several times."""
        rows = rows.to(self.memory.device)
        if self.written:
            self.past.batch_select_indices(rows)
        return Begun(self.memory[rows], self.mask[rows], self.past, self.written)


class PretrainedSeq2Seq(PretrainedText):
    """{source: tokens_BS, target: tokens_BT} int64 -> logits_BTV float32 over danlu's codes, of the
    next token at each position of the target.

    A target begins with BEGINNING, in place of which the network reads its own codes `opening`
    (BART has two: its decoder's start token, and the beginning of a text).
    """

    def __init__(
        self,
        body: nn.Module,
        source: str,
        target: str,
        size: int,
        *,
        opening: Sequence[int],
        limit: int,
    ) -> None:
        super().__init__(
            body, source, size, (), per="token", causal=False, tells_codes=True, limit=limit
        )
        self.target = target
        self.opening = tuple(opening)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        memory_BSD, mask_BS = self._read(inputs[self.name])
        codes_BT = self._decode_tokens(inputs[self.target], True)
        logits_BTV = self._decoded(codes_BT, memory_BSD, mask_BS).logits.float()
        return self._in_codes(logits_BTV[:, len(self.opening) - 1 :])

    def begin(self, inputs: Mapping[str, Tensor], length: int) -> Begun:
        """Encode the sources, once."""
        transformers = library()
        memory_BSD, mask_BS = self._read(inputs[self.name])
        past = transformers.EncoderDecoderCache(
            transformers.DynamicCache(), transformers.DynamicCache()
        )
        return Begun(memory_BSD, mask_BS, past)

    def extend(self, tokens_NT: Tensor, begun: Begun) -> Tensor:
        """logits_NTV of tokens appended to every row."""
        places = tokens_NT.shape[1]
        codes_NT = self._decode_tokens(tokens_NT, not begun.written)
        self._refuse_beyond(begun.written + codes_NT.shape[1])
        decoded = self._decoded(
            codes_NT, begun.memory, begun.mask, past_key_values=begun.past, use_cache=True
        )
        begun.past, begun.written = decoded.past_key_values, begun.written + codes_NT.shape[1]
        return self._in_codes(decoded.logits[:, -places:].float())

    def _read(self, tokens_BS: Tensor) -> tuple[Tensor, Tensor]:
        """(encoder outputs (B, S, D), mask (B, S): 1 where there is a token)."""
        tokens_BS = self._within_limit(tokens_BS)
        first_S = torch.arange(tokens_BS.shape[1], device=tokens_BS.device) == 0
        # an empty row keeps its first position: attention over no position is NaN
        mask_BS = ((tokens_BS != PADDING) | first_S).long()
        encoder: nn.Module = self.body.get_encoder()  # type: ignore[operator]
        memory_BSD = encoder(input_ids=self._ids(tokens_BS, first_S), attention_mask=mask_BS)[0]
        return memory_BSD, mask_BS

    def _decode_tokens(self, tokens_BT: Tensor, begins: bool) -> Tensor:
        """The network's own codes of a target; if it `begins` here, `opening` replaces the
        first."""
        codes_BT = self._ids(tokens_BT, tokens_BT == -1)
        if not begins:
            return codes_BT
        opening = torch.tensor(self.opening, device=codes_BT.device).expand(len(codes_BT), -1)
        codes_BT = torch.cat([opening, codes_BT[:, 1:]], dim=1)
        self._refuse_beyond(codes_BT.shape[1])
        return codes_BT

    def _decoded(self, codes_BT: Tensor, memory_BSD: Tensor, mask_BS: Tensor, **more: Any) -> Any:
        outputs = library().modeling_outputs.BaseModelOutput(last_hidden_state=memory_BSD)
        return self.body(
            encoder_outputs=outputs, attention_mask=mask_BS, decoder_input_ids=codes_BT, **more
        )

    def _refuse_beyond(self, places: int) -> None:
        if places > self.limit:
            raise PartError(
                f"the pretrained network reads at most {self.limit:,} positions, and a target "
                f"has {places:,}.",
                hint="shorten the targets, or lower task.max_tokens",
            )


def opening_of(config: Mapping[str, Any]) -> tuple[int, ...]:
    """The codes that a decoder of this config.json starts with. PartError where it names none."""
    start = config.get("decoder_start_token_id")
    if start is None and config["model_type"] == "t5":
        start = config.get("pad_token_id", 0)
    if start is None and config["model_type"] == "bart":
        start = config.get("eos_token_id", 2)
    if start is None:
        raise PartError(
            "the checkpoint's config names no decoder_start_token_id.",
            hint="give the whole checkpoint",
        )
    return (
        (int(start), int(config.get("bos_token_id", 0)))
        if config["model_type"] == "bart"
        else (int(start),)
    )


__all__ = ["Begun", "PretrainedSeq2Seq", "opening_of"]
