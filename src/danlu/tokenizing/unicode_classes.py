"""Arrays of Unicode code points: the class of each, its lower case, UTF-8 and back.

GAP     between words (white space, control characters)
LETTER  part of a word
ALONE   a word of its own: each character of scripts without spaces between words (Chinese,
        Japanese, Thai, ...), each emoji
MARK    punctuation and symbols"""

from __future__ import annotations

import functools
import unicodedata

import numpy as np

GAP, LETTER, ALONE, MARK = 0, 1, 2, 3  # between words, in a word, a word by itself, punctuation
CODE_POINTS = 0x110000
UNSPACED = (  # first and last code point of scripts written without spaces
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x2FDF),  # CJK radicals
    (0x3005, 0x3007),
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),  # CJK
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
)


def code_points(text: np.ndarray) -> np.ndarray:
    """The code point of each character of UTF-8 bytes (uint8), uint32.

    >>> code_points(np.frombuffer("aé".encode(), np.uint8)).tolist()
    [97, 233]
    """
    return np.frombuffer(text.tobytes().decode("utf-8").encode("utf-32-le"), dtype="<u4")


def utf8(codes: np.ndarray) -> np.ndarray:
    """The UTF-8 bytes of code points, uint8.

    >>> utf8(np.array([97, 233])).tobytes().decode()
    'aé'
    """
    return np.frombuffer(
        codes.astype("<u4").tobytes().decode("utf-32-le").encode("utf-8"), dtype=np.uint8
    )


def widths(codes: np.ndarray) -> np.ndarray:
    """How many bytes of UTF-8 each code point takes (1 to 4), int64.

    >>> widths(np.array([0x61, 0xE9, 0x706B, 0x1F600])).tolist()
    [1, 2, 3, 4]
    """
    return 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)


def lower_and_class(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the lower case of each code point, always one code point; its class: GAP, LETTER, ALONE or
    MARK).

    >>> lower, kind = lower_and_class(np.array([ord("A"), ord(" "), ord("火"), ord("!")]))
    >>> chr(lower[0]), kind.tolist()
    ('a', [1, 0, 2, 3])
    """
    if not len(codes) or codes.max() < 0x80:
        lower, kind = _tables(0x80)
        return lower[codes], kind[codes]
    lower, kind = _tables(0x10000)
    basic = codes < 0x10000
    if basic.all():
        return lower[codes], kind[codes]
    inside = np.where(basic, codes, 0)
    beyond = np.where(
        codes >= 0x1F000, ALONE, LETTER
    )  # emoji and rare Chinese characters; ancient and rare alphabets
    return np.where(basic, lower[inside], codes.astype(np.int64)), np.where(
        basic, kind[inside], beyond
    ).astype(kind.dtype)


@functools.cache
def _tables(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower case and class of the first `size` code points."""
    letters = [chr(code) for code in range(size)]
    lower = np.array([ord(letter.lower()[0]) for letter in letters], dtype=np.int64)
    kinds = {"L": LETTER, "M": LETTER, "N": LETTER, "Z": GAP, "C": GAP}
    kind = np.array(
        [kinds.get(unicodedata.category(letter)[0], MARK) for letter in letters], dtype=np.int8
    )
    for first, last in UNSPACED:
        kind[first : last + 1][kind[first : last + 1] == LETTER] = ALONE
    return lower, kind
