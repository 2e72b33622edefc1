"""The source code of Python's standard library: a real corpus on every machine.

Columns: "path" (text, such as json/decoder.py) and "text" (the module's source). One row per
module, sorted by path; tests, installed packages and modules that are not valid text are left out.
Another version of Python is another corpus, with another content hash."""

from __future__ import annotations

import io
import os
import sysconfig
import tokenize
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from danlu.errors import DataError
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


class Config(Options):
    """No options."""


def _home() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def files(config: Config) -> list[Path]:
    """Every module of the standard library, sorted by path."""
    home = _home()
    paths: list[Path] = []
    for folder, inside, names in os.walk(home):
        inside[:] = [name for name in inside if name not in _LEFT_OUT]
        paths += [Path(folder) / name for name in names if name.endswith(".py")]
    if not paths:
        raise DataError(
            "this Python has no source text of its standard library.",
            where=str(home),
            hint="use the source text with files",
        )
    return sorted(paths, key=lambda path: path.relative_to(home).as_posix())


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of modules."""
    home = _home()
    names: list[str] = []
    texts: list[bytes] = []
    skipped = 0
    for path in files(config):
        content = path.read_bytes()
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
            text = content.decode(encoding)
        except (SyntaxError, UnicodeDecodeError):
            skipped += 1
            continue
        names.append(path.relative_to(home).as_posix())
        texts.append(text.replace("\r\n", "\n").encode("utf-8"))
    notices = (f"{skipped} modules that are no valid text are left out.",) if skipped else ()
    columns_read = {
        "path": _text("path", [name.encode("utf-8") for name in names]),
        "text": _text("text", texts),
    }
    return Table(
        columns=columns_read, origin="the standard library", row_names=names, notices=notices
    )


def _text(name: str, rows: Sequence[bytes]) -> Column:
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    values = np.frombuffer(
        bytearray().join(rows), dtype=np.uint8
    )  # over bytes it could not be written
    return Column(name, "text", values, offsets=offsets, reason="text: one row a module")
