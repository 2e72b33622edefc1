"""Try a tokenizer.json in a process of its own, with limits, before this process reads it.

The library tokenizers is native code: a file made for it can end the process that reads it, fill
the memory, or match a pattern for hours. The trial reads the file, tokenizes texts that lead to the
costly cases, and decodes tokens of every length. This file is also the program of that process,
which imports the library alone: 0.2 s of processor time, and 1 s for a vocabulary of 250,000."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

MOST_MEMORY = 2 << 30  # bytes of address space
CPU_SECONDS, SECONDS = 20, 120.0
MOST_GROWTH = 64  # tokens for each byte of a text, and letters for each letter of a token
_BASIC_PLANE = 0x10000
_MOST_DECODED = 4096
_RUN, _BLOCK = 4000, 64  # letters of a run, and tokens that are decoded at once

_passed: set[int] = set()


def refuse_harmful(text: str) -> None:
    """Raise ValueError where reading or using a tokenizer.json of this `text` ends a process or
    takes too much of it. A text that has passed is not tried again by this process."""
    from pathlib import Path

    from danlu.system.limited_process import run_limited

    if hash(text) in _passed:
        return
    quiet = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "RUST_BACKTRACE": "0"}
    try:
        ended = run_limited(
            Path(__file__), (), text.encode("utf-8", "replace"), SECONDS, environment=quiet
        )
    except OSError as error:
        raise ValueError(f"it cannot be tried in a process of its own: {error}") from None
    if ended.cause:
        raise ValueError(ended.cause)
    _passed.add(hash(text))


def main() -> None:
    """The trial itself: the text of the file comes on the standard input. Exits with 0 where the
    file does no harm."""
    import resource

    sys.path[:0] = sys.argv[1 : sys.argv.index("--")]
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_str(sys.stdin.buffer.read().decode("utf-8"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        by_length = sorted(vocabulary, key=len)
        _try_encoding(tokenizer, by_length[:_BLOCK])
        some = by_length[:: max(1, len(by_length) // _MOST_DECODED)]
        _try_decoding(tokenizer, [vocabulary[name] for name in (*some, *by_length[-_BLOCK:])])
    except BaseException as error:  # a panic of the library is no Exception
        print(str(error).split("\n")[0][:300], file=sys.stderr)
        sys.exit(1)


def _try_encoding(tokenizer: Any, names: Sequence[str]) -> None:
    for text in _costly_texts(names):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        size = len(text.encode())
        if len(ids) > MOST_GROWTH * (size + 1):
            raise ValueError(f"it makes {len(ids):,} tokens of {size:,} bytes")


def _costly_texts(names: Sequence[str]) -> Iterator[str]:
    """Every letter of the basic plane, each frequent letter many times, and long runs of these and
    of `names`, tokens of the vocabulary."""
    letters = [chr(code) for code in range(1, _BASIC_PLANE) if not 0xD800 <= code < 0xE000]
    yield ""
    for start in range(0, len(letters), _RUN):
        yield "".join(letters[start : start + _RUN])
    for letter in letters[:256]:
        yield letter * _BLOCK
    for run in (" ", "\n", "a", "1", ".", "é", "中", "ab", "a ", " \n", "aA", *filter(None, names)):
        yield (run * _RUN)[:_RUN]
        yield (run * _RUN)[:_RUN] + "\u0001!"


def _try_decoding(tokenizer: Any, codes: Sequence[int]) -> None:
    """Decode blocks of tokens, which are in the order of their length."""
    for start in range(0, len(codes), _BLOCK):
        block = codes[start : start + _BLOCK]
        longest = len(tokenizer.id_to_token(block[-1]) or "")
        text = tokenizer.decode(block, skip_special_tokens=True)
        if len(text) > MOST_GROWTH * (longest + 1) * _BLOCK:
            raise ValueError(f"it makes {len(text):,} letters of {len(block)} tokens")


if __name__ == "__main__":
    main()
