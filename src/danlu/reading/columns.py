"""Raw values to typed columns: inferred kinds for training, an artifact's kinds for prediction.

    infer_column(name, values, options, where) -> Column   infers the kind of one column
    read_columns(schema, raw, origin) -> Table             reads rows in the kinds of an artifact
    column_options(schema) -> options by column            the same kinds as options of a source

A value counts as missing when, without the spaces around it, it is one of MISSING_MARKS (in a text
column: only when it is empty). A column is a number, date-time or boolean column when at least 90 %
of its values are; the other values are an error, or count as missing, as the recipe says. Nothing
is guessed silently: `Column.reason` names every decision. A value that can be read in two ways
(1,234 or 03/04/2011) is read as the rest of the column decides; where nothing decides, the number's
assumption is named, and the date is left as a string."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from danlu.errors import DataError, nearest
from danlu.reading import audio_files, without_pyarrow
from danlu.reading.image_files import decode_images
from danlu.reading.inference import MISSING_MARKS, infer_column
from danlu.recipe import ColumnOptions
from danlu.terms import Column, Table

Schema = Mapping[str, Mapping[str, Any]]


@runtime_checkable
class _DataFrame(Protocol):
    """What is read of a pandas DataFrame; pandas itself is never imported."""

    columns: Any
    iloc: Any

    def isna(self) -> Any: ...


def column_options(schema: Schema) -> dict[str, ColumnOptions]:
    """The kinds of a schema as the `columns` options of a source, so that it reads a file in them;
    images are left out (their sources know them).

    >>> column_options({"age": {"kind": "number"}})["age"].kind
    'number'
    """
    return {
        name: ColumnOptions.model_validate({"kind": facts["kind"]})
        for name, facts in schema.items()
        if facts["kind"] != "image"
    }


def read_columns(schema: Schema, raw: object, origin: str, *, plainly: bool = False) -> Table:
    """The table of `raw` rows, with exactly the columns of `schema` in their kinds.

    schema    column name -> {"kind": ..., and for images "shape": [height, width, channels], for
              audio "rate"}; other keys are ignored
    raw       a list of dicts (rows), a dict of columns (or of single values: one row), a pandas
              DataFrame, a numpy array with its columns in the order of the schema (for one image
              column: uint8 (N, H, W) or (N, H, W, C)), or a Table
    origin    what messages call the data
    plainly   reads the same with numpy alone, where pyarrow may not be installed; `raw` must then
              not be a Table

    A value may be missing (None, NaN, a missing mark). A column may not: DataError names it and the
    most similar column there is. Columns that the schema does not name are ignored. The cell of an
    image is a path, an array of 0..255 or a PIL image, resized to the shape. A string that can be
    two numbers ("1,234") is refused.

    >>> table = read_columns({"age": {"kind": "number"}}, [{"age": "31"}, {"age": None}], "rows")
    >>> table.columns["age"].values.tolist()
    [31.0, nan]
    """
    columns = _columns(schema, raw, origin)
    row_name = raw.where if isinstance(raw, Table) else lambda row: f"{origin} row {row + 1:,}"
    typed = {
        name: _read(name, facts, columns[name], row_name, plainly) for name, facts in schema.items()
    }
    lengths = {name: len(column) for name, column in typed.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} has {length:,}" for name, length in lengths.items())
        raise DataError(f"the columns have different numbers of rows: {counts}.", where=origin)
    if isinstance(raw, Table):
        return replace(raw, columns=typed)
    return Table(columns=typed, origin=origin)


# --- raw to columns -------------------------------------------------------------------------------


def _columns(schema: Schema, raw: Any, origin: str) -> Mapping[str, Any]:
    if isinstance(raw, Table):
        return _checked(schema, dict(raw.columns), origin)
    if isinstance(raw, np.ndarray):
        return _from_array(schema, raw, origin)
    if isinstance(raw, Mapping):
        return _from_mapping(schema, raw, origin)
    if isinstance(raw, _DataFrame):
        return _from_frame(schema, raw, origin)
    if isinstance(raw, list | tuple):
        return _from_rows(schema, raw, origin)
    raise DataError(
        f"rows cannot be read from a {type(raw).__name__}.",
        where=origin,
        hint="give a list of dicts, a dict of columns, a DataFrame, a numpy array or a file",
    )


def _checked(schema: Schema, columns: Mapping[Any, Any], where: str) -> Mapping[Any, Any]:
    present = [str(name) for name in columns]
    for name in schema:
        if name not in columns:
            near = nearest(name, present, 1)
            contents = (
                f"has the columns {', '.join(present[:20])}{', ...' if len(present) > 20 else ''}"
                if present
                else "has no columns"
            )
            hint = (
                f"did you mean {near[0]}? The model was trained on {name}."
                if near
                else f"the model needs {', '.join(schema)}"
            )
            raise DataError(
                f"there is no column {name}; the data {contents}.", where=where, hint=hint
            )
    return columns


def _from_array(schema: Schema, raw: np.ndarray, origin: str) -> Mapping[str, Any]:
    names = list(schema)
    if len(names) == 1 and (
        schema[names[0]]["kind"] == "image" or raw.ndim == 1 or "names" in schema[names[0]]
    ):
        return {names[0]: raw}
    if raw.ndim != 2 or raw.shape[1] != len(names):
        wanted = f"(rows, {len(names)}): {', '.join(names)}"
        raise DataError(
            f"the array has the shape {raw.shape}; the model takes {wanted}.", where=origin
        )
    return {name: raw[:, number] for number, name in enumerate(names)}


def _from_mapping(schema: Schema, raw: Mapping[Any, Any], origin: str) -> Mapping[str, Any]:
    columns = _checked(schema, raw, origin)
    if all(_is_single(columns[name]) for name in schema):
        return {name: [columns[name]] for name in schema}
    for name in schema:
        if _is_single(columns[name]):
            raise DataError(
                f"column {name} is a single value, and other columns are lists.",
                where=origin,
                hint="give one value a row",
            )
    return {name: columns[name] for name in schema}


def _is_single(value: object) -> bool:
    return value is None or isinstance(value, str | bytes) or not isinstance(value, Sized)


def _from_rows(
    schema: Schema, raw: list[Any] | tuple[Any, ...], origin: str
) -> Mapping[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in schema}
    for number, row in enumerate(raw, start=1):
        if not isinstance(row, Mapping):
            raise DataError(
                f"a row is a dict of column names and values, not a {type(row).__name__}.",
                where=f"{origin} row {number:,}",
                hint="for rows without names give a numpy array",
            )
        if not schema.keys() <= row.keys():
            _checked(schema, row, f"{origin} row {number:,}")
        for name, cells in columns.items():
            cells.append(row[name])
    return columns


def _from_frame(schema: Schema, raw: _DataFrame, origin: str) -> Mapping[str, Any]:
    """The columns of a pandas DataFrame."""
    names = [str(name) for name in raw.columns]
    _checked(schema, dict.fromkeys(names), origin)
    columns: dict[str, Any] = {}
    for name in schema:
        if names.count(name) > 1:
            raise DataError(
                f"the frame has {names.count(name)} columns called {name}.", where=origin
            )
        series = raw.iloc[:, names.index(name)]
        values = series.to_numpy()
        if values.dtype == object or values.dtype.kind not in "iufbM":
            values = np.array(
                series.astype(object).where(~series.isna(), None).to_numpy(dtype=object),
                dtype=object,
            )
        columns[name] = values
    return columns


# --- columns to kinds -----------------------------------------------------------------------------


def _read(
    name: str, facts: Mapping[str, Any], values: Any, where: Callable[[int], str], plainly: bool
) -> Column:
    kind = facts["kind"]
    if isinstance(values, Column):
        if kind != "image" and values.kind == kind:
            return replace(values, name=name)
        values = _again(values, kind)
    if kind == "image":
        return _images(name, list(facts["shape"]), values, where)
    if kind == "audio":
        return _recordings(name, int(facts["rate"]), values, where)
    if plainly:
        return without_pyarrow.read_column(name, kind, values, where)
    options = ColumnOptions.model_validate({"kind": kind})
    return infer_column(name, values, options, where, typed=True, strict=True)


def _again(column: Column, kind: str) -> Any:
    """The values of a typed column in a form that another kind can be read from."""
    import pyarrow as pa

    if column.kind == "image":
        return column.values
    if column.kind == "category":
        words = pa.array(list(column.categories), pa.string())
        codes = pa.array(column.values, mask=column.values < 0)
        return (
            pa.DictionaryArray.from_arrays(codes, words).dictionary_decode()
            if len(words)
            else pa.nulls(len(column), pa.string())
        )
    if column.kind == "sequence":
        return [column.python_value(row) for row in range(len(column))]
    if column.kind == "boolean":
        return pa.array(column.values == 1, mask=column.values < 0)
    if column.kind == "datetime":
        return column.values.view("datetime64[us]")
    if column.kind == "text":
        words = [column.text(row) for row in range(len(column))]
        return words if kind == "image" else pa.array(words, pa.string())
    return column.values


def _images(name: str, shape: list[int], values: Any, where: Callable[[int], str]) -> Column:
    height, width, channels = shape
    whole = [(height, width, channels), *([(height, width)] if channels == 1 else [])]
    if isinstance(values, np.ndarray) and values.dtype == np.uint8 and values.shape[1:] in whole:
        return Column(
            name,
            "image",
            values.reshape(-1, height, width, channels),
            reason="image: an array of pixels",
        )
    if isinstance(values, np.ndarray) and values.shape in whole:
        values = values[None]  # one row, given as its image
    decoded = decode_images(
        list(values),
        size=(height, width),
        channels=channels,
        name=lambda row: f"{where(row)}, column {name}",
    )
    return Column(name, "image", decoded, reason="image: decoded")


def _recordings(name: str, rate: int, values: Any, where: Callable[[int], str]) -> Column:
    single = isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "if"
    cells = [values] if single else list(values)
    recordings = [
        audio_files.decode_audio(cell, rate, f"{where(row)}, column {name}")
        for row, cell in enumerate(cells)
    ]
    offsets = np.concatenate([[0], np.cumsum([len(samples) for samples in recordings])]).astype(
        np.int64
    )
    joined = np.concatenate(recordings) if recordings else np.zeros(0, dtype=np.int16)
    return Column(name, "audio", joined, offsets=offsets, rate=rate, reason="audio: read")


__all__ = ["MISSING_MARKS", "column_options", "infer_column", "read_columns"]
