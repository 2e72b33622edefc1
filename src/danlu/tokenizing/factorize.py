"""Numbers pieces of text: the distinct pieces, and which of them each piece is.

Uses pyarrow where it is installed, else a Python dict."""

from __future__ import annotations

import itertools

import numpy as np

_FEW = 4096  # pieces up to which a dict is as quick


def factorize(letters: np.ndarray, bounds: np.ndarray) -> tuple[list[str], np.ndarray]:
    """(the distinct pieces in the order of first appearance, the number of each piece, int64) of
    UTF-8 bytes; piece i is letters[bounds[i]:bounds[i+1]].

    >>> factorize(np.frombuffer(b"abcab", np.uint8), np.array([0, 2, 3, 5]))
    (['ab', 'c'], array([0, 1, 0]))
    """
    if len(bounds) > _FEW:
        try:
            import pyarrow as pa
        except ImportError:
            pass
        else:
            buffers = [
                None,
                pa.py_buffer(np.ascontiguousarray(bounds, dtype=np.int64)),
                pa.py_buffer(np.ascontiguousarray(letters)),
            ]
            coded = pa.Array.from_buffers(
                pa.large_string(), len(bounds) - 1, buffers
            ).dictionary_encode()
            return coded.dictionary.to_pylist(), coded.indices.to_numpy().astype(np.int64)
    data = letters.tobytes()
    code_of: dict[bytes, int] = {}
    pieces = (data[begin:end] for begin, end in itertools.pairwise(bounds.tolist()))
    codes = np.fromiter(
        (code_of.setdefault(piece, len(code_of)) for piece in pieces), dtype=np.int64
    )
    return [piece.decode("utf-8") for piece in code_of], codes
