"""How many numbers an embedding gives a category, a word or another code of a small vocabulary."""

from __future__ import annotations

LARGEST_EMBEDDING = 64


def embedding_size(cardinality: int) -> int:
    """The width of an embedding of `cardinality` values: 1.6 * cardinality ** 0.56, rounded up to a
    power of two, at most LARGEST_EMBEDDING.

    Powers of two let columns of similar cardinality share a width, so that one lookup serves them.

    >>> embedding_size(10), embedding_size(12), embedding_size(100_000)
    (8, 8, 64)
    """
    wanted = min(1.6 * cardinality**0.56, LARGEST_EMBEDDING)
    size = 1
    while size < wanted:
        size *= 2
    return size
