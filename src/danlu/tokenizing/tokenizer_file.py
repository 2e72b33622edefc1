"""A tokenizer from a tokenizer.json of the library tokenizers, with danlu's special tokens.

Special tokens of the file that mean the same as one of danlu's (<pad>, [UNK], <s>, [CLS], </s>,
[SEP], <|endoftext|>, [MASK], ...) get danlu's code for it; all other tokens follow from FIRST_TOKEN
on, in the order of the file. `file_codes` and `codes` map one to the other. The spelling of a
special token inside a text is ordinary text here. What the file says about tokens around a text,
padding and truncation is ignored: danlu has its own options for that."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from danlu.errors import DataError, MissingExtra
from danlu.reading.foreign_folder import read_inside
from danlu.terms import BEGINNING, END, FIRST_TOKEN, MASK, PADDING, UNKNOWN
from danlu.tokenizing.bpe import byte_letters
from danlu.tokenizing.tokenizer import Tokenizer
from danlu.tokenizing.tokenizer_json import MOST_CODES, check_tokenizer
from danlu.tokenizing.tokenizer_trial import refuse_harmful

LARGEST = 64 << 20  # bytes of a tokenizer.json
_PARTS = (  # names that play a part, the likeliest first
    (PADDING, ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>")),
    (UNKNOWN, ("<unk>", "[UNK]", "<|unk|>")),
    (BEGINNING, ("<s>", "[CLS]", "<bos>", "[BOS]", "<|begin_of_text|>", "<|startoftext|>")),
    (END, ("</s>", "[SEP]", "<eos>", "[EOS]", "<|end_of_text|>", "<|endoftext|>")),
    (MASK, ("<mask>", "[MASK]", "<|mask|>")),
)


class FileTokenizer(Tokenizer):
    """A tokenizer of the library tokenizers. `text` is the content of a tokenizer.json.

    file_codes   int64 (size,): the file's code for each of danlu's codes, -1 where there is none
    codes        int64 (largest code of the file + 1,): danlu's code for each code of the file, -1
                 where there is none
    """

    kind = "file"
    block = 1 << 20

    def __init__(self, text: str) -> None:
        self.text = text
        content = _checked(text)
        self._library = _parsed(text)
        names = {
            code: name for name, code in self._library.get_vocab(with_added_tokens=True).items()
        }
        if not names or min(names) < 0 or max(names) >= MOST_CODES:
            raise ValueError(f"its codes are not between 0 and {MOST_CODES:,}")
        special = {
            token["content"]: token["id"]
            for token in content.get("added_tokens") or ()
            if token.get("special")
        }
        parts = {
            code: next((special[name] for name in spellings if name in special), -1)
            for code, spellings in _PARTS
        }
        others = [code for code in sorted(names) if code not in parts.values()]
        self.file_codes = np.array(
            [*(parts[code] for code in range(FIRST_TOKEN)), *others], dtype=np.int64
        )
        self.codes = np.full(max(names) + 1, -1, dtype=np.int64)
        there = self.file_codes >= 0
        self.codes[self.file_codes[there]] = np.flatnonzero(there)
        super().__init__(len(self.file_codes))
        added = {token["id"] for token in content.get("added_tokens") or ()}
        self._bytes_of = _bytes_of(content, names, added, self.file_codes)

    @classmethod
    def read(cls, path: str) -> FileTokenizer:
        """The tokenizer in a file. DataError where it is too large or no tokenizer."""
        where = Path(path)
        try:
            return cls(read_inside(where.parent, where.name, LARGEST, links=True).decode("utf-8"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            cause = str(error).split("\n")[0].rstrip(".")[:160]
            hint = "give the tokenizer.json that the tokenizers library writes"
            raise DataError(
                f"this is no tokenizer that can be read ({cause}).", where=path, hint=hint
            ) from None

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> FileTokenizer:
        """The tokenizer that returned this `state`. ValueError for anything else."""
        text = state["text"]
        if not isinstance(text, str) or len(text) > LARGEST:
            raise ValueError("the tokenizer is no text")
        return cls(text)

    def state(self) -> dict[str, Any]:
        return {"kind": self.kind, "text": self.text}

    @property
    def byte_lengths(self) -> np.ndarray | None:
        if self._bytes_of is None:
            return None
        return np.array(
            [0] * FIRST_TOKEN + [len(piece) for piece in self._bytes_of[FIRST_TOKEN:]],
            dtype=np.int64,
        )

    def decode(self, codes: Sequence[int] | np.ndarray) -> str:
        if self._bytes_of is not None:
            return self.decode_bytes(codes).decode("utf-8", "replace")
        codes_in_file = self.file_codes[np.asarray(codes, dtype=np.int64)]
        return _called(
            self._library.decode,
            codes_in_file[codes_in_file >= 0].tolist(),
            skip_special_tokens=True,
        )

    def decode_bytes(self, codes: Sequence[int] | np.ndarray) -> bytes:
        if self._bytes_of is None:
            return self.decode(codes).encode("utf-8")
        return b"".join(map(self._bytes_of.__getitem__, np.asarray(codes, dtype=np.int64).tolist()))

    def _encode(self, text: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        data = text.tobytes()
        rows = [
            data[start:stop].decode("utf-8")
            for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist())
        ]
        encoded = _called(self._library.encode_batch_fast, rows, add_special_tokens=False)
        lists = [np.array(codes.ids, dtype=np.int64) for codes in encoded]
        counts = np.array([len(codes) for codes in lists], dtype=np.int64)
        return (self.codes[np.concatenate(lists)] if lists else np.zeros(0)).astype(
            self.dtype
        ), counts

    def _cut(self, text: bytes) -> int:
        return 0  # where its pieces end is not known, so a row is never cut


def _checked(text: str) -> Mapping[str, Any]:
    """The content of a tokenizer.json that does no harm. Raises ValueError for another one."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not check_tokenizer(content):
        _library()
        refuse_harmful(text)
    return content


def _called(function: Callable[..., Any], *arguments: object, **options: object) -> Any:
    """What a function of the library returns. Raises DataError where it fails: Rust's panics are
    no Exception."""
    try:
        return function(*arguments, **options)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        cause = str(error).split("\n")[0][:160].rstrip(".")
        raise DataError(
            f"the tokenizer cannot read a text: {cause}.",
            hint="give a tokenizer.json that the tokenizers library writes",
        ) from None


def _library() -> Any:
    try:
        import tokenizers
    except ImportError:
        raise MissingExtra("the library tokenizers", "text", "a given tokenizer") from None
    return tokenizers


def _parsed(text: str) -> Any:
    tokenizers = _library()
    try:
        library = tokenizers.Tokenizer.from_str(text)
        library.no_padding()
        library.no_truncation()
        library.post_processor = None  # even without special tokens it may repeat a text
        library.encode_special_tokens = (
            True  # what a user writes is text, even where it spells a special token
        )
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except (
        BaseException
    ) as error:  # the library raises plain Exception, and Rust's panics are no Exception
        raise ValueError(f"the tokenizers library says: {error}") from None
    return library


def _bytes_of(
    content: Mapping[str, Any], names: Mapping[int, str], added: set[int], file_codes: np.ndarray
) -> list[bytes] | None:
    """The bytes that each of danlu's codes stands for; None where the tokenizer is not
    byte-level."""
    if "ByteLevel" not in _types(content.get("decoder")):
        return None
    byte_of = {letter: value for value, letter in enumerate(byte_letters())}
    bytes_of = [b"", "\ufffd".encode(), b"", b"", b""]
    for code in file_codes[FIRST_TOKEN:].tolist():
        name = names[code]
        plain = code in added or not all(letter in byte_of for letter in name)
        bytes_of.append(
            name.encode("utf-8") if plain else bytes(byte_of[letter] for letter in name)
        )
    return bytes_of


def _types(part: Any) -> set[str]:
    """The types of a decoder and, for a sequence of decoders, of each of them."""
    if not isinstance(part, Mapping):
        return set()
    return {str(part.get("type"))}.union(
        *(_types(part_of) for part_of in part.get("decoders") or ())
    )
