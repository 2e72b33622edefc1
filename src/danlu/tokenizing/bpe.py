"""Byte-level byte pair encoding (BPE): codes for frequent pieces of text; lossless on any text.

Text is first divided into parts that no piece may cross: runs of letters of one script with the
space before them, single digits, runs of punctuation, line ends. Han characters form runs of their
own. Then the most frequent pair of neighbouring pieces within a part becomes a new piece, again and
again, until there are as many codes as wanted.
Source: Sennrich, Haddow and Birch, 2016, arXiv:1508.07909; over bytes: Radford et al., 2019
(GPT-2)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import MissingExtra
from danlu.terms import FIRST_TOKEN, SPECIAL_TOKENS, UNKNOWN, Column
from danlu.tokenizing.factorize import factorize
from danlu.tokenizing.pretokenize import PRETOKEN_PATTERN, classify, pretoken_starts
from danlu.tokenizing.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

LEAST = FIRST_TOKEN + 256  # codes of the special tokens and single bytes
MOST = 1 << 20  # codes
MOST_TRAINING = (
    64 << 20
)  # bytes of text that merges are learnt from; of more text evenly spaced blocks
_FEW = 1 << 14  # bytes of text below which the library alone is fast enough
_TOGETHER = 1 << 20  # bytes of text passed to the library at a time
_PIECE = 1 << 12  # characters after which a long row is cut, at the next sure beginning of a part
# A line end before anything but space, a single space between two words, and Chinese punctuation
# before a letter always end a part.
_BORDER = re.compile(r"(?<=\n)(?=\S)|(?<=\S)(?= \S)|(?<=[。！？；，、：”])(?=[^\W_])")


class BytePairs(Tokenizer):
    """A byte-level BPE tokenizer.

    `merges` holds the pairs in the order in which they are merged: two pieces with a space between,
    bytes written as GPT-2 writes them. Codes: danlu's special tokens, then the 256 bytes (in the
    order of the characters they are written as), then one per merge."""

    kind = "bpe"

    def __init__(self, merges: Sequence[str], lower: bool = False) -> None:
        self.merges = tuple(merges)
        pieces = _pieces(self.merges)
        super().__init__(FIRST_TOKEN + len(pieces), lower)
        self.pieces = tuple(pieces)
        byte_of = {letter: value for value, letter in enumerate(byte_letters())}
        self._bytes_of = [b""] * FIRST_TOKEN + [
            bytes(byte_of[letter] for letter in piece) for piece in pieces
        ]
        self._bytes_of[UNKNOWN] = "\ufffd".encode()
        self._library = bpe_library(self.pieces, self.merges)
        self._joining = bpe_library(self.pieces, self.merges, divides=False)

    @classmethod
    def fit(cls, column: Column, size: int, lower: bool = False, min_count: int = 2) -> BytePairs:
        """Learns merges from a text column: at most `size` codes; pairs that occur fewer than
        `min_count` times are not merged. The same text gives the same codes."""
        tokenizers = _tokenizers()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=max(size, LEAST),
            min_frequency=min_count,
            special_tokens=list(SPECIAL_TOKENS),
            show_progress=False,
            initial_alphabet=sorted(byte_letters()),
        )
        learner = _with_parts(tokenizers.Tokenizer(tokenizers.models.BPE()))
        learner.train_from_iterator(_some_text(cls((), lower), column), trainer)
        merges = _merges_of(learner)
        return cls(merges, lower)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> BytePairs:
        """The tokenizer that returned this `state`. ValueError for anything else."""
        merges = state["merges"]
        if (
            not isinstance(merges, list)
            or len(merges) > MOST
            or not all(isinstance(merge, str) for merge in merges)
        ):
            raise ValueError("the merges are none")
        return cls(merges, bool(state["lower"]))

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "lower": self.lower, "merges": list(self.merges)}

    @property
    def byte_lengths(self) -> np.ndarray:
        return np.array(
            [0] * FIRST_TOKEN + [len(piece) for piece in self._bytes_of[FIRST_TOKEN:]],
            dtype=np.int64,
        )

    def decode(self, codes: Sequence[int] | np.ndarray) -> str:
        return self.decode_bytes(codes).decode("utf-8", "replace")

    def decode_bytes(self, codes: Sequence[int] | np.ndarray) -> bytes:
        return b"".join(map(self._bytes_of.__getitem__, np.asarray(codes, dtype=np.int64).tolist()))

    def tokenizer_json(self) -> str:
        """The tokenizer as the text of a tokenizer.json with the same codes, for other
        libraries."""
        tokenizers = _tokenizers()
        tokenizer = bpe_library(self.pieces, self.merges)
        if self.lower:
            tokenizer.normalizer = tokenizers.normalizers.Lowercase()
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        return tokenizer.to_str(pretty=False)

    def _encode(self, text: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(text) < _FEW:
            return self._by_library(text, offsets)
        good, kind, ends = classify(text, offsets)
        if good.all():
            return self._by_parts(text, kind, ends)
        inside = np.repeat(good, np.diff(offsets))
        rest = np.concatenate([[0], np.cumsum(np.where(good, 0, np.diff(offsets)))])
        few = np.concatenate([[0], np.cumsum(np.where(good, np.diff(ends), 0))])
        return _together(
            self._by_parts(text[inside], kind[np.repeat(good, np.diff(ends))], few),
            self._by_library(text[~inside], rest),
            good,
        )

    def _by_library(self, text: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encodes with the library: the regular expression and the merges."""
        data = text.tobytes()
        counts = np.zeros(len(offsets) - 1, dtype=np.int64)
        codes: list[np.ndarray] = []
        start = 0
        while start < len(counts):  # the library keeps some hundred bytes a code while it works
            stop = int(np.searchsorted(offsets, offsets[start] + _TOGETHER, side="right")) - 1
            stop = min(max(stop, start + 1), len(counts))
            pieces: list[str] = []
            owner: list[int] = []
            for row, (begin, end) in enumerate(
                itertools.pairwise(offsets[start : stop + 1].tolist()), start=start
            ):
                cut = _short(data[begin:end].decode("utf-8"))
                pieces += cut
                owner += [row] * len(cut)
            flat, sizes = _codes(self._library, pieces, self.dtype)
            codes.append(flat)
            counts += np.bincount(owner, weights=sizes, minlength=len(counts)).astype(np.int64)
            start = stop
        return np.concatenate(codes) if codes else np.zeros(0, dtype=self.dtype), counts

    def _by_parts(
        self, text: np.ndarray, kind: np.ndarray, ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes with parts found by array operations, each distinct part merged only once."""
        starts = pretoken_starts(text, kind, ends)
        begins = np.flatnonzero((text & 0xC0) != 0x80)[starts]
        bounds = np.append(begins, len(text)).astype(np.int64)
        distinct, part = factorize(text, bounds)
        flat, sizes = _codes(self._joining, distinct, self.dtype)
        first, lengths = (np.cumsum(sizes) - sizes)[part], sizes[part]
        after = np.concatenate([[0], np.cumsum(lengths)])
        where = np.repeat(first - after[:-1], lengths) + np.arange(after[-1])
        parts_before = np.concatenate([[0], np.cumsum(starts)])[ends]
        return flat[where], np.diff(after[parts_before])

    def _cut(self, text: bytes) -> int:
        whole = text.decode("utf-8", "ignore")
        begin = max(0, len(whole) - _PIECE)
        places = [match.start() for match in _BORDER.finditer(whole, begin) if match.start() > 0]
        return len(whole[: places[-1]].encode("utf-8")) if places else 0


def byte_letters() -> list[str]:
    """The printable character that each of the 256 bytes is written as (the table of GPT-2).

    >>> byte_letters()[ord("A")], byte_letters()[ord(" ")]
    ('A', 'Ġ')
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    return [chr(value if value in printable else next(others)) for value in range(256)]


def bpe_library(
    pieces: Sequence[str], merges: Sequence[str], divides: bool = True
) -> tokenizers.Tokenizer:
    """A tokenizer of the library tokenizers with these pieces and merges.

    `divides`: whether it divides text into parts first; without it, each text must be one part. The
    special tokens are names of codes only: no text is encoded as one of them.
    """
    tokenizers = _tokenizers()
    vocabulary = {name: code for code, name in enumerate((*SPECIAL_TOKENS, *pieces))}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    tokenizer = _with_parts(
        tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=pairs)), divides
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise MissingExtra("the library tokenizers", "text", "byte pair encoding") from None
    return tokenizers


def _with_parts(tokenizer: tokenizers.Tokenizer, divides: bool = True) -> tokenizers.Tokenizer:
    before = _tokenizers().pre_tokenizers
    steps = [before.Split(_tokenizers().Regex(PRETOKEN_PATTERN), "isolated")] if divides else []
    tokenizer.pre_tokenizer = before.Sequence(
        [*steps, before.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return tokenizer


def _codes(
    tokenizer: tokenizers.Tokenizer, texts: Sequence[str], dtype: np.dtype[Any]
) -> tuple[np.ndarray, np.ndarray]:
    """(the codes of all texts one after the other, the number of codes of each text)."""
    lists = [codes.ids for codes in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
    sizes = np.array([len(codes) for codes in lists], dtype=np.int64)
    return np.fromiter(
        itertools.chain.from_iterable(lists), dtype=dtype, count=int(sizes.sum())
    ), sizes


def _together(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], ones: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The codes of `one` and `other` in the order of the rows. Each is (codes, number of codes per
    row), 0 in the rows of the other; `ones` says which rows are of `one`."""
    counts = one[1] + other[1]
    whose = np.repeat(ones, counts)
    result = np.empty(len(whose), dtype=one[0].dtype)
    result[whose], result[~whose] = one[0], other[0]
    return result, counts


def _pieces(merges: Sequence[str]) -> list[str]:
    """The 256 bytes, then the piece that each merge creates. ValueError where a merge names a piece
    that does not exist."""
    pieces = dict.fromkeys(sorted(byte_letters()))
    for merge in merges:
        left, space, right = merge.partition(" ")
        if not space or left not in pieces or right not in pieces:
            raise ValueError(f"{merge!r} joins what is no piece")
        pieces[left + right] = None
    return list(pieces)


def _merges_of(learner: tokenizers.Tokenizer) -> list[str]:
    import json

    model = json.loads(learner.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    codes = {name: code for code, name in enumerate((*SPECIAL_TOKENS, *_pieces(merges)))}
    assert model["vocab"] == codes, "the library numbers pieces in another way than danlu reads it"
    return merges


def _some_text(tokenizer: Tokenizer, column: Column) -> Iterator[str]:
    """The training text in pieces: all of it, or evenly spaced blocks of about MOST_TRAINING bytes
    in total."""
    total = 0 if column.offsets is None else int(column.offsets[-1] - column.offsets[0])
    every = max(1, -(-total // MOST_TRAINING))
    for number, (_, text, offsets, _) in enumerate(tokenizer.texts(column)):
        if number % every == 0:
            data = text.tobytes()
            for start, stop in itertools.pairwise(offsets.tolist()):
                yield from _short(data[start:stop].decode("utf-8"))


def _short(text: str) -> list[str]:
    """A text in pieces of about _PIECE characters, cut where a part ends, which does not change its
    codes."""
    if len(text) <= _PIECE:
        return [text] if text else []
    pieces, start = [], 0
    while len(text) - start > _PIECE:
        border = _BORDER.search(text, start + _PIECE)
        if border is None:
            break
        pieces.append(text[start : border.start()])
        start = border.start()
    return [*pieces, text[start:]]
