"""Text to codes and back: characters, bytes, words, byte pairs, or an existing tokenizer.

    tokenizer = tokenizing.fit("bpe", column, size=4096)
    codes, offsets = tokenizer.encode(column)   row i is codes[offsets[i]:offsets[i+1]]
    tokenizer.decode(codes[:7])                 text
    tokenizing.restore(tokenizer.state())       an equal tokenizer, from JSON values

Codes 0 to 4 are danlu's special tokens in every kind (danlu.terms: PADDING, UNKNOWN, BEGINNING,
END, MASK); the entries of the vocabulary follow. danlu.tokenizing.tokenizer.Tokenizer says what
every kind offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from danlu.errors import ArtifactError
from danlu.terms import Column
from danlu.tokenizing.tokenizer import Tokenizer

Kind = Literal["characters", "bytes", "words", "bpe", "file"]
KINDS: tuple[Kind, ...] = get_args(Kind)
DEFAULT_SIZE = {"words": 32_768, "bpe": 8192}  # number of codes
DEFAULT_MIN_COUNT = {"words": 2, "bpe": 2}  # how often a word, or pair, must occur


def fit(
    kind: Kind,
    column: Column,
    size: int | None = None,
    lower: bool = False,
    min_count: int | None = None,
    path: str | None = None,
) -> Tokenizer:
    """A tokenizer of a kind, trained on the rows of a text column.

    size        the largest number of codes, danlu's five special tokens included (None: 32,768 for
                words, 8,192 for byte pairs, no limit for characters)
    lower       whether text is lower-cased first (not for "file", whose tokenizer.json says so)
    min_count   how often a character, word or pair must occur (None: words and pairs twice)
    path        for "file": a tokenizer.json, or the folder of an artifact (or run) whose tokenizer
                is used
    Raises MissingExtra where "bpe" or "file" do not find the library tokenizers, DataError or
    ArtifactError where `path` holds no usable tokenizer.

    >>> from danlu.tokenizing.tokenizer import as_column
    >>> tokenizer = fit("characters", as_column(["abba"]))
    >>> codes, offsets = tokenizer.encode(["ab", "c"])
    >>> codes.tolist(), offsets.tolist(), tokenizer.decode(codes[:2])
    ([5, 6, 1], [0, 2, 3], 'ab')
    """
    size = DEFAULT_SIZE.get(kind) if size is None else size
    least = DEFAULT_MIN_COUNT.get(kind, 1) if min_count is None else min_count
    if kind == "characters":
        from danlu.tokenizing.characters import Characters

        return Characters.fit(column, size, lower, least)
    if kind == "words":
        from danlu.tokenizing.words import Words

        return Words.fit(column, size, lower, least)
    if kind == "bpe":
        from danlu.tokenizing.bpe import BytePairs

        assert size is not None
        return BytePairs.fit(column, size, lower, least)
    if kind == "file":
        return _of_file(path)
    from danlu.tokenizing.bytes import Bytes

    return Bytes(lower)


def _of_file(path: str | None) -> Tokenizer:
    """The tokenizer of a tokenizer.json file, or of an artifact's folder."""
    from danlu.tokenizing.from_artifact import input_tokenizer_state, is_artifact
    from danlu.tokenizing.tokenizer_file import FileTokenizer

    if path is None:
        raise ValueError("a tokenizer of kind file needs a path")
    if not is_artifact(path):
        return FileTokenizer.read(path)
    state = input_tokenizer_state(path)
    if state is None:
        raise ArtifactError(
            "this artifact has not exactly one tokenizer.", where=path, hint="name a tokenizer.json"
        )
    try:
        return restore(state)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ArtifactError(
            f"its tokenizer is damaged: {type(error).__name__}: {error}.", where=path
        ) from None


def restore(state: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that returned this `state`. ValueError, KeyError or TypeError for anything
    else.

    >>> restore({"kind": "bytes", "lower": False}).decode([77, 110])
    'Hi'
    """
    kind = state["kind"]
    if kind == "characters":
        from danlu.tokenizing.characters import Characters

        return Characters.restore(state)
    if kind == "words":
        from danlu.tokenizing.words import Words

        return Words.restore(state)
    if kind == "bpe":
        from danlu.tokenizing.bpe import BytePairs

        return BytePairs.restore(state)
    if kind == "file":
        from danlu.tokenizing.tokenizer_file import FileTokenizer

        return FileTokenizer.restore(state)
    if kind == "bytes":
        from danlu.tokenizing.bytes import Bytes

        return Bytes.restore(state)
    raise ValueError(f"{kind!r} is no kind of tokenizer")


__all__ = ["KINDS", "Kind", "Tokenizer", "fit", "restore"]
