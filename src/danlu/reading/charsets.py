"""Bytes to text: which character encoding a file is in.

A byte order mark decides. Without one, the positions of zero bytes tell UTF-16 and UTF-32. Else a
file that is valid UTF-8 is UTF-8. Older encodings carry no mark: the bytes beyond ASCII are decoded
under each of them, and the encoding under which they are most probable is chosen. (A Chinese text
read as GB18030 consists of common characters; read as Latin-1, it consists of runs of accented
letters, which no language has.) Where two encodings are too close, danlu does not guess: the error
asks for the option `encoding`."""

from __future__ import annotations

import codecs
import functools
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import AfterValidator

from danlu.errors import DataError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SAMPLE = 2**18  # bytes, from the first one beyond ASCII on, whose probability is computed
_MARGIN = 3.0  # nats by which the most probable encoding must lead; one accented letter leads by 4
_NO_TEXT = {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"}


def _checked_encoding(name: str) -> str:
    if name == "auto":
        return name
    try:
        codec = codecs.lookup(name)
    except (LookupError, ValueError):
        raise ValueError(
            "must be auto or an encoding Python knows (utf-8, utf-16, gb18030, big5, cp1252, ...)"
        ) from None
    # only this private attribute of Python's codecs tells base64 and its like from encodings of
    # texts
    is_text = getattr(codec, "_is_text_encoding", True)
    if not is_text or codec.name.replace("-", "_") in _NO_TEXT:
        raise ValueError("must be the encoding of a text")
    return name


Encoding = Annotated[str, AfterValidator(_checked_encoding)]


@dataclass(frozen=True)
class DecodedText:
    """A decoded text.

    content    the text as UTF-8, without a byte order mark
    encoding   the encoding of the file
    reason     why this encoding was chosen, for the report; "" for plain UTF-8"""

    content: bytes
    encoding: str
    reason: str


def decode_text(content: bytes, where: str, encoding: str = "auto") -> DecodedText:
    """The text of a file's bytes; messages call the file `where`.

    DataError naming line and byte where the bytes are not valid in `encoding`, or where "auto"
    finds no encoding that is clearly the most probable.

    >>> decode_text("火".encode("utf-16"), "a.txt").reason
    'a byte order mark says so'
    >>> decode_text(b"caf\\xe9", "a.txt", "latin-1").content.decode()
    'café'
    """
    declared = declared_encoding(content, encoding)
    if declared is not None:
        name, mark, reason = declared
        return DecodedText(_strictly(content[mark:], name, where, mark), name, reason)
    try:
        content.decode("utf-8")
        return DecodedText(content, "utf-8", "")
    except UnicodeDecodeError as error:
        name, reason = guess_encoding(content, error.start, where)
    return DecodedText(_strictly(content, name, where, 0), name, reason)


def declared_encoding(head: bytes, encoding: str = "auto") -> tuple[str, int, str] | None:
    """(encoding, length of the byte order mark in bytes, reason), from the recipe's `encoding`, or
    from a mark or zero bytes in the `head` of a file; None where none of them tells.

    >>> declared_encoding(b"\\xef\\xbb\\xbfabc")
    ('utf-8', 3, 'a byte order mark says so')
    >>> declared_encoding(b"abc") is None
    True
    """
    if encoding != "auto":
        plain = codecs.lookup(encoding).name
        mark = next(
            (
                mark
                for mark, name in _MARKS
                if head.startswith(mark) and name.startswith(plain.removesuffix("-sig"))
            ),
            b"",
        )
        if mark and plain in ("utf-16", "utf-32"):
            plain = next(name for bytes_of_mark, name in _MARKS if bytes_of_mark == mark)
        return plain, len(mark), "the recipe says so"
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark), "a byte order mark says so"
    wide = _by_zeros(head)
    if wide:
        return (
            wide,
            0,
            "every other byte is zero" if "16" in wide else "three of four bytes are zero",
        )
    return None


def guess_encoding(
    content: bytes, start: int, where: str, lines_before: int = 0, bytes_before: int = 0
) -> tuple[str, str]:
    """(the most probable encoding, why) of content whose byte `start` is the first that is not
    valid UTF-8.

    `lines_before` and `bytes_before` count what precedes `content` in the file, for the messages.
    DataError where no encoding is clearly the most probable.

    >>> guess_encoding("Привет, мир".encode("cp1251"), 0, "a.txt")[0]
    'cp1251'
    """
    line = _line(content, start) + lines_before
    name = _most_probable(
        content, where, start, f"line {line:,} (byte {start + bytes_before + 1:,})"
    )
    return name, f"line {line:,} is not UTF-8, and the characters fit {name} best"


def _line(content: bytes, position: int) -> int:
    """The 1-based line number of a byte; lines end in LF, CR LF or, in a file without LF, CR."""
    return content.count(b"\n" if b"\n" in content else b"\r", 0, position) + 1


def _strictly(content: bytes, encoding: str, where: str, skipped: int) -> bytes:
    if encoding == "utf-8":
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _wrong(content, error, "utf-8", where, skipped) from None
        return content
    try:
        return content.decode(encoding).encode("utf-8")
    except UnicodeDecodeError as error:
        raise _wrong(content, error, encoding, where, skipped) from None
    except UnicodeEncodeError:
        raise DataError(
            f"read as {encoding} the file holds half of a surrogate pair.",
            where=where,
            hint="set data.source.encoding",
        ) from None


def _wrong(
    content: bytes, error: UnicodeDecodeError, encoding: str, where: str, skipped: int
) -> DataError:
    newline = (
        "\n".encode(encoding.removesuffix("-sig"))
        if encoding.startswith(("utf-16-", "utf-32-"))
        else b"\n"
    )
    line = content.count(newline, 0, error.start) + 1
    shown = content[error.start : error.start + 4].hex(" ")
    return DataError(
        f"line {line:,} (byte {error.start + skipped + 1:,}: {shown}) is not {encoding}.",
        where=where,
        hint="set data.source.encoding to the encoding the file was saved in, or save it as UTF-8",
    )


def _by_zeros(content: bytes) -> str:
    """UTF-16 or UTF-32 without a mark, by the positions of the zero bytes of ASCII characters; ''
    for neither."""
    sample = np.frombuffer(content[: min(len(content), 2**16) // 4 * 4], dtype=np.uint8)
    if len(sample) < 8 or not (sample == 0).any():
        return ""
    zeros = (sample.reshape(-1, 4) == 0).mean(axis=0)
    if zeros[1] > 0.7 and zeros[2] > 0.9 and zeros[3] > 0.9 and zeros[0] < 0.1:
        return "utf-32-le"
    if zeros[0] > 0.9 and zeros[1] > 0.9 and zeros[2] > 0.7 and zeros[3] < 0.1:
        return "utf-32-be"
    if min(zeros[1], zeros[3]) > 0.3 and max(zeros[0], zeros[2]) < 0.05:
        return "utf-16-le"
    if min(zeros[0], zeros[2]) > 0.3 and max(zeros[1], zeros[3]) < 0.05:
        return "utf-16-be"
    return ""


# --- encodings without a mark ---------------------------------------------------------------------

# Double-byte encodings: (name, lead bytes and trail bytes of the characters in common use, share of
# a text they make up).
_DOUBLE = (
    ("gb18030", [(0xB0, 0xD7, 0xA1, 0xFE), (0xA1, 0xA3, 0xA1, 0xFE)]),
    ("big5hkscs", [(0xA4, 0xC6, 0x40, 0xFE), (0xA1, 0xA3, 0x40, 0xFE)]),
    (
        "cp932",
        [
            (0x82, 0x82, 0x9F, 0xF1),
            (0x83, 0x83, 0x40, 0x96),
            (0x81, 0x81, 0x40, 0x7E),
            (0x88, 0x97, 0x40, 0xFC),
        ],
    ),
    ("cp949", [(0xB0, 0xC8, 0xA1, 0xFE), (0xA1, 0xA3, 0xA1, 0xFE)]),
    ("euc_jp", [(0xA4, 0xA5, 0xA1, 0xF6), (0xB0, 0xCF, 0xA1, 0xFE), (0xA1, 0xA1, 0xA1, 0xFE)]),
)
_LETTER = -4.1  # log probability of one ASCII letter: the price of a second byte that is ASCII
_ACCENTED = "áéíóúàèìòùâêîôûäëïöüñçãõåæøßÁÉÍÓÚÀÈÌÒÙÂÊÎÔÛÄËÏÖÜÑÇÃÕÅÆØ¿¡«»°’‘“”–—…€´·ºª§£®©"
_CYRILLIC = "".join(chr(code) for code in range(0x410, 0x450)) + "ёЁ«»—–№"
_SINGLE = (("cp1252", _ACCENTED, (0.04, 0.7, 0.26)), ("cp1251", _CYRILLIC, (0.8, 0.005, 0.195)))
_PRIOR = {
    "gb18030": 2.0,
    "cp1252": 2.0,
}  # nats: how much more often files come in these than in the others
_PLAUSIBLE = 0.8  # least share of characters in common use for an encoding to be considered


def _most_probable(content: bytes, where: str, start: int, position: str) -> str:
    sample = _beyond_ascii(content, start)
    scores: dict[str, tuple[float, float]] = {}
    for name, _ in _DOUBLE:
        if _valid(content, name):
            scores[name] = _score_double(sample, name)
    for name, letters, following in _SINGLE:
        if _valid(content, name):
            scores[name] = _score_single(sample, name, letters, following)
    order = sorted(scores, key=lambda name: scores[name][0] + _PRIOR.get(name, 0.0), reverse=True)
    lead = scores[order[0]][0] + _PRIOR.get(order[0], 0.0) if order else 0.0
    next_best = scores[order[1]][0] + _PRIOR.get(order[1], 0.0) if len(order) > 1 else -np.inf
    if order and scores[order[0]][1] >= _PLAUSIBLE and lead - next_best >= _MARGIN:
        return order[0]
    order = [name for name in order if scores[name][1] >= _PLAUSIBLE]
    may = f"; it may be {' or '.join(order[:3])}" if order else ""
    raise DataError(
        f"{position} is not UTF-8, and no other encoding is clearly the right one{may}.",
        where=where,
        hint="set data.source.encoding, or save the file as UTF-8",
    )


def _valid(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _beyond_ascii(content: bytes, start: int) -> bytes:
    """About _SAMPLE bytes of the file from the first line with bytes beyond ASCII on; they begin
    and end at line ends, so that no character is cut."""
    begin = content.rfind(b"\n", 0, start) + 1
    if len(content) - begin <= _SAMPLE:
        return content[begin:]
    end = content.find(b"\n", begin + _SAMPLE)
    return content[begin : end if end >= 0 else len(content)]


@functools.cache
def _common(name: str) -> frozenset[str]:
    """The characters of a double-byte encoding that are in common use."""
    blocks = dict(_DOUBLE)[name]
    letters = set()
    for lead_from, lead_to, trail_from, trail_to in blocks:
        for lead in range(lead_from, lead_to + 1):
            for trail in range(trail_from, trail_to + 1):
                try:
                    letters.add(bytes([lead, trail]).decode(name))
                except UnicodeDecodeError:
                    continue
    return frozenset(letters)


def _score_double(sample: bytes, name: str) -> tuple[float, float]:
    """(log probability of the bytes beyond ASCII in nats, share of characters in common use, 0..1)
    under a double-byte encoding."""
    text = sample.decode(name, errors="replace")
    common = _common(name)
    wide = [letter for letter in text if ord(letter) > 127]
    usual = sum(letter in common for letter in wide)
    score = usual * np.log(0.97 / len(common)) + (len(wide) - usual) * np.log(0.03 / 20_000)
    spent = len(sample) - (len(text) - len(wide))  # bytes that wide characters take
    beyond = sum(byte > 127 for byte in sample)
    return float(score - (spent - beyond) * _LETTER), usual / max(
        len(wide), 1
    )  # a second byte in ASCII is no letter to explain


def _score_single(
    sample: bytes, name: str, letters: str, following: tuple[float, float, float]
) -> tuple[float, float]:
    """The same under a one-byte encoding. `following`: how often (0..1) a letter beyond ASCII is
    followed by another one, by an ASCII letter, and by anything else."""
    codes = np.frombuffer(sample, dtype=np.uint8)
    high = codes > 127
    plain = ((codes | 32) >= ord("a")) & ((codes | 32) <= ord("z"))
    in_common_use = np.zeros(256, dtype=bool)
    for letter in letters:
        in_common_use[letter.encode(name, errors="replace")[0]] = True
    usual, total = int(in_common_use[codes[high]].sum()), int(high.sum())
    score = usual * np.log(0.97 / in_common_use.sum()) + (total - usual) * np.log(0.03 / 128)
    rows, mixed = int((high[:-1] & high[1:]).sum()), int((high[:-1] & plain[1:]).sum())
    ends = total - rows - mixed
    score += (
        rows * np.log(following[0]) + mixed * np.log(following[1]) + ends * np.log(following[2])
    )
    return float(score), usual / max(total, 1)
