"""Rows of a table to a model's arrays: one fitted pipeline per column, stored in the artifact.

The order of the file: which columns are inputs (`_unused` and `_refusal` say why one is not), the
pipeline of each (danlu.data.column_pipeline), and the arrays: all number features side by side as
"numbers", all codes as "categories", one image as "image"; each column of tokens or frames is an
input of its own.

The result of `apply` for a row depends on that row alone, to the last bit: a row that is served
alone gets the same prediction as among others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, cast

import numpy as np

from danlu import registry, tokenizing
from danlu.data import cache, column_pipeline
from danlu.data.column_pipeline import ColumnPipeline, ColumnSchema, damaged_error, require
from danlu.data.examples import Ragged
from danlu.data.fingerprints import value_codes
from danlu.data.matrix import row_range
from danlu.errors import ArtifactError, DanluError, DataError, did_you_mean
from danlu.recipe import ColumnOptions, Data, Part
from danlu.terms import Column, InputSpec, Kind, Table

IDENTIFIER = 0.9  # distinct values per row above which a category counts as an identifier
LEAST_ROWS = 30  # with fewer training rows no column counts as an identifier
_COSTLY = 1 << 20  # bytes of a column from which on its tokens or frames are cached
_LOOKED_AT = 64 << 20  # bytes of text that are read to see whether a column is worth training on
_BLOCK = 1 << 22  # entries of a result that are computed at a time
_FIT_IMAGES = 1 << 28  # bytes of images that statistics are computed from


class _Stored(TypedDict):
    """The JSON values of `Preprocessor.state`."""

    columns: list[dict[str, object]]
    schema: dict[str, dict[str, object]]
    also: dict[str, dict[str, object]]
    notices: list[str]


@dataclass
class Preprocessor:
    """Everything between a table's columns and a model's inputs.

    inputs        what the model receives, by input name ("numbers", "categories", "image",
                  "tokens", ...)
    schema        input column -> what a row to predict must hold: {"kind"} and, where they apply,
                  "shape" [H, W, C], "width" and "names" of a wide number column, "categories" of
                  the training rows
    pixels        image input -> {"mean": [...], "std": [...]} per channel: a batch is
                  (uint8 / 255 - mean) / std
    notices       sentences for the reader: which columns are left out, and why
    pipelines     the fitted transforms of each input column, in the order of the table
    task_schema   the schema of columns that are no input and that the task needs to predict (the
                  time of a series)
    """

    inputs: dict[str, InputSpec]
    schema: dict[str, ColumnSchema]
    pixels: dict[str, dict[str, list[float]]]
    notices: list[str]
    pipelines: tuple[ColumnPipeline, ...]
    task_schema: dict[str, ColumnSchema] = field(default_factory=dict[str, ColumnSchema])

    @classmethod
    def fit(
        cls,
        table: Table,
        rows: np.ndarray,
        data: Data,
        targets: Sequence[str],
        takes: Sequence[str],
        also: Sequence[str] = (),
    ) -> Preprocessor:
        """The preprocessing of `table` for a model that takes the kinds of inputs `takes`, fitted
        to its training `rows` (int64).

        `also` names columns that the task reads itself. An image is an input of every model.
        DataError naming the column where its transforms do not fit, and where no input is left."""
        _check_names(table, data)
        notices: list[str] = []
        pipelines: list[ColumnPipeline] = []
        schema: dict[str, ColumnSchema] = {}
        for name, column in table.columns.items():
            if name in targets:
                continue
            refusal = _unused(column, data, takes)
            learnt = column if refusal else _some(column, rows)
            refusal = refusal or _refusal(learnt, data)
            if refusal:
                notices.append(f"column {name} is left out: {refusal}.")
                continue
            _refuse_infinite(table, column, rows)
            pipeline = column_pipeline.fit_pipeline(learnt, _parts_of(column, data, takes), takes)
            notices += [
                f"column {name} ({part.name}): {state['notice']}"
                for part, state in pipeline.steps
                if "notice" in state
            ]
            if not pipeline.names and pipeline.input_kind == "numbers":
                notices.append(f"column {name} is left out: its transforms leave no feature.")
                continue
            pipelines.append(pipeline)
            schema[name] = column_pipeline.column_schema(learnt)
        _check_inputs(table, pipelines, notices)
        inputs = _inputs(pipelines, schema)
        needed = {
            name: column_pipeline.column_schema(table.columns[name])
            for name in also
            if name not in schema
        }
        return cls(inputs, schema, _pixels(pipelines), notices, tuple(pipelines), needed)

    @property
    def row_schema(self) -> dict[str, ColumnSchema]:
        """The schema of every column that a row to answer must hold."""
        return {**self.schema, **self.task_schema}

    @property
    def tokenizer(self) -> tokenizing.Tokenizer | None:
        """The tokenizer of the only pipeline that reads text; None where none or several do."""
        states = [
            state["tokenizer"]
            for pipeline in self.pipelines
            for _, state in pipeline.steps
            if "tokenizer" in state
        ]
        return tokenizing.restore(states[0]) if len(states) == 1 else None

    def apply(
        self, table: Table, rows: np.ndarray | None = None, key: str | None = None
    ) -> dict[str, np.ndarray | Ragged]:
        """The arrays of the model's inputs for `rows` of a table (None: all rows, in order).

        numbers      float32 (N, F), C-contiguous and finite
        categories   int64 (N, C)
        image        uint8 (N, H, W, C), the table's own array where `rows` is None
        tokens, frames   danlu.data.examples.Ragged

        `key` names the content of the table: large columns of tokens and frames are then cached,
        and computed only once. DataError naming column and row for a column that is missing or of
        another kind, an infinite or too large number, and a value that is still missing."""
        refuse_other(self.row_schema, table, list(self.row_schema))
        count = len(table) if rows is None else len(rows)
        result: dict[str, np.ndarray | Ragged] = {}
        for name, described in self.inputs.items():
            pipelines = [pipeline for pipeline in self.pipelines if pipeline.input_kind == name]
            if described.kind in ("tokens", "frames"):
                result[name] = self._ragged(name, described, table, rows, key)
                continue
            if name == "image":
                column = pipelines[0].run(table.columns[pipelines[0].name])
                result[name] = column.values if rows is None else column.values[rows]
                continue
            matrix = np.empty(
                (count, described.shape[0]), dtype=np.float32 if name == "numbers" else np.int64
            )
            start = 0
            for pipeline in pipelines:
                width = len(pipeline.names) if name == "numbers" else 1
                _fill(matrix[:, start : start + width], pipeline, table, rows)
                start += width
            if name == "numbers":
                _check_finite(matrix, pipelines, table, rows)
            result[name] = matrix
        return result

    def _ragged(
        self,
        name: str,
        described: InputSpec,
        table: Table,
        rows: np.ndarray | None,
        key: str | None,
    ) -> Ragged:
        """The rows of the pipeline that ends in an input of tokens or frames."""
        pipelines = [
            pipeline for pipeline in self.pipelines if pipeline.input_kind == described.kind
        ]
        (pipeline,) = (
            pipelines
            if len(pipelines) == 1
            else [pipeline for pipeline in pipelines if name == f"{described.kind}.{pipeline.name}"]
        )
        raw = table.columns[pipeline.name]
        if key is None or rows is not None or raw.values.nbytes < _COSTLY:
            column = pipeline.run(raw if rows is None else raw.take(rows))
        else:
            column = cache.cached_column(
                {"table": key, "column": pipeline.name, "made": pipeline.fingerprint},
                lambda: pipeline.run(raw),
            )
        assert column.offsets is not None
        return Ragged(column.values, column.offsets, lengths=described.kind == "frames")

    def only(self, names: Sequence[str]) -> Preprocessor:
        """The preprocessing of the columns `names` alone."""
        pipelines = tuple(pipeline for pipeline in self.pipelines if pipeline.name in names)
        schema = {
            name: column_schema for name, column_schema in self.schema.items() if name in names
        }
        return Preprocessor(_inputs(pipelines, schema), schema, _pixels(pipelines), [], pipelines)

    def state(self) -> tuple[dict[str, object], dict[str, np.ndarray]]:
        """(JSON values, arrays by name), from which `restore` builds an equal preprocessor."""
        arrays: dict[str, np.ndarray] = {}
        columns = [
            pipeline.state(f"{number}.", arrays) for number, pipeline in enumerate(self.pipelines)
        ]
        return {
            "columns": columns,
            "schema": self.schema,
            "also": self.task_schema,
            "notices": list(self.notices),
        }, arrays

    @classmethod
    def restore(cls, state: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> Preprocessor:
        """The preprocessor that returned this `state`. ArtifactError for anything else.

        Every pipeline is run on three sample rows, and must give the features that its state names.
        """
        contents = cast("_Stored", state)
        try:
            schema = {
                str(name): column_pipeline.checked_schema(stored)
                for name, stored in contents["schema"].items()
            }
            require(
                [stored["name"] for stored in contents["columns"]] == list(schema),
                "its columns and its schema differ",
            )
            pipelines = tuple(
                column_pipeline.restore_pipeline(
                    stored, schema[str(stored["name"])], f"{number}.", arrays
                )
                for number, stored in enumerate(contents["columns"])
            )
            require(
                sum(pipeline.input_kind == "image" for pipeline in pipelines) <= 1,
                "it holds several images",
            )
            notices = [str(notice) for notice in contents["notices"]]
            also = {
                str(name): column_pipeline.checked_schema(stored)
                for name, stored in contents.get("also", {}).items()
            }
            return cls(
                _inputs(pipelines, schema), schema, _pixels(pipelines), notices, pipelines, also
            )
        except ArtifactError:
            raise
        except DanluError as error:
            raise damaged_error(error.problem.message) from None
        except Exception as error:  # a damaged file can raise any error in numpy or in a transform
            raise damaged_error(f"{type(error).__name__}: {error}") from None


def refuse_other(
    schemas: Mapping[str, Mapping[str, object]], table: Table, names: Sequence[str]
) -> None:
    """Raises DataError where one of the columns `names` is missing, or of another kind or shape
    than in training.

    >>> refuse_other({"x": {"kind": "number"}}, Table({}, "t.csv"), ["x"])
    Traceback (most recent call last):
    danlu.errors.DataError: t.csv: the column x, an input of the model, is missing...
    """
    for name in names:
        schema = cast("ColumnSchema", schemas[name])
        if name not in table.columns:
            raise DataError(
                f"the column {name}, an input of the model, is missing.",
                where=table.origin,
                hint=did_you_mean(name, table.columns)
                or f"the model's inputs are {', '.join(schemas)}",
            )
        column = table.columns[name]
        if column.kind != schema["kind"]:
            raise DataError(
                f"the column holds {column.kind} here and held {schema['kind']} in training.",
                where=f"{table.origin}, column {name}",
                hint=f"set data.columns.{name}.kind to {schema['kind']}",
            )
        shape = (
            list(column.values.shape[1:]) if column.kind in ("image", "number", "frames") else []
        )
        wanted = schema.get("shape") or ([schema["width"]] if "width" in schema else [])
        if shape != wanted:
            here, then = (
                "x".join(map(str, sizes)) or "single numbers" for sizes in (shape, wanted)
            )
            raise DataError(
                f"the column holds {column.kind} of {here} here and of {then} in training.",
                where=f"{table.origin}, column {name}",
            )


# --- which columns --------------------------------------------------------------------------------


def _check_names(table: Table, data: Data) -> None:
    for name in data.columns:
        if name not in table.columns:
            raise DataError(
                f"data.columns names {name}, and there is no such column.",
                where=table.origin,
                hint=did_you_mean(name, table.columns)
                or f"the columns are {', '.join(list(table.columns)[:20])}",
            )


def _options_of(name: str, data: Data) -> ColumnOptions:
    return data.columns.get(name) or ColumnOptions()


def _parts_of(column: Column, data: Data, takes: Sequence[str]) -> list[Part]:
    """The transforms of a column: its own, else those of its kind, else the default ones."""
    own = _options_of(column.name, data).transforms
    if own is not None:
        return own
    return (
        data.transforms[column.kind]
        if column.kind in data.transforms
        else column_pipeline.default_transforms(column.kind, takes)
    )


def _unused(column: Column, data: Data, takes: Sequence[str]) -> str:
    """Why a column cannot be an input, whatever its values; "" where it can."""
    if not _options_of(column.name, data).use:
        return "data.columns says use: false"
    if data.split is not None and registry.split_column(data.split) == column.name:
        return f"the split {data.split.name} goes by it"
    transformed = (
        _options_of(column.name, data).transforms is not None or column.kind in data.transforms
    )
    return (
        ""
        if transformed or _taken(column.kind, takes)
        else f"it holds {column.kind}, and the model takes only {', '.join(takes)}"
    )


def _taken(kind: Kind, takes: Sequence[str]) -> bool:
    """Whether the default transforms of a kind of column end in an input that the model takes."""
    if kind in ("sequence", "frames", "audio"):
        return ("tokens" if kind == "sequence" else "frames") in takes
    if kind == "text" and "tokens" in takes:
        return True
    return kind == "image" or "numbers" in takes or (kind == "category" and "categories" in takes)


def _refusal(column: Column, data: Data) -> str:
    """Why the training rows of a column are useless to a model; "" where they are not."""
    if column.kind == "image":
        return ""
    if column.kind in ("sequence", "frames", "audio"):
        empty = column.offsets is None or not len(column.values)
        return f"none of the {len(column):,} training rows holds a value" if empty else ""
    if column.kind == "text" and _teaches(column, data):
        return ""
    lost = np.asarray(
        column.is_missing() if column.values.ndim == 1 else np.isnan(column.values).all(axis=1)
    ).reshape(-1)
    present = np.flatnonzero(~lost)
    count = len(lost)
    if not len(present):
        return f"none of the {count:,} training rows holds a value"
    if column.values.ndim > 1:
        rest = column.values[1:]
        same = column.values[:1] == rest
        constant = bool((same | (np.isnan(column.values[:1]) & np.isnan(rest))).all())
        return f"all {count:,} training rows hold the same numbers" if constant else ""
    distinct = _distinct(column, present)
    if distinct == 1 and len(present) == count:
        return (
            f"all {count:,} training rows hold the same value "
            f"({column.python_value(int(present[0]))!r})"
        )
    asked_for = _options_of(column.name, data).transforms is not None or (
        column.kind == "text" and "text" in data.transforms
    )
    if not asked_for and _is_identifier(column, distinct, present):
        return (
            f"{distinct:,} of its {len(present):,} values are distinct, so it looks like an "
            "identifier "
            f"(data.columns.{column.name}.transforms would use it)"
        )
    return ""


def _teaches(column: Column, data: Data) -> bool:
    """Whether evenly spaced rows of a large text column are useful to a model: then all rows are,
    and need not be in memory for the decision."""
    rows = len(column) * _LOOKED_AT // max(len(column.values), 1)
    if len(column.values) <= _LOOKED_AT or rows < LEAST_ROWS:
        return False
    some = column.take(np.linspace(0, len(column) - 1, rows).astype(np.int64))
    return not _refusal(some, data)


def _distinct(column: Column, present: np.ndarray) -> int:
    """How many distinct values the `present` rows of a column hold; of numbers and date-times 1, or
    2 for more than one."""
    if column.kind in ("number", "datetime"):
        return 1 + int(column.values[present].min() != column.values[present].max())
    return len(np.unique(value_codes(column)[present]))


def _is_identifier(column: Column, distinct: int, present: np.ndarray) -> bool:
    """Whether nearly every row has a category, or a text of a single word, of its own."""
    if (
        len(present) < LEAST_ROWS
        or distinct <= IDENTIFIER * len(present)
        or column.kind not in ("category", "text")
    ):
        return False
    if column.kind == "category":
        return True
    assert column.offsets is not None
    spaced = np.zeros(len(column.values) + 1, dtype=np.int64)
    np.cumsum((column.values <= 32) | (column.values >= 0x80), out=spaced[1:])
    offsets = np.asarray(column.offsets)
    return float((spaced[offsets[1:]] > spaced[offsets[:-1]])[present].mean()) < 1 - IDENTIFIER


def _refuse_infinite(table: Table, column: Column, rows: np.ndarray) -> None:
    if column.kind != "number":
        return
    infinite = np.isinf(_some(column, rows).values)
    if infinite.any():
        row = int(np.flatnonzero(infinite.reshape(len(rows), -1).any(axis=1))[0])
        raise _not_a_number(table, int(rows[row]), column.name, "infinite")


# --- what the model sees --------------------------------------------------------------------------


def _check_inputs(
    table: Table, pipelines: Sequence[ColumnPipeline], notices: Sequence[str]
) -> None:
    images = [pipeline.name for pipeline in pipelines if pipeline.input_kind == "image"]
    if len(images) > 1:
        raise DataError(
            f"the table holds {len(images)} image columns ({', '.join(images)}), and a model "
            "takes one.",
            where=table.origin,
            hint=f"set data.columns.{images[1]}.use to false",
        )
    if not pipelines:
        raise DataError(
            "no column is left to learn from.",
            where=table.origin,
            hint=" ".join(notices) or "the table holds only the target",
        )


def _inputs(
    pipelines: Sequence[ColumnPipeline], schema: Mapping[str, ColumnSchema]
) -> dict[str, InputSpec]:
    result: dict[str, InputSpec] = {}
    names = tuple(
        name
        for pipeline in pipelines
        if pipeline.input_kind == "numbers"
        for name in pipeline.names
    )
    if names:
        of = tuple(
            pipeline.name
            for pipeline in pipelines
            if pipeline.input_kind == "numbers"
            for _ in pipeline.names
        )
        result["numbers"] = InputSpec("numbers", (len(names),), names=names, of=of)
    coded = [pipeline for pipeline in pipelines if pipeline.input_kind == "categories"]
    if coded:
        result["categories"] = InputSpec(
            "categories",
            (len(coded),),
            names=tuple(pipeline.name for pipeline in coded),
            cardinalities=tuple(pipeline.cardinality for pipeline in coded),
        )
    for pipeline in pipelines:
        if pipeline.input_kind == "image":
            sizes = cast("Mapping[str, list[int]]", schema[pipeline.name])
            height, width, channels = sizes["shape"]
            mean, std = (tuple(pipeline.pixels[name]) for name in ("mean", "std"))
            result["image"] = InputSpec("image", (channels, height, width), mean=mean, std=std)
        elif pipeline.input_kind in ("tokens", "frames"):
            alone = sum(other.input_kind == pipeline.input_kind for other in pipelines) == 1
            result[pipeline.input_kind if alone else f"{pipeline.input_kind}.{pipeline.name}"] = (
                _ragged_input(pipeline)
            )
    return result


def _ragged_input(pipeline: ColumnPipeline) -> InputSpec:
    if pipeline.input_kind == "frames":
        return InputSpec("frames", (pipeline.longest, len(pipeline.names)), names=pipeline.names)
    several = (len(pipeline.cardinalities),) if len(pipeline.cardinalities) > 1 else ()
    return InputSpec(
        "tokens",
        (pipeline.longest, *several),
        names=pipeline.names,
        cardinalities=pipeline.cardinalities,
    )


def _pixels(pipelines: Sequence[ColumnPipeline]) -> dict[str, dict[str, list[float]]]:
    images = [pipeline for pipeline in pipelines if pipeline.input_kind == "image"]
    return {"image": images[0].pixels} if images else {}


# --- rows -----------------------------------------------------------------------------------------


def _some(column: Column, rows: np.ndarray) -> Column:
    """The column with only `rows`, without a copy where these are consecutive; of images at most
    256 MB, evenly spaced."""
    if column.kind == "image":
        most = max(1, _FIT_IMAGES // max(1, int(np.prod(column.values.shape[1:], dtype=np.int64))))
        if len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return row_range(column, int(rows[0]), int(rows[-1]) + 1)
    return column.take(rows)


def _fill(
    result: np.ndarray, pipeline: ColumnPipeline, table: Table, rows: np.ndarray | None
) -> None:
    """Writes the result of a pipeline for `rows` of its column into `result` (N, width), a block of
    rows at a time."""
    column = table.columns[pipeline.name]
    step = max(256, _BLOCK // max(1, result.shape[1]))
    for start in range(0, len(result), step):
        stop = min(start + step, len(result))
        part = row_range(column, start, stop) if rows is None else column.take(rows[start:stop])
        if column.kind == "number" and np.isinf(part.values).any():
            row = start + int(
                np.flatnonzero(np.isinf(part.values).reshape(stop - start, -1).any(axis=1))[0]
            )
            raise _not_a_number(
                table, row if rows is None else int(rows[row]), column.name, "infinite"
            )
        values = pipeline.run(part).values
        with np.errstate(over="ignore"):  # beyond float32: found and named by _check_finite
            result[start:stop] = values if values.ndim == 2 else values[:, None]


def _check_finite(
    matrix: np.ndarray, pipelines: Sequence[ColumnPipeline], table: Table, rows: np.ndarray | None
) -> None:
    finite = np.isfinite(matrix)
    if finite.all():
        return
    row, feature = (int(index) for index in np.argwhere(~finite)[0])
    missing = bool(np.isnan(matrix[row, feature]))
    for pipeline in pipelines:
        if feature < len(pipeline.names):
            what = (
                "missing and its transforms leave it so" if missing else "too large for a float32"
            )
            raise _not_a_number(table, row if rows is None else int(rows[row]), pipeline.name, what)
        feature -= len(pipeline.names)


def _not_a_number(table: Table, row: int, name: str, what: str) -> DataError:
    remedy = (
        f"add impute to data.columns.{name}.transforms"
        if "missing" in what
        else "mend the row, or write it as a missing value"
    )
    return DataError(
        f"the value is {what}; a model takes finite numbers.",
        where=f"{table.where(row)}, column {name}",
        hint=remedy,
    )


__all__ = ["Preprocessor"]
