"""What a tokenizer.json may ask of the library tokenizers, checked before the library reads it.

Anybody may have written the file, and the library runs it as a program: patterns are matched by
backtracking, replacements are repeated, ids size tables. A file that is out of bounds is refused.
A file whose every step is known to be harmless is read at once; another one is tried in a process
of its own first (`tokenizer_trial`)."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Any

from danlu.tokenizing.pattern_cost import check_pattern

MOST_CODES = 1 << 22
_DEEPEST = 24  # steps inside each other
_MOST_STEPS = 200
_LONGEST_TOKEN, _LONGEST_TEXT = 8192, 1024  # letters of a token, and of a replacement
_LARGEST_MAP, _LONGEST_MAPPED = 4 << 20, 256  # bytes of a map, and of what it makes of a character
_MOST_GROWTH = 64  # letters that the steps make of one letter
_MOST_ADDED = 1 << 17
_MOST_LETTERS = 10_000  # max_input_chars_per_word of word pieces, whose cost grows as its square


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Steps that take each letter once and keep no table of the file.
_HARMLESS = {
    "normalizer": _words(
        "BertNormalizer ByteLevel Lowercase NFC NFD NFKC NFKD Nmt Prepend Replace Sequence Strip "
        "StripAccents"
    ),
    "pre_tokenizer": _words(
        "BertPreTokenizer ByteLevel CharDelimiterSplit Digits Metaspace Punctuation Sequence Split "
        "UnicodeScripts Whitespace WhitespaceSplit"
    ),
    "decoder": _words(
        "BPEDecoder ByteFallback ByteLevel CTC Fuse Metaspace Replace Sequence Strip WordPiece"
    ),
    "post_processor": _words(
        "BertProcessing ByteLevel RobertaProcessing Sequence TemplateProcessing"
    ),
}
_MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
_NESTED = ("normalizers", "pretokenizers", "decoders", "processors")


def check_tokenizer(content: object) -> bool:
    """Whether every step of a tokenizer.json is known to be harmless. Raises ValueError naming the
    key that no tokenizer needs.

    >>> check_tokenizer({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}})
    True
    >>> check_tokenizer({"model": {"type": "WordLevel", "vocab": {"a": 10**9}}})
    Traceback (most recent call last):
    ValueError: model.vocab gives 'a' the code 1000000000, and a code is below 4,194,304
    """
    if not isinstance(content, Mapping):
        raise ValueError("it holds no mapping")
    harmless = _check_model(content.get("model"))
    _check_added(content.get("added_tokens"))
    for key, known in _HARMLESS.items():
        growth = 1.0
        for number, (path, step) in enumerate(_steps(content.get(key), key)):
            if number == _MOST_STEPS:
                raise ValueError(f"{key} has more than {_MOST_STEPS} steps")
            harmless &= step.get("type") in known
            harmless &= _check_step(path, step)
            growth *= _growth(step)
        if key in ("normalizer", "decoder") and growth > _MOST_GROWTH:
            raise ValueError(
                f"{key} makes up to {growth:,.0f} letters of one, and at most {_MOST_GROWTH} are "
                "allowed"
            )
    return harmless


def _steps(step: object, path: str, depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(its place in the file, the step) of a step and of all steps inside it."""
    if step is None:
        return
    if not isinstance(step, Mapping):
        raise ValueError(f"{path} must be a mapping")
    if depth > _DEEPEST:
        raise ValueError(f"{path.split('.')[0]} is nested too deeply")
    yield path, step
    for key in _NESTED:
        inner = step.get(key)
        if inner is None:
            continue
        if not isinstance(inner, list):
            raise ValueError(f"{path}.{key} must be a list")
        for number, child in enumerate(inner):
            yield from _steps(child, f"{path}.{key}.{number}", depth + 1)


def _check_step(path: str, step: Mapping[str, Any]) -> bool:
    """Whether a step is harmless. Raises ValueError for one that is out of bounds."""
    for key, value in step.items():
        if isinstance(value, str) and key != "precompiled_charsmap":
            _check_text(f"{path}.{key}", value)
        if isinstance(value, int | float) and not 0 <= value <= _LONGEST_TEXT:
            raise ValueError(
                f"{path}.{key} must be a number from 0 to {_LONGEST_TEXT:,}, and is {value}"
            )
    if step.get("type") == "Precompiled":
        _check_character_map(path, step.get("precompiled_charsmap"))
    pattern = step.get("pattern")
    if pattern is None:
        return True
    if not isinstance(pattern, Mapping) or len(pattern) != 1:
        raise ValueError(f"{path}.pattern must hold String or Regex")
    (kind, text), *_ = pattern.items()
    if kind not in ("String", "Regex") or not isinstance(text, str) or not text:
        raise ValueError(f"{path}.pattern must hold a String or a Regex that is not empty")
    if kind == "String":
        _check_text(f"{path}.pattern", text)
        return True
    try:
        return check_pattern(text)
    except ValueError as error:
        raise ValueError(f"{path}.pattern.Regex {error}") from None


def _check_character_map(path: str, text: object) -> None:
    """Raise ValueError where a SentencePiece map of characters is not one, or makes a long text of
    a character: the size of a trie, the trie, and the texts that it leads to, each ended by 0."""
    try:
        data = base64.b64decode(str(text or ""), validate=True)
        size = int.from_bytes(data[:4], "little")
        if len(data) > _LARGEST_MAP or len(data) < 8 or size % 4 or size > len(data) - 4:
            raise ValueError("its parts do not fit")
        longest = max(map(len, data[4 + size :].split(b"\0")))
        if longest > _LONGEST_MAPPED:
            raise ValueError(f"it makes {longest:,} bytes of one character")
    except ValueError as error:
        raise ValueError(f"{path}.precompiled_charsmap is no map of characters: {error}") from None


def _check_text(path: str, text: str) -> None:
    if len(text) > _LONGEST_TEXT:
        raise ValueError(
            f"{path} has {len(text):,} letters, and at most {_LONGEST_TEXT:,} are read"
        )


def _growth(step: Mapping[str, Any]) -> float:
    """Letters that a step makes of one letter, at most."""
    if step.get("type") != "Replace":
        return 1.0
    pattern, content = step.get("pattern") or {}, str(step.get("content", ""))
    least = len(pattern.get("String", "")) or 1
    return max(1.0, len(content) / least)


# --- the model and its tokens ---------------------------------------------------------------------


def _check_model(model: object) -> bool:
    if not isinstance(model, Mapping):
        raise ValueError("model must be a mapping")
    kind = model.get("type")
    vocabulary = model.get("vocab")
    if kind == "Unigram" or isinstance(vocabulary, list):
        _check_pieces(vocabulary, model.get("unk_id"))
    else:
        _check_vocabulary(vocabulary)
    for key in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key) is not None:
            if not isinstance(model[key], str):
                raise ValueError(f"model.{key} must be a text")
            _check_text(f"model.{key}", model[key])
    if model.get("dropout"):
        raise ValueError(
            f"model.dropout is {str(model['dropout'])[:40]}, and one text must have one list of "
            "tokens"
        )
    letters = model.get("max_input_chars_per_word", 100)
    if type(letters) is not int or not 1 <= letters <= _MOST_LETTERS:
        raise ValueError(
            f"model.max_input_chars_per_word must be a whole number from 1 to {_MOST_LETTERS:,}, "
            f"and is {str(letters)[:40]}"
        )
    merges = model.get("merges", [])
    if not isinstance(merges, list) or len(merges) > MOST_CODES:
        raise ValueError(f"model.merges must be a list of at most {MOST_CODES:,} pairs")
    return kind in _MODELS


def _check_vocabulary(vocabulary: object) -> None:
    """Raise ValueError where a vocabulary does not give each token a code of its own."""
    if not isinstance(vocabulary, Mapping):
        raise ValueError("model.vocab must be a mapping of tokens to codes")
    codes = vocabulary.values()
    if not all(type(code) is int and 0 <= code < MOST_CODES for code in codes):
        token, code = next(
            (token, code)
            for token, code in vocabulary.items()
            if type(code) is not int or not 0 <= code < MOST_CODES
        )
        raise ValueError(
            f"model.vocab gives {token[:40]!r} the code {str(code)[:40]}, and a code is below "
            f"{MOST_CODES:,}"
        )
    if len(set(codes)) != len(vocabulary):
        raise ValueError("model.vocab gives two tokens the same code")
    if max(map(len, vocabulary), default=0) > _LONGEST_TOKEN:
        raise ValueError(f"model.vocab has a token of more than {_LONGEST_TOKEN:,} letters")


def _check_pieces(pieces: object, unknown: object) -> None:
    """Raise ValueError where a list is none of pieces and their scores."""
    if not isinstance(pieces, list) or not 0 < len(pieces) <= MOST_CODES:
        raise ValueError(f"model.vocab must be a list of 1 to {MOST_CODES:,} pieces")
    for piece in pieces:
        sound = (
            isinstance(piece, list)
            and len(piece) == 2
            and isinstance(piece[0], str)
            and len(piece[0]) <= _LONGEST_TOKEN
            and type(piece[1]) in (int, float)
            and math.isfinite(piece[1])
        )
        if not sound:
            raise ValueError(
                f"model.vocab must hold pieces and their scores, and holds {str(piece)[:60]}"
            )
    if unknown is not None and (type(unknown) is not int or not 0 <= unknown < len(pieces)):
        raise ValueError(f"model.unk_id must be the number of a piece, and is {str(unknown)[:40]}")


def _check_added(tokens: object) -> None:
    if tokens is None:
        return
    if not isinstance(tokens, list) or len(tokens) > _MOST_ADDED:
        raise ValueError(f"added_tokens must be a list of at most {_MOST_ADDED:,} tokens")
    for number, token in enumerate(tokens):
        if not isinstance(token, Mapping):
            raise ValueError(f"added_tokens.{number} must be a mapping")
        code, content = token.get("id"), token.get("content")
        if type(code) is not int or not 0 <= code < MOST_CODES:
            raise ValueError(
                f"added_tokens.{number}.id must be a code below {MOST_CODES:,}, and is "
                f"{str(code)[:40]}"
            )
        if not isinstance(content, str) or not 0 < len(content) <= _LONGEST_TOKEN:
            raise ValueError(
                f"added_tokens.{number}.content must be a text of 1 to {_LONGEST_TOKEN:,} letters"
            )


__all__ = ["MOST_CODES", "check_tokenizer"]
