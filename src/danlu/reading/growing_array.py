"""Arrays that grow piece by piece: in memory while small, else in a memory-mapped file."""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np
from numpy.typing import DTypeLike

from danlu.errors import DataError

LIMIT = 256 << 20  # bytes of one array that stay in memory


class GrowingArray:
    """A one-dimensional array built by appending pieces; `finish` returns it.

    Beyond `limit` bytes (None: LIMIT) it is stored in a file in the folder for temporary files
    ($TMPDIR), which the system removes with the last reference to the array. DataError where the
    disk has no room.

    >>> array = GrowingArray(np.int64)
    >>> array.append(np.array([1, 2])); array.append(np.array([3]))
    >>> array.finish().tolist()
    [1, 2, 3]
    """

    def __init__(self, dtype: DTypeLike, limit: int | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.limit = LIMIT if limit is None else limit
        self.count = 0
        self.pieces: list[np.ndarray] = []
        self.file: IO[bytes] | None = None

    def append(self, piece: np.ndarray) -> None:
        """Appends the entries of `piece` (M,), cast to the array's type."""
        piece = np.ascontiguousarray(piece, dtype=self.dtype)
        self.count += len(piece)
        if self.file is None and self.count * self.dtype.itemsize <= self.limit:
            self.pieces.append(piece)
            return
        try:
            if self.file is None:
                self.file = tempfile.TemporaryFile(prefix="danlu-")  # noqa: SIM115  closed by finish
                for earlier in self.pieces:
                    self.file.write(earlier.data)
                self.pieces = []
            self.file.write(piece.data)
        except OSError as error:
            raise _no_room(error) from None

    def finish(self) -> np.ndarray:
        """The whole array (count,), writable; changing it changes no file. This object is empty
        afterwards."""
        if self.file is None:
            pieces, self.pieces, self.count = self.pieces, [], 0
            if len(pieces) == 1:
                return (
                    pieces[0]
                    if pieces[0].flags.writeable and pieces[0].base is None
                    else pieces[0].copy()
                )
            return np.concatenate(pieces) if pieces else np.zeros(0, dtype=self.dtype)
        count, self.count = self.count, 0
        file, self.file = self.file, None
        with file:
            try:
                file.flush()
                return np.asarray(np.memmap(file, dtype=self.dtype, mode="c", shape=(count,)))
            except OSError as error:
                raise _no_room(error) from None


def _no_room(error: OSError) -> DataError:
    return DataError(
        "a temporary file for data larger than memory cannot be written "
        f"({error.strerror or error}).",
        where=tempfile.gettempdir(),
        hint="make room there, or let TMPDIR name a folder on a larger disk",
    )
