"""Arrays that grow piece by piece: in memory while they are small, beyond that in a temporary file that is memory-mapped at the end."""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np
from numpy.typing import DTypeLike

from danlu.errors import DataError

LIMIT = 256 << 20  # bytes of one array kept in memory


class GrowingArray:
    """An array of one dimension in the making; `finish` gives it whole.

    Beyond `limit` bytes (None: LIMIT) it lies in a file of the folder for temporary files
    ($TMPDIR), which the system removes with the last reference to the array. DataError where the
    disk has no room."""

    def __init__(self, dtype: DTypeLike, limit: int | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self.limit = LIMIT if limit is None else limit
        self.count = 0
        self.pieces: list[np.ndarray] = []
        self.file: IO[bytes] | None = None

    def append(self, piece: np.ndarray) -> None:
        """Add the entries of `piece` (M,), cast to the array's type, at the end."""
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
        """The whole array: writable, changing it changes no file. The spool is empty afterwards."""
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
        f"a temporary file for data larger than memory cannot be written ({error.strerror or error}).", where=tempfile.gettempdir(),
        hint="make room there, or let TMPDIR name a folder on a larger disk",
    )  # fmt: skip
