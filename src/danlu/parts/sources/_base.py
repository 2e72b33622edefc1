"""The contract of a source: where rows come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from danlu.recipe import ColumnOptions, Options
    from danlu.terms import Table


@dataclass(frozen=True)
class Source:
    """What a source's module offers; `danlu.registry.source(name)` reads it.

    The same files always give the same table, its rows in the order of the file. Nothing is
    downloaded or executed.
    """

    # build(config, columns) -> Table: reads everything. `columns` maps a column's name to the
    # recipe's ColumnOptions (kind, on_error, use) where they override inference. DataError naming
    # file and row or column.
    build: Callable[[Options, Mapping[str, ColumnOptions]], Table]

    # files(config) -> list[Path]: the files that `build` reads, sorted by name, for the content
    # hash; [] for data that is bundled with an installed library.
    files: Callable[[Options], list[Path]]

    # version(config) -> str: the library that bundles the data, and its version, where files is [].
    version: Callable[[Options], str] | None = None

    # Endings of file names (lower case) for which a bare path in a recipe means this source.
    suffixes: tuple[str, ...] = field(default=(), metadata={"name": "SUFFIXES"})

    # claims(folder) -> bool: whether a folder given as a bare path in a recipe means this source.
    claims: Callable[[Path], bool] | None = None

    # True: a column may hold paths of images (kind: image), so `build` reads more than `files`.
    names_images: bool = field(default=False, metadata={"name": "NAMES_IMAGES"})
