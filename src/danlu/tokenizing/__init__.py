"""Text to codes and back: characters, bytes, words, byte pairs, or a tokenizer that is given.

    tokenizer = tokenizing.fit("bpe", column, size=4096)
    codes, offsets = tokenizer.encode(column)        flat uint16 or uint32; row i is codes[offsets[i]:offsets[i+1]]
    tokenizer.decode(codes[:7])                      text
    tokenizing.restore(tokenizer.state())            an equal one, from JSON values

Codes 0 to 4 are danlu's own in every kind (danlu.terms: PADDING, UNKNOWN, BEGINNING, END, MASK); a
vocabulary's entries follow. See danlu.tokenizing.tokenizer.Tokenizer for what all kinds offer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from danlu.errors import ArtifactError
from danlu.terms import Column
from danlu.tokenizing.tokenizer import Tokenizer

Kind = Literal["characters", "bytes", "words", "bpe", "file"]
KINDS: tuple[Kind, ...] = get_args(Kind)
USUAL_SIZE = {"words": 32_768, "bpe": 8192}  # codes where nothing is said
USUAL_COUNT = {"words": 2, "bpe": 2}  # how often a word, or pair, must be seen


def fit(
    kind: Kind,
    column: Column,
    size: int | None = None,
    lower: bool = False,
    min_count: int | None = None,
    path: str | None = None,
) -> Tokenizer:
    """The tokenizer of a kind, learnt from the rows of a text column.

    size        codes at most, danlu's five among them (None: 32,768 words, 8,192 byte pairs, every character)
    lower       text is put into lower case first (not for a file, which says so itself)
    min_count   how often a character, word or pair must be seen (None: words and pairs twice)
    path        the tokenizer.json of kind file, or the folder of an artifact (or run) whose tokenizer is taken
    Raises MissingExtra where bpe or file find no library tokenizers, DataError where the file is
    none."""
    size = USUAL_SIZE.get(kind) if size is None else size
    least = USUAL_COUNT.get(kind, 1) if min_count is None else min_count
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
    """The tokenizer of a tokenizer.json, or of an artifact."""
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
    """The tokenizer whose `state` this is. ValueError (or KeyError, TypeError) where it is none."""
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
