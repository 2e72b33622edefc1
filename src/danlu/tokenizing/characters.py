"""Characters: one code for each Unicode character of the training text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from danlu.terms import FIRST_TOKEN, UNKNOWN, Column
from danlu.tokenizing import unicode_classes
from danlu.tokenizing.tokenizer import Tokenizer


class Characters(Tokenizer):
    """A tokenizer of characters. `alphabet` holds those with a code of their own, in the order of
    their codes; every other character becomes UNKNOWN.

    >>> Characters("ab").encode(["abc"])[0].tolist()
    [5, 6, 1]
    """

    kind = "characters"

    def __init__(self, alphabet: str, lower: bool = False) -> None:
        super().__init__(FIRST_TOKEN + len(alphabet), lower)
        self.alphabet = alphabet
        letters = np.array([ord(letter) for letter in alphabet], dtype=np.int64)
        self._code_of = np.full(
            int(letters.max(initial=0)) + 2, UNKNOWN, dtype=self.dtype
        )  # the last stands for all beyond
        self._code_of[letters] = FIRST_TOKEN + np.arange(len(letters))
        self._text_of = ["", "\ufffd", "", "", "", *alphabet]

    @classmethod
    def fit(
        cls, column: Column, size: int | None = None, lower: bool = False, min_count: int = 1
    ) -> Characters:
        """Takes the characters that occur at least `min_count` times in a text column; the most
        frequent ones where that would be more than `size` codes."""
        counts = np.zeros(unicode_classes.CODE_POINTS, dtype=np.int64)
        for _, text, _, _ in cls("", lower).texts(column):
            block_counts = np.bincount(unicode_classes.code_points(text))
            counts[: len(block_counts)] += block_counts
        seen = np.flatnonzero(counts >= max(min_count, 1))
        if size is not None and len(seen) > size - FIRST_TOKEN:
            seen = np.sort(
                seen[np.argsort(-counts[seen], kind="stable")[: max(size - FIRST_TOKEN, 0)]]
            )
        return cls("".join(map(chr, seen.tolist())), lower)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Characters:
        """The tokenizer that returned this `state`. ValueError for anything else."""
        alphabet = state["alphabet"]
        if not isinstance(alphabet, str) or len(set(alphabet)) < len(alphabet):
            raise ValueError("the alphabet of its characters is none")
        alphabet.encode("utf-8")  # half a surrogate pair is no character
        return cls(alphabet, bool(state["lower"]))

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "lower": self.lower, "alphabet": self.alphabet}

    @property
    def byte_lengths(self) -> np.ndarray:
        """Bytes of UTF-8 of each code; 0 for UNKNOWN, whose text is lost."""
        letters = np.array([ord(letter) for letter in self.alphabet], dtype=np.int64)
        return np.concatenate(
            [np.zeros(FIRST_TOKEN, dtype=np.int64), unicode_classes.widths(letters)]
        )

    def decode(self, codes: Sequence[int] | np.ndarray) -> str:
        return "".join(map(self._text_of.__getitem__, np.asarray(codes, dtype=np.int64).tolist()))

    def decode_bytes(self, codes: Sequence[int] | np.ndarray) -> bytes:
        return self.decode(codes).encode("utf-8")

    def _encode(self, text: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        characters = unicode_classes.code_points(text)
        codes = self._code_of.take(characters, mode="clip")
        if len(characters) == len(text):
            return codes, np.diff(offsets)
        before = np.concatenate([[0], np.cumsum((text & 0xC0) != 0x80)])
        return codes, np.diff(before[offsets])

    def _cut(self, text: bytes) -> int:
        return len(text.decode("utf-8", "ignore").encode("utf-8"))
