"""Folders that danlu writes to, run after run: never over files that it did not write, and never
through a link."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from danlu.errors import RunError
from danlu.system.atomic_files import link_error, make_folder


def claim_folder(folder: Path, names: Iterable[str], *, is_ours: bool, option: str) -> None:
    """Refuse a folder in which danlu, writing files and folders `names` (patterns), would do harm.

    `is_ours` says that an earlier start wrote to the folder; `option` names another folder on the
    command line. Raises RunError where one of the names is a link, and, in a folder that is not
    danlu's yet, where one exists.

    >>> claim_folder(Path("."), ["no-such-*.jsonl"], is_ours=False, option="--run")
    """
    for name in names:
        for path in sorted(folder.glob(name)):
            if path.is_symlink():
                raise link_error(path)
            if not is_ours:
                raise RunError(
                    "danlu did not write this, and would replace it.",
                    where=str(path),
                    hint=f"choose another {option} folder, or move it away",
                )


def make_subfolder(folder: Path) -> None:
    """Make a folder inside one of danlu's own. Raises RunError where it is a link, OSError where it
    cannot be made."""
    if folder.is_symlink():
        raise link_error(folder)
    make_folder(folder)
