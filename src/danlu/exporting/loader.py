"""An export, run without torch: raw rows to the answers that the artifact it came from gives.

    export = open_export("exports/digits.onnx")
    export.predict([{"image": pixels}])

The folder holds data alone: export.json says what there is, every file is a regular one in this
folder whose size and SHA-256 are checked before it is used, and nothing in it chooses a path or a
module outside of danlu's shelves. Imports numpy, pydantic and, by the exporter, its runtime; never
torch, pyarrow, scikit-learn or pandas."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from danlu import registry
from danlu.data import column_pipeline
from danlu.data.column_pipeline import ColumnPipeline
from danlu.data.examples import Ragged, Windows, take_examples
from danlu.data.preprocessing import Preprocessor, refuse_other
from danlu.errors import ArtifactError, DanluError, DataError
from danlu.reading import columns
from danlu.recipe import Part
from danlu.registry_options import part_of
from danlu.system.atomic_files import LARGEST_MANIFEST, parse_checked, read_regular, sha256
from danlu.terms import KINDS, Column, Table

FORMAT = 1
MANIFEST = "export.json"
UNUSABLE = "unusable"  # output int64 (N,): the first feature of a row that is no finite number, -1 where all are
ARRAYS = "preprocessing.safetensors"  # arrays that the transforms outside of the runtime learnt
PLACES_AT_ONCE = 1 << 16  # rows times places of one run
ROWS_AT_ONCE = 256
_LARGEST = 64 << 30  # bytes of one file
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")

Arrays = dict[str, np.ndarray]


@dataclass
class Export:
    """A model in another runtime's form. `about` is the manifest, `inputs` the fields of a row
    (danlu.artifact.row_schema), `kind` "rows" or "text"."""

    path: Path
    about: dict[str, Any]
    inputs: list[dict[str, Any]]
    kind: str
    part: Part
    task: Any
    prepared: Preprocessor
    entering: dict[str, ColumnPipeline]
    run: Callable[[Mapping[str, np.ndarray]], Arrays]

    @property
    def _writes(self) -> bool:
        """Whether an answer is written token by token: each is another run."""
        return hasattr(self.task, "write")

    @property
    def name(self) -> str:
        """The recipe's name."""
        return str(self.about["name"])

    def predict(self, rows: Any) -> list[dict[str, Any]]:
        """One answer a row, as danlu.Artifact.predict gives it. `rows` is a list of dicts, a dict
        of columns or a numpy array.

        Raises DataError naming the row and column that cannot be used.
        """
        return [answer for piece in self.stream(rows) for answer in piece]

    def stream(self, rows: Any) -> Iterator[list[dict[str, Any]]]:
        """The answers of `predict`, piece by piece."""
        table = self.table(rows)
        for outputs, beside, ids in self.outputs(table):
            answers = (
                self.task.write(self.run, outputs)
                if self._writes
                else self.task.told(outputs, beside)
            )
            if hasattr(self.task, "in_words"):
                answers = self.task.in_words(answers, table, ids.tolist())
            yield answers

    def table(self, rows: Any) -> Table:
        """Raw rows as typed columns, in the rows that the task thinks in."""
        table = columns.read_columns(self.about["reads"], rows, "the rows given", plainly=True)
        module = registry.facts("tasks", self.part.name)
        return module.recast(self.part.options, table) if hasattr(module, "recast") else table

    def outputs(self, table: Table) -> Iterator[tuple[Arrays, Arrays, np.ndarray]]:
        """(finished arrays, what the task keeps beside, examples) piece by piece, of all rows of a
        table in order."""
        fields, examples, names = self._examples(table)
        step = _step(fields)
        for start in range(0, len(examples), step):
            ids = examples[start : start + step]
            piece = {name: take_examples(each, ids) for name, each in fields.items()}
            given = {
                key: array
                for name, each in piece.items()
                if name in names
                for key, array in self._fed(name, each).items()
            }
            beside = {
                name: each
                for name, each in piece.items()
                if name not in names and isinstance(each, np.ndarray)
            }
            beside |= {
                f"{name}_sizes": each.sizes
                for name, each in piece.items()
                if isinstance(each, Ragged)
            }
            outputs = given if self._writes else self._sound(self.run(given), table, ids)
            yield outputs, {**given, **beside}, ids

    def _examples(self, table: Table) -> tuple[dict[str, Any], np.ndarray, set[str]]:
        """(what there is of each example, the examples to answer, the names of what the runtime is
        given)."""
        named = {*self.about["feeds"], *(f"column {name}" for name in self.entering)}
        ids = np.arange(len(table))
        if hasattr(self.task, "given"):
            return self.task.given(table, int(self.about["feeds"]["noise"]["shape"][1])), ids, named
        arrays: dict[str, Any] = {
            f"column {name}": self._entered(name, table) for name in self.entering
        }
        if self.prepared.chains or self.prepared.also:
            arrays |= self.prepared.apply(table)
        if hasattr(self.task, "attach"):
            self.task.attach(self.prepared)
        if not self.entering and hasattr(self.task, "frame"):
            found = self.task.frame(arrays, self.prepared.inputs, {}, {"data": ids}, table, True)
            return dict(found.inputs), found.splits["data"], named
        return arrays, ids, named

    def _entered(self, name: str, table: Table) -> np.ndarray:
        """A raw column as the runtime takes it, after the transforms that stay outside."""
        refuse_other(self.about["reads"], table, [name])
        chain = self.entering[name]
        column = chain.run(table.columns[name])
        return entering(column, coded=bool(chain.steps) and chain.cardinality > 0)

    def _sound(self, outputs: Arrays, table: Table, ids: np.ndarray) -> Arrays:
        """The outputs, once no row held a value that the network cannot take."""
        strange = outputs.pop(UNUSABLE, None)
        if strange is not None and (strange >= 0).any():
            row = int(np.flatnonzero(strange >= 0)[0])
            name = self.about["runs"]["features"][int(strange[row])]
            lost = bool(table.columns[name].is_missing()[ids[row]])
            what = "missing and its transforms leave it so" if lost else "too large for a float32"
            raise DataError(
                f"the value is {what}; a model takes finite numbers.",
                where=f"{table.where(int(ids[row]))}, column {name}",
                hint="mend the row",
            )
        return outputs

    def _fed(self, name: str, piece: Any) -> Arrays:
        """What the runtime is given of one input."""
        if not isinstance(piece, Ragged):
            wanted = self.about["feeds"].get(name)
            return {
                name: np.ascontiguousarray(
                    piece if wanted is None else piece.astype(wanted["dtype"], copy=False)
                )
            }
        fixed = self.about["runs"].get("longest", {}).get(name)
        padded = pad(piece, fixed, name)
        return (
            {name: padded, f"{name}_lengths": piece.sizes.astype(np.int64)}
            if piece.lengths
            else {name: padded}
        )


def entering(column: Column, *, coded: bool = False) -> np.ndarray:
    """A typed column as a graph takes it: see the shelf exporters."""
    if column.kind == "number":
        return np.ascontiguousarray(column.values, dtype=np.float64)
    if coded:
        return column.values.astype(np.int64)
    if column.kind == "category":
        return np.array([*column.categories, ""], dtype=object)[column.values]
    return np.ascontiguousarray(column.values)


def pad(rows: Ragged, fixed: int | None, name: str) -> np.ndarray:
    """Rows of unequal length as (N, T) or (N, T, D), T at least 1; int64, or float32 where they are
    frames."""
    sizes = rows.sizes
    longest = max(int(sizes.max(initial=1)), 1)
    if fixed is not None and longest > fixed:
        raise ArtifactError(
            f"a row of {name} has {longest:,} places, and this export takes at most {fixed:,}.",
            hint="cut the row",
        )
    width = longest if fixed is None else fixed
    dtype = np.float32 if rows.values.dtype.kind == "f" else np.int64
    result = np.full((len(rows), width, *rows.values.shape[1:]), rows.fill, dtype=dtype)
    result[np.arange(width) < sizes[:, None]] = rows.values
    return result


def _step(fields: Mapping[str, Any]) -> int:
    """Examples of one run."""
    longest = max(
        (
            int(each.sizes.max(initial=1))
            if isinstance(each, Ragged)
            else each.length
            if isinstance(each, Windows)
            else 1
            for each in fields.values()
        ),
        default=1,
    )
    return max(1, min(ROWS_AT_ONCE, PLACES_AT_ONCE // max(longest, 1)))


# --- opening ------------------------------------------------------------------------------------------------------------


def open_export(path: str | Path) -> Export:
    """The export in a folder, every file verified. Raises ArtifactError naming what is damaged,
    missing or strange."""
    folder = Path(path)
    folder = folder.parent if folder.name == MANIFEST else folder
    about = read_manifest(folder)
    try:
        verify_files(folder, about)
        part = part_of("tasks", about["task"]["part"])
        arrays = _arrays(folder, about)
        prepared = Preprocessor.restore(about["preprocessing"], arrays)
        entering = {
            each["name"]: column_pipeline.restore_pipeline(
                each,
                column_pipeline.checked_schema(about["reads"][each["name"]]),
                f"entering {number}.",
                arrays,
                begun=True,
            )
            for number, each in enumerate(about["entering"])
        }
        task = registry.restore_task(part, about["task"]["state"])
        run = registry.take("exporters", _exporter(about)).start(folder, about["runs"])
        return Export(
            folder,
            about,
            _fields(about["inputs"]),
            str(about["kind"]),
            part,
            task,
            prepared,
            entering,
            run,
        )
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


def _fields(inputs: Any) -> list[dict[str, Any]]:
    """The fields of a row (danlu.artifact.row_schema). ValueError where they are none."""
    for field in inputs:
        sound = (
            isinstance(field["name"], str)
            and field["kind"] in KINDS
            and type(field["required"]) is bool
        )
        if not sound or "example" not in field:
            raise ValueError("its fields are none")
    return list(inputs)


def is_export(path: str | Path) -> bool:
    """Whether a path means the folder of an export."""
    return (Path(path) / MANIFEST).is_file() or Path(path).name == MANIFEST


def read_manifest(folder: Path) -> dict[str, Any]:
    """What export.json says. Raises ArtifactError."""
    where = folder / MANIFEST
    try:
        about = parse_checked(read_regular(where, LARGEST_MANIFEST))
        if about.get("format") != FORMAT:
            raise ValueError(
                f"it is of format {about.get('format')!r}, and this danlu reads format {FORMAT}"
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
    return about


def verify_files(folder: Path, about: Mapping[str, Any]) -> None:
    """Every file that the manifest lists is there, regular, and the one that was written; nothing
    else is. Raises ArtifactError."""
    files = about["files"]
    for name, said in files.items():
        if (
            not sound_name(name)
            or type(said["size"]) is not int
            or not 0 <= said["size"] <= _LARGEST
        ):
            raise ArtifactError(f"{name!r} is no file of an export.", where=str(folder / MANIFEST))
        where = folder / name
        try:
            data = read_regular(where, said["size"])
        except FileNotFoundError:
            raise ArtifactError("the file is missing.", where=str(where)) from None
        except OSError as error:
            raise ArtifactError(
                f"cannot be read: {error.strerror or error}.", where=str(where)
            ) from None
        except ValueError as error:
            raise ArtifactError(f"this export is damaged: {error}.", where=str(where)) from None
        if len(data) != said["size"] or sha256(data) != said["sha256"]:
            raise ArtifactError(
                "this export is damaged: the file is not the one that was written.",
                where=str(where),
            )


def sound_name(name: Any) -> bool:
    """Whether a name is that of a file in a folder, and nothing more."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 100
        and set(name) <= _NAME
        and not name.startswith(".")
    )


def _exporter(about: Mapping[str, Any]) -> str:
    name = about["exporter"]["name"]
    if name not in registry.names("exporters"):
        raise ValueError(f"there is no exporter {name!r}")
    return name


def _arrays(folder: Path, about: Mapping[str, Any]) -> Arrays:
    if ARRAYS not in about["files"]:
        return {}
    from safetensors.numpy import load

    return load(read_regular(folder / ARRAYS, about["files"][ARRAYS]["size"]))


__all__ = ["Export", "entering", "is_export", "open_export"]
