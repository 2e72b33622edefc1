"""The server's own copies of the model folders.

A worker that replaces another one opens the copy, so it opens the same bytes, whatever happened to
the folder. Replacing or damaging the folder of a served model changes nothing until the operator
asks for it (SIGHUP, or POST .../reload).
"""

from __future__ import annotations

import contextlib
import shutil
import stat
import tempfile
from pathlib import Path

from danlu.errors import ArtifactError


class Snapshots:
    """Copies of model folders, in a temporary folder that `close` removes."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="danlu-serving-"))
        self._number = 0

    def take(self, folder: Path) -> Path:
        """Copy a folder; the path of the copy. Raises ArtifactError where the folder holds
        something that is neither a file nor a folder, or where it cannot be copied."""
        self._number += 1
        target = self.folder / str(self._number)
        try:
            _copy(folder, target)
        except OSError as error:
            self.drop(target)
            raise ArtifactError(
                f"cannot be copied: {error.strerror or error}.",
                where=str(error.filename or folder),
                hint=f"the server keeps a copy of each model in {self.folder.parent}; TMPDIR "
                "names another folder",
            ) from None
        return target

    def drop(self, snapshot: Path) -> None:
        """Remove one copy."""
        shutil.rmtree(snapshot, ignore_errors=True)

    def close(self) -> None:
        """Remove all copies."""
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
