"""Words: one code for each word of the training text.

A word is a run of letters, digits and their accents; an apostrophe between two of them belongs to
the word (don't). In scripts without spaces between words (Chinese, Japanese, Thai, ...) each
character is a word. Each punctuation mark and each symbol is a word too. Spaces have no code:
decoding puts spaces where they usually are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from danlu.terms import FIRST_TOKEN, UNKNOWN, Column
from danlu.tokenizing import unicode_classes
from danlu.tokenizing.factorize import factorize
from danlu.tokenizing.tokenizer import Tokenizer
from danlu.tokenizing.unicode_classes import ALONE, GAP, LETTER

_APOSTROPHES = (0x27, 0x2019)
_LEANS_LEFT, _LEANS_RIGHT = (
    frozenset(".,;:!?%)]}…'’”»"),
    frozenset("([{“«$#@"),
)  # no space before, no space after


class Words(Tokenizer):
    """A tokenizer of words. `vocabulary` holds those with a code of their own, in the order of
    their codes; every other word becomes UNKNOWN.

    >>> tokenizer = Words(["hello", ",", "world"])
    >>> codes, _ = tokenizer.encode(["hello , you world"])
    >>> codes.tolist(), tokenizer.decode(codes[:2])
    ([5, 6, 1, 7], 'hello,')
    """

    kind = "words"

    def __init__(self, vocabulary: Sequence[str], lower: bool = False) -> None:
        super().__init__(FIRST_TOKEN + len(vocabulary), lower)
        self.vocabulary = tuple(vocabulary)
        self._code_of_word = {
            word: code for code, word in enumerate(self.vocabulary, start=FIRST_TOKEN)
        }

    @classmethod
    def fit(
        cls, column: Column, size: int | None = None, lower: bool = False, min_count: int = 1
    ) -> Words:
        """Takes the words that occur at least `min_count` times in a text column, the most frequent
        first, until there are `size` codes."""
        counts: dict[str, int] = {}
        for _, text, offsets, _ in cls((), lower).texts(column):
            letters, bounds, _ = _split(text, offsets)
            distinct, codes = factorize(letters, bounds)
            for word, count in zip(distinct, np.bincount(codes, minlength=len(distinct)).tolist()):
                counts[word] = counts.get(word, 0) + count
        common = sorted(
            (word for word, count in counts.items() if count >= min_count),
            key=lambda word: (-counts[word], word),
        )
        return cls(common if size is None else common[: max(size - FIRST_TOKEN, 0)], lower)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Words:
        """The tokenizer that returned this `state`. ValueError for anything else."""
        words = state["vocabulary"]
        if not all(isinstance(word, str) and word for word in words) or len(set(words)) < len(
            words
        ):
            raise ValueError("the vocabulary of its words is none")
        return cls(words, bool(state["lower"]))

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "lower": self.lower, "vocabulary": list(self.vocabulary)}

    @property
    def byte_lengths(self) -> None:
        return None

    def decode(self, codes: Sequence[int] | np.ndarray) -> str:
        names = ["", "\ufffd", "", "", "", *self.vocabulary]
        words = [
            names[code]
            for code in np.asarray(codes, dtype=np.int64).tolist()
            if code >= FIRST_TOKEN or code == UNKNOWN
        ]
        if not words:
            return ""
        edges = np.array([[ord(word[0]), ord(word[-1])] for word in words])
        alone = unicode_classes.lower_and_class(edges.reshape(-1))[1].reshape(-1, 2) == ALONE
        text = words[0]
        for number in range(1, len(words)):
            before, word = words[number - 1], words[number]
            joined = (
                alone[number - 1, 1]
                or alone[number, 0]
                or word[0] in _LEANS_LEFT
                or before[-1] in _LEANS_RIGHT
            )
            text += word if joined or _is_wide(before[-1]) or _is_wide(word[0]) else f" {word}"
        return text

    def decode_bytes(self, codes: Sequence[int] | np.ndarray) -> bytes:
        return self.decode(codes).encode("utf-8")

    def _encode(self, text: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        letters, bounds, counts = _split(text, offsets)
        distinct, codes = factorize(letters, bounds)
        code_of = np.array(
            [*(self._code_of_word.get(word, UNKNOWN) for word in distinct), UNKNOWN],
            dtype=self.dtype,
        )
        return code_of[codes], counts

    def _cut(self, text: bytes) -> int:
        whole = text.decode("utf-8", "ignore")
        kind = unicode_classes.lower_and_class(
            np.array([ord(letter) for letter in whole[-1000:]], dtype=np.int64)
        )[1]
        borders = np.flatnonzero((kind == GAP) | (kind == ALONE))
        return (
            len(whole[: len(whole) - len(kind) + int(borders[-1])].encode("utf-8"))
            if len(borders)
            else 0
        )


def _is_wide(letter: str) -> bool:
    """Whether a character is Chinese or Japanese punctuation, which has no spaces around it."""
    return 0x3000 <= ord(letter) <= 0x303F or 0xFF00 <= ord(letter) <= 0xFFEF


def _split(text: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The words of rows of UTF-8 bytes: (the bytes of all words one after the other; int64 offsets,
    one more than words, where each begins in them; the number of words in each row)."""
    codes = unicode_classes.code_points(text)
    width = unicode_classes.widths(codes)
    ends = np.concatenate([[0], np.cumsum((text & 0xC0) != 0x80)])[
        offsets
    ]  # of rows, counted in characters
    begins = np.zeros(len(codes) + 1, dtype=bool)
    begins[ends] = True  # of a row
    kind = _with_apostrophes(codes, unicode_classes.lower_and_class(codes)[1], begins)
    kept = kind != GAP
    inside = kind == LETTER
    starts = kept & ~inside
    starts[:1] |= inside[:1]
    starts[1:] |= inside[1:] & (~inside[:-1] | begins[1:-1])
    places = np.concatenate([[0], np.cumsum(np.where(kept, width, 0))])
    bounds = np.append(places[:-1][starts], places[-1])
    return (
        text[np.repeat(kept, width)],
        bounds,
        np.diff(np.concatenate([[0], np.cumsum(starts)])[ends]),
    )


def _with_apostrophes(codes: np.ndarray, kind: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """`kind` with LETTER for every apostrophe between two letters of one row."""
    positions = np.flatnonzero((codes == _APOSTROPHES[0]) | (codes == _APOSTROPHES[1]))
    positions = positions[(positions > 0) & (positions < len(codes) - 1)]
    between = (
        (kind[positions - 1] == LETTER)
        & (kind[positions + 1] == LETTER)
        & ~begins[positions]
        & ~begins[positions + 1]
    )
    if not between.any():
        return kind
    kind = kind.copy()
    kind[positions[between]] = LETTER
    return kind
