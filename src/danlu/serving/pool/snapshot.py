"""A copy of what is served, of the server's own: a worker that takes another's place opens the same bytes, whatever became of the folder.

So replacing or damaging the folder of a model that is served changes nothing until the operator
asks for it (SIGHUP)."""

from __future__ import annotations

import contextlib
import shutil
import stat
import tempfile
from pathlib import Path

from danlu.errors import ArtifactError


class Snapshots:
    """Copies of model folders in a folder of its own, which goes with them."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="danlu-serving-"))
        self._number = 0

    def take(self, folder: Path) -> Path:
        """A copy of a folder's files. Raises ArtifactError where there is something else than files
        and folders in it."""
        self._number += 1
        target = self.folder / str(self._number)
        try:
            _copy(folder, target)
        except OSError as error:
            self.drop(target)
            raise ArtifactError(
                f"cannot be copied: {error.strerror or error}.", where=str(error.filename or folder),
                hint=f"a copy of what is served is kept in {self.folder.parent}; TMPDIR names another place",
            ) from None  # fmt: skip
        return target

    def drop(self, snapshot: Path) -> None:
        """Remove a copy."""
        shutil.rmtree(snapshot, ignore_errors=True)

    def close(self) -> None:
        """Remove all."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder)


def _copy(folder: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    for path in folder.iterdir():
        kind = path.lstat().st_mode
        if stat.S_ISREG(kind):
            shutil.copyfile(path, target / path.name)
        elif stat.S_ISDIR(kind):
            _copy(path, target / path.name)
        else:
            raise ArtifactError(
                "this is a link or a device, not a file.",
                where=str(path),
                hint="copy the file itself there",
            )
