"""Pre-tokenization: a text divided into the parts that no byte pair may cross, a block at a time.

The regular expression PRETOKEN_PATTERN is the definition. `pretoken_starts` finds the same parts
with array operations, many times faster, for rows whose characters all have a class known here;
`classify` tells which rows those are (nearly all text: Latin, Greek, Cyrillic, Chinese, Japanese,
Korean, punctuation, emoji)."""

from __future__ import annotations

import functools

import numpy as np

from danlu.tokenizing import unicode_classes

PRETOKEN_PATTERN = (
    r" ?[\p{L}\p{M}&&[^\p{Han}]]+| ?\p{Han}+| ?\p{N}| "
    r"?[^\s\p{L}\p{M}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CLASSES = (r"[\p{L}\p{M}&&[^\p{Han}]]+", r"\p{Han}+", r"\p{N}+", r"\s+", r"[\r\n]+")
_UNSURE, _LETTER, _HAN, _DIGIT, _SPACE, _END, _OTHER = 0, 1, 2, 3, 4, 5, 6
# Ranges of code points: first, and one past the last. The library's regular expressions give the
# classes in _ASKED. No version of Unicode changes those in _FIXED (Han and Hangul as first encoded,
# symbols that are neither letters nor digits).
_ASKED = (
    (0, 0x530),
    (0x2000, 0x2070),
    (0x20A0, 0x20D0),
    (0x2100, 0x27C0),
    (0x3000, 0x3100),
    (0xFE30, 0xFE50),
    (0xFF00, 0xFFF0),
)
_FIXED = (
    (0x3400, 0x4DB6, _HAN),
    (0x4E00, 0x9FA6, _HAN),
    (0xAC00, 0xD7A4, _LETTER),
    (0x1F300, 0x1F700, _OTHER),
    (0x1F900, 0x1FA00, _OTHER),
)


@functools.cache
def _class_of() -> np.ndarray:
    """The class of each code point below 0x20000, int8; the last entry is for all others."""
    from tokenizers import Regex, pre_tokenizers

    table = np.zeros(0x20001, dtype=np.int8)
    code_points = np.concatenate([np.arange(*bounds) for bounds in _ASKED])
    text = "".join(map(chr, code_points.tolist()))
    classes = np.full(len(code_points), _OTHER, dtype=np.int8)
    for kind, pattern in enumerate(_CLASSES, start=_LETTER):
        inside = np.ones(len(code_points), dtype=bool)
        for _, (start, stop) in pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(
            text
        ):
            inside[start:stop] = False
        classes[inside & ((classes == _OTHER) | (kind == _END))] = (
            kind  # 〇 is Han and a digit: the first alternative takes it
        )
    table[code_points] = classes
    for start, stop, kind in _FIXED:
        table[start:stop] = kind
    return table


def classify(text: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of rows of UTF-8 bytes: (bool (rows,), whether `pretoken_starts` handles the row; the class
    of each character, int8; the first character of each row, and the total, (rows + 1,)).

    >>> text = np.frombuffer("a 1".encode(), np.uint8)
    >>> handled, kind, ends = classify(text, np.array([0, 3]))
    >>> handled.tolist(), kind.tolist(), ends.tolist()
    ([True], [1, 4, 3], [0, 3])
    """
    codes = unicode_classes.code_points(text)
    kind = _class_of().take(codes, mode="clip")
    ends = np.concatenate([[0], np.cumsum((text & 0xC0) != 0x80)])[offsets]
    unsure = np.concatenate([[0], np.cumsum(kind == _UNSURE)])
    return unsure[ends[1:]] == unsure[ends[:-1]], kind, ends


def pretoken_starts(text: np.ndarray, kind: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which characters begin a part, bool (characters,). `text` are UTF-8 bytes; `kind` and `ends`
    are what `classify` returns.

    A run of characters of one class is a part; a digit is a part of its own. Of a run of white
    space, what reaches to its last line end is one part, and the rest but for its last character
    another; the last character joins the next part where it is a plain space, else it is a part of
    its own.

    >>> text = np.frombuffer("a  b12".encode(), np.uint8)
    >>> pretoken_starts(text, *classify(text, np.array([0, 6]))[1:]).astype(int).tolist()
    [1, 1, 1, 0, 1, 1]
    """
    count = len(kind)
    if not count:
        return np.zeros(0, dtype=bool)
    row = np.zeros(count + 1, dtype=bool)
    row[ends] = True
    row = row[:-1]
    white = (kind == _SPACE) | (kind == _END)
    changes = np.ones(count, dtype=bool)
    changes[1:] = (kind[1:] != kind[:-1]) & ~(white[1:] & white[:-1])
    changes |= row
    starts = changes | (kind == _DIGIT)
    plain = (text[(text & 0xC0) != 0x80] == 0x20) & (kind == _SPACE)
    joins = np.zeros(count, dtype=bool)
    joins[1:] = plain[:-1] & ~white[1:] & ~row[1:]
    starts &= ~joins
    # within a run of spaces: after its last line end, and before its last space where something
    # else follows in the row
    run = np.cumsum(changes) - 1
    newline = np.flatnonzero(kind == _END)
    last = np.full(int(run[-1]) + 1, -1, dtype=np.int64)
    last[run[newline]] = newline
    after = last[last >= 0] + 1
    after = after[after < count]
    starts[after[white[after]]] = True
    follows = np.zeros(count, dtype=bool)
    follows[:-1] = white[:-1] & ~white[1:] & ~row[1:]
    starts |= follows & (kind == _SPACE)
    return starts
