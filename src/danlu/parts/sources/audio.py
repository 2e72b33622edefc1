"""A folder of recordings, with labels from sub-folders, from file names, or from a table.

    words/yes/1.wav             sub-folders become the column "label"; a level train, val, test
                                above them gives the split
    digits/7_jackson_32.wav     names: "{digit}_{speaker}_{index}" gives one column per word in
                                braces
    speech/metadata.csv,        table: metadata.csv gives its columns; its column `file` names the
    speech/a/1.flac             recordings

Columns: "audio" (16-bit samples of one channel, at one rate) and those above. Rows are sorted by
path, or follow the order of the table. WAV is read without a further library; FLAC, OGG and MP3
need the extra danlu[audio]. Recordings with another sampling rate are resampled."""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator, model_validator

from danlu import registry
from danlu.errors import DataError
from danlu.reading import audio_files, class_folders
from danlu.reading.inference import infer_column
from danlu.recipe import ColumnOptions, Options, Part
from danlu.terms import Column, Table

SUFFIXES = audio_files.SUFFIXES  # a single recording, for prediction
_TOGETHER = 64  # files that the threads read per round


class Config(Options):
    """The folder, the sampling rate, and where labels and texts come from."""

    path: str = Field(
        description="The folder of the recordings (or a single recording, for prediction)."
    )
    rate: int | None = Field(
        default=None,
        ge=1_000,
        le=384_000,
        description="Sampling rate in Hz to which all are resampled; null: the most frequent one.",
    )
    names: str | None = Field(
        default=None,
        description="The pattern of file names without their ending: "
        '"{digit}_{speaker}_{index}"; each word is a column.',
    )
    table: str | None = Field(
        default=None,
        description="A table in the folder (CSV, JSON Lines, Parquet) with one row per recording.",
    )
    file: str = Field(
        default="file", description="The table's column with the paths of files below the folder."
    )

    @field_validator("names")
    @classmethod
    def _names_have_words(cls, value: str | None) -> str | None:
        if value is not None:
            words = re.findall(r"\{(\w+)\}", value)
            if not words or len(set(words)) < len(words) or "audio" in words:
                raise ValueError("must hold words in braces, each once and none of them audio")
            if re.search(r"\}\{", value):
                raise ValueError(
                    "must hold something between two words in braces, else it is unknown where "
                    "one ends"
                )
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> Config:
        if self.names is not None and self.table is not None:
            raise ValueError("names and table exclude each other")
        return self


def claims(folder: Path) -> bool:
    """Whether most files of a folder, itself or up to two levels down, are recordings."""
    return class_folders.holds_mostly(folder, SUFFIXES)


def files(config: Config) -> list[Path]:
    """The recordings, sorted by their path below the folder, and the table."""
    paths = class_folders.files_below(config.path, SUFFIXES, "recording")
    return (
        [*paths, Path(config.path) / config.table]
        if config.table is not None and _has_table(config)
        else paths
    )


def _has_table(config: Config) -> bool:
    """Whether the folder holds a table; a single recording for prediction has none."""
    return config.table is not None and not Path(config.path).is_file()


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of recordings; see danlu.sources."""
    root = Path(config.path)
    if _has_table(config):
        return _by_table(config, root, columns)
    paths = files(config)
    inside = class_folders.relative_paths(paths, root)
    names = [path.as_posix() for path in inside]
    audio, notices = _recordings(paths, names, config.rate)
    columns_read = {"audio": audio}
    split = None
    if config.table is not None or (
        config.names is not None
        and root.is_file()
        and not _expression(config.names).fullmatch(root.stem)
    ):
        pass  # a single recording for prediction has no other columns
    elif config.names is not None:
        columns_read |= _by_names(config.names, [path.stem for path in inside], names, columns)
    else:
        above = [path.parent.parts for path in inside]
        split = class_folders.splits_from_folders(above)
        classes = [parts[1:] for parts in above] if split is not None else above
        label, notice = class_folders.labels_from_folders(classes, names, str(root), "recordings")
        notices += notice
        if label is not None:
            columns_read["label"] = label
    return Table(
        columns=columns_read,
        origin=root.name or str(root),
        row_names=names,
        split=split,
        notices=tuple(notices),
    )


def _by_names(
    pattern: str, stems: Sequence[str], names: Sequence[str], columns: Mapping[str, ColumnOptions]
) -> dict[str, Column]:
    """One column per word in braces of the pattern."""
    reader = _expression(pattern)
    fields: list[dict[str, str]] = []
    for stem, name in zip(stems, names):
        match = reader.fullmatch(stem)
        if match is None:
            raise DataError(
                f"the name does not match the pattern {pattern!r}.",
                where=name,
                hint="change data.source.names, or the file",
            )
        fields.append(match.groupdict())
    columns_read = {}
    for word in reader.groupindex:
        options = columns.get(word) or ColumnOptions(kind="category")
        columns_read[word] = infer_column(
            word, [row[word] for row in fields], options, lambda row: names[row]
        )
    return columns_read


def _expression(pattern: str) -> re.Pattern[str]:
    """The regular expression that reads the words in braces from a name."""
    pieces = re.split(r"\{(\w+)\}", pattern)
    return re.compile(
        "".join(
            f"(?P<{piece}>.+?)" if index % 2 else re.escape(piece)
            for index, piece in enumerate(pieces)
        )
    )


def _by_table(config: Config, root: Path, columns: Mapping[str, ColumnOptions]) -> Table:
    assert config.table is not None
    path = str(root / config.table)
    name = registry.source_for(path)
    if name is None or name == "audio":
        raise DataError(
            "no source is known for this table.",
            where=path,
            hint="name a CSV, JSON Lines or Parquet file",
        )
    # the column of paths is read as text whatever it looks like: 007 is a name
    wanted = {**columns, config.file: ColumnOptions(kind="text")}
    table = registry.build_source(
        Part(name, registry.config("sources", name).model_validate({"path": path})), wanted
    )
    if config.file not in table.columns:
        raise DataError(
            f"the table has no column {config.file!r}; it has {', '.join(table.columns)}.",
            where=path,
            hint="name it as data.source.file",
        )
    cells = table.columns[config.file]
    paths = [
        _beside(root, cells.text(row), table.where(row), config.file) for row in range(len(table))
    ]
    audio, notices = _recordings(
        paths, [path.relative_to(root).as_posix() for path in paths], config.rate
    )
    columns_read = {
        "audio": audio,
        **{name: column for name, column in table.columns.items() if name != config.file},
    }
    return Table(
        columns=columns_read,
        origin=table.origin,
        row_numbers=table.row_numbers,
        files=table.files,
        file_numbers=table.file_numbers,
        notices=(*table.notices, *notices),
        split=table.split,
    )


def _beside(root: Path, cell: str | None, where: str, column: str) -> Path:
    """The file a cell names, which must lie below the folder."""
    if not cell:
        raise DataError(
            "no recording is named.",
            where=f"{where}, column {column}",
            hint="name a file, or leave out the row",
        )
    named = Path(cell)
    if named.is_absolute() or ".." in named.parts:
        raise DataError(
            f"{cell!r} leads out of the folder.",
            where=f"{where}, column {column}",
            hint="name files below data.source.path",
        )
    return root / named


def _recordings(
    paths: Sequence[Path], names: Sequence[str], rate: int | None
) -> tuple[Column, list[str]]:
    """(the column of all recordings at one rate, notices)."""
    pieces: list[tuple[np.ndarray, int]] = []
    with ThreadPoolExecutor() as pool:
        # in rounds: an error in the first files is raised before the last are read
        for start in range(0, len(paths), _TOGETHER):
            pieces += pool.map(
                audio_files.read_audio,
                paths[start : start + _TOGETHER],
                names[start : start + _TOGETHER],
            )
    counts = collections.Counter(own_rate for _, own_rate in pieces)
    wanted = rate or max(counts, key=lambda rate: (counts[rate], rate))
    others = sum(count for own_rate, count in counts.items() if own_rate != wanted)
    notices = (
        [f"{others:,} recordings of another rate are resampled to {wanted:,} samples a second."]
        if others
        else []
    )
    samples = [audio_files.resample(piece, own_rate, wanted) for piece, own_rate in pieces]
    offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in samples])]).astype(np.int64)
    seconds = offsets[-1] / wanted
    reason = f"audio: {len(samples):,} recordings, {seconds:,.0f} s at {wanted:,} samples a second"
    values = np.concatenate(samples) if samples else np.zeros(0, dtype=np.int16)
    return Column("audio", "audio", values, offsets=offsets, rate=wanted, reason=reason), notices
