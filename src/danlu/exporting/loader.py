"""An export opened and run without torch: raw rows to the answers of its artifact.

    export = open_export("exports/digits.onnx")
    export.predict([{"image": pixels}])

The folder holds data alone. export.json lists every file; each is a regular file of this folder
whose size and SHA-256 are checked before it is used, and nothing in it chooses a path, or a module
outside of danlu's shelves. This module imports numpy, pydantic and the exporter's runtime; never
torch, pyarrow, scikit-learn or pandas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from danlu import registry
from danlu.data import column_pipeline
from danlu.data.column_pipeline import ColumnPipeline
from danlu.data.examples import Field, Ragged, Windows, take_examples
from danlu.data.preprocessing import Preprocessor, refuse_other
from danlu.errors import ArtifactError, DanluError, DataError
from danlu.exporting.exporters._base import Run, exporter
from danlu.parts.tasks._base import (
    Answer,
    AnswersFromArrays,
    CompletesAnswers,
    CutsExamples,
    ExportsGenerator,
    ReadsPreprocessing,
    Task,
    WritesTokenByToken,
)
from danlu.reading import columns
from danlu.recipe import Part
from danlu.registry_options import part_of
from danlu.system.atomic_files import LARGEST_MANIFEST, parse_checked, read_regular, sha256
from danlu.terms import KINDS, Column, Table

FORMAT = 1
MANIFEST = "export.json"
# An output int64 (N,) of graphs that hold the preprocessing: the first feature of a row that is no
# finite number, -1 where all are.
UNUSABLE = "unusable"
ARRAYS = "preprocessing.safetensors"  # arrays that the transforms outside of the runtime learnt
PLACES_AT_ONCE = 1 << 16  # rows times places of one run
ROWS_AT_ONCE = 256
_LARGEST = 64 << 30  # bytes of one file
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")

Arrays = dict[str, np.ndarray]
Manifest: TypeAlias = dict[str, Any]  # export.json: JSON values, see danlu.exporting.export


@dataclass
class Export:
    """A model in another runtime's form; danlu.open_export opens one.

    path           its folder
    manifest       what export.json holds
    inputs         the fields of a row (danlu.artifact.row_schema)
    kind           "text" for a model of running text, else "rows"
    part           the task's part and options
    task           the task
    preprocessor   the preprocessing that is run outside of the runtime
    raw_columns    by column that the runtime takes raw, the transforms that are run before it
    run            runs the files: arrays by name to finished answers by name
    """

    path: Path
    manifest: Manifest
    inputs: list[dict[str, Any]]
    kind: str
    part: Part
    task: Task
    preprocessor: Preprocessor
    raw_columns: dict[str, ColumnPipeline]
    run: Run

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.manifest["name"])

    @property
    def exporter_name(self) -> str:
        """The exporter that wrote it."""
        return str(self.manifest["exporter"]["name"])

    def predict(self, rows: object) -> list[Answer]:
        """One answer for each row, as danlu.Artifact.predict gives it.

        `rows` is a list of dicts, a dict of columns or a numpy array. Raises DataError naming the
        row and column that cannot be used.
        """
        return [answer for piece in self.stream(rows) for answer in piece]

    def stream(self, rows: object) -> Iterator[list[Answer]]:
        """The answers of `predict`, piece by piece."""
        table = self.table(rows)
        for outputs, beside, ids in self.outputs(table):
            if isinstance(self.task, WritesTokenByToken):
                answers = self.task.write(self.run, outputs)
            else:
                assert isinstance(self.task, AnswersFromArrays)
                answers = self.task.answers_from_arrays(outputs, beside)
            if isinstance(self.task, CompletesAnswers):
                answers = self.task.complete_answers(answers, table, ids.tolist())
            yield answers

    def table(self, rows: object) -> Table:
        """Raw rows as typed columns, in the rows that the task works on. Raises DataError."""
        table = columns.read_columns(self.manifest["reads"], rows, "the rows given", plainly=True)
        recast = registry.task_facts(self.part.name).recast
        return table if recast is None else recast(self.part.options, table)

    def outputs(self, table: Table) -> Iterator[tuple[Arrays, Arrays, np.ndarray]]:
        """(finished answers; other arrays of the examples; numbers of the examples), piece by piece
        over all rows of a table in order.

        Of a task that writes token by token the first are the inputs instead, since each token is
        a run of its own.
        """
        fields, examples, fed = self._examples(table)
        step = _examples_per_run(fields)
        for start in range(0, len(examples), step):
            ids = examples[start : start + step]
            piece = {name: take_examples(field, ids) for name, field in fields.items()}
            inputs = {
                key: array
                for name, field in piece.items()
                if name in fed
                for key, array in self._inputs(name, field).items()
            }
            beside = {
                name: field
                for name, field in piece.items()
                if name not in fed and isinstance(field, np.ndarray)
            }
            beside |= {
                f"{name}_sizes": field.sizes
                for name, field in piece.items()
                if isinstance(field, Ragged)
            }
            if isinstance(self.task, WritesTokenByToken):
                outputs = inputs
            else:
                outputs = self._usable(self.run(inputs), table, ids)
            yield outputs, {**inputs, **beside}, ids

    def _examples(self, table: Table) -> tuple[dict[str, Field], np.ndarray, set[str]]:
        """(the fields of all examples, the examples to answer, the names of the fields that the
        runtime takes)."""
        fed = {*self.manifest["feeds"], *(f"column {name}" for name in self.raw_columns)}
        ids = np.arange(len(table))
        if isinstance(self.task, ExportsGenerator):
            latent = int(self.manifest["feeds"]["noise"]["shape"][1])
            return {**self.task.inputs_from_rows(table, latent)}, ids, fed
        fields: dict[str, Field] = {
            f"column {name}": self._raw_column(name, table) for name in self.raw_columns
        }
        if self.preprocessor.pipelines or self.preprocessor.task_schema:
            fields |= self.preprocessor.apply(table)
        if isinstance(self.task, ReadsPreprocessing):
            self.task.attach(self.preprocessor)
        if not self.raw_columns and isinstance(self.task, CutsExamples):
            examples = self.task.make_examples(
                fields, self.preprocessor.inputs, {}, {"data": ids}, table, True
            )
            return dict(examples.inputs), examples.splits["data"], fed
        return fields, ids, fed

    def _raw_column(self, name: str, table: Table) -> np.ndarray:
        """A raw column as the runtime takes it, after the transforms that are run before it."""
        refuse_other(self.manifest["reads"], table, [name])
        pipeline = self.raw_columns[name]
        column = pipeline.run(table.columns[name])
        return column_array(column, coded=bool(pipeline.steps) and pipeline.cardinality > 0)

    def _usable(self, outputs: Arrays, table: Table, ids: np.ndarray) -> Arrays:
        """The outputs without UNUSABLE. Raises DataError where that names a feature."""
        features = outputs.pop(UNUSABLE, None)
        if features is not None and (features >= 0).any():
            row = int(np.flatnonzero(features >= 0)[0])
            name = self.manifest["runs"]["features"][int(features[row])]
            missing = bool(table.columns[name].is_missing()[ids[row]])
            reason = (
                "missing, and its transforms do not fill it"
                if missing
                else "too large for a float32"
            )
            raise DataError(
                f"the value is {reason}; a model takes finite numbers.",
                where=f"{table.where(int(ids[row]))}, column {name}",
                hint="mend the row",
            )
        return outputs

    def _inputs(self, name: str, field: np.ndarray | Ragged) -> Arrays:
        """The arrays that the runtime takes of one field."""
        if not isinstance(field, Ragged):
            spec = self.manifest["feeds"].get(name)
            array = field if spec is None else field.astype(spec["dtype"], copy=False)
            return {name: np.ascontiguousarray(array)}
        fixed = self.manifest["runs"].get("longest", {}).get(name)
        padded = pad_rows(field, fixed, name)
        if not field.lengths:
            return {name: padded}
        return {name: padded, f"{name}_lengths": field.sizes.astype(np.int64)}


def column_array(column: Column, *, coded: bool = False) -> np.ndarray:
    """A typed column as a graph takes it raw; the forms are in danlu.exporting.exporters.

    With `coded` the codes of a category are given instead of its strings.
    """
    if column.kind == "number":
        return np.ascontiguousarray(column.values, dtype=np.float64)
    if coded:
        return column.values.astype(np.int64)
    if column.kind == "category":
        return np.array([*column.categories, ""], dtype=object)[column.values]
    return np.ascontiguousarray(column.values)


def pad_rows(rows: Ragged, fixed: int | None, name: str) -> np.ndarray:
    """Rows of unequal length as one array (N, T) or (N, T, D): int64, or float32 of frames.

    T is `fixed`, or the length of the longest row, at least 1. Raises ArtifactError where a row of
    the input `name` is longer than `fixed`.
    """
    sizes = rows.sizes
    longest = max(int(sizes.max(initial=1)), 1)
    if fixed is not None and longest > fixed:
        raise ArtifactError(
            f"a row of {name} has {longest:,} places, and this export takes at most {fixed:,}.",
            hint="cut the row",
        )
    width = longest if fixed is None else fixed
    dtype = np.float32 if rows.values.dtype.kind == "f" else np.int64
    padded = np.full((len(rows), width, *rows.values.shape[1:]), rows.fill, dtype=dtype)
    padded[np.arange(width) < sizes[:, None]] = rows.values
    return padded


def _examples_per_run(fields: Mapping[str, Field]) -> int:
    """How many examples one run takes: fewer where they are long."""
    longest = max(map(_longest, fields.values()), default=1)
    return max(1, min(ROWS_AT_ONCE, PLACES_AT_ONCE // max(longest, 1)))


def _longest(field: Field) -> int:
    if isinstance(field, Ragged):
        return int(field.sizes.max(initial=1))
    return field.length if isinstance(field, Windows) else 1


# --- opening


def open_export(path: str | Path) -> Export:
    """The export in a folder; `path` is the folder or its export.json.

    Every file is verified. Raises ArtifactError naming what is damaged, missing or not expected.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> artifact = danlu.train(recipe, "runs/iris")
    >>> path = danlu.export(artifact, "safetensors", "runs/iris-opened").path
    >>> danlu.open_export(path).predict([dict.fromkeys(artifact.inputs, 1.0)])[0]["prediction"]
    'setosa'
    """
    folder = Path(path)
    folder = folder.parent if folder.name == MANIFEST else folder
    manifest = read_manifest(folder)
    try:
        verify_files(folder, manifest)
        return _opened(folder, manifest)
    except DanluError as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(
            f"this export cannot be opened: {error.problem.message}",
            where=str(folder),
            hint=error.problem.hint,
        ) from None
    except OSError as error:
        raise ArtifactError(
            f"cannot be read: {error.strerror or error}.", where=str(folder)
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ArtifactError(
            f"this export is damaged: {type(error).__name__}: {error}.", where=str(folder)
        ) from None


def _opened(folder: Path, manifest: Manifest) -> Export:
    part = part_of("tasks", manifest["task"]["part"])
    arrays = _arrays(folder, manifest)
    preprocessor = Preprocessor.restore(manifest["preprocessing"], arrays)
    raw_columns = {
        column["name"]: column_pipeline.restore_pipeline(
            column,
            column_pipeline.checked_schema(manifest["reads"][column["name"]]),
            f"entering {number}.",
            arrays,
            begun=True,
        )
        for number, column in enumerate(manifest["entering"])
    }
    task = registry.restore_task(part, manifest["task"]["state"])
    run = exporter(_exporter_name(manifest)).start(folder, manifest["runs"])
    fields, kind = _fields(manifest["inputs"]), str(manifest["kind"])
    return Export(folder, manifest, fields, kind, part, task, preprocessor, raw_columns, run)


def _fields(inputs: Any) -> list[dict[str, Any]]:
    """The fields of a row (danlu.artifact.row_schema). Raises ValueError where they are none."""
    for field in inputs:
        sound = (
            isinstance(field["name"], str)
            and field["kind"] in KINDS
            and type(field["required"]) is bool
        )
        if not sound or "example" not in field:
            raise ValueError("its inputs are no fields of a row")
    return list(inputs)


def is_export(path: str | Path) -> bool:
    """Whether a path is the folder of an export, or its export.json."""
    return (Path(path) / MANIFEST).is_file() or Path(path).name == MANIFEST


def read_manifest(folder: Path) -> Manifest:
    """What export.json of a folder holds, its checksum verified. Raises ArtifactError."""
    where = folder / MANIFEST
    try:
        manifest = parse_checked(read_regular(where, LARGEST_MANIFEST))
        if manifest.get("format") != FORMAT:
            raise ValueError(
                f"it is of format {manifest.get('format')!r}, and this danlu reads format {FORMAT}"
            )
    except FileNotFoundError:
        raise ArtifactError(
            f"this is no export: it has no {MANIFEST}.",
            where=str(folder),
            hint="danlu export writes such a folder",
        ) from None
    except OSError as error:
        raise ArtifactError(
            f"cannot be read: {error.strerror or error}.", where=str(where)
        ) from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"this export is damaged: {error}.", where=str(where)) from None
    return manifest


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Check that every file that the manifest lists is a regular file with the content that was
    written. Raises ArtifactError naming one that is not."""
    files = manifest["files"]
    for name, entry in files.items():
        if (
            not is_file_name(name)
            or type(entry["size"]) is not int
            or not 0 <= entry["size"] <= _LARGEST
        ):
            raise ArtifactError(f"{name!r} is no file of an export.", where=str(folder / MANIFEST))
        where = folder / name
        try:
            data = read_regular(where, entry["size"])
        except FileNotFoundError:
            raise ArtifactError("the file is missing.", where=str(where)) from None
        except OSError as error:
            raise ArtifactError(
                f"cannot be read: {error.strerror or error}.", where=str(where)
            ) from None
        except ValueError as error:
            raise ArtifactError(f"this export is damaged: {error}.", where=str(where)) from None
        if len(data) != entry["size"] or sha256(data) != entry["sha256"]:
            raise ArtifactError(
                "this export is damaged: the file is not the one that was written.",
                where=str(where),
            )


def is_file_name(name: object) -> bool:
    """Whether a value is a plain file name: no path, not hidden, at most 100 ASCII characters.

    >>> is_file_name("model.onnx"), is_file_name("../model.onnx"), is_file_name(".hidden")
    (True, False, False)
    """
    return (
        isinstance(name, str)
        and 0 < len(name) <= 100
        and set(name) <= _NAME
        and not name.startswith(".")
    )


def _exporter_name(manifest: Manifest) -> str:
    name = manifest["exporter"]["name"]
    if name not in registry.names("exporters"):
        raise ValueError(f"there is no exporter {name!r}")
    return name


def _arrays(folder: Path, manifest: Manifest) -> Arrays:
    if ARRAYS not in manifest["files"]:
        return {}
    from safetensors.numpy import load

    return load(read_regular(folder / ARRAYS, manifest["files"][ARRAYS]["size"]))


__all__ = ["Export", "column_array", "is_export", "open_export"]
