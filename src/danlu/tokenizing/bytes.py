"""Bytes: one code for each byte of UTF-8; nothing is learnt, and no text is unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from danlu.terms import FIRST_TOKEN
from danlu.tokenizing.tokenizer import Tokenizer


class Bytes(Tokenizer):
    """A tokenizer of bytes: the code of a byte is its value plus FIRST_TOKEN.

    >>> codes, _ = Bytes().encode(["Hi"])
    >>> codes.tolist(), Bytes().decode(codes)
    ([77, 110], 'Hi')
    """

    kind = "bytes"

    def __init__(self, lower: bool = False) -> None:
        super().__init__(FIRST_TOKEN + 256, lower)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Bytes:
        """The tokenizer that returned this `state`."""
        return cls(bool(state["lower"]))

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "lower": self.lower}

    @property
    def byte_lengths(self) -> np.ndarray:
        return np.repeat([0, 1], [FIRST_TOKEN, 256])

    def decode(self, codes: Sequence[int] | np.ndarray) -> str:
        return self.decode_bytes(codes).decode("utf-8", "replace")

    def decode_bytes(self, codes: Sequence[int] | np.ndarray) -> bytes:
        codes = np.asarray(codes, dtype=np.int64)
        return (codes[codes >= FIRST_TOKEN] - FIRST_TOKEN).astype(np.uint8).tobytes()

    def _encode(self, text: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return text + np.uint16(FIRST_TOKEN), np.diff(offsets)

    def _cut(self, text: bytes) -> int:
        last = len(text) - 1
        while last > 0 and text[last] & 0xC0 == 0x80:
            last -= 1
        return last  # before the last character: lower case is a matter of whole ones
