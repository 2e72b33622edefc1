"""The pipeline of one column: its transforms, fitted in order, stored, and restored with checks.

A pipeline begins with a raw column of the table and ends in an input of a model: numbers, codes of
categories, an image, tokens or frames."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Required, TypedDict, cast

import numpy as np

from danlu import registry
from danlu.data import matrix
from danlu.errors import ArtifactError, DataError
from danlu.recipe import Options, Part
from danlu.system import atomic_files
from danlu.terms import KINDS, MISSING_DATETIME, Column, Kind

# the kind of column that a pipeline ends in -> the kind of input it becomes
INPUT_OF_KIND = {
    "number": "numbers",
    "category": "categories",
    "image": "image",
    "sequence": "tokens",
    "frames": "frames",
}
DEFAULT_TRANSFORM = {"image": "scale_pixels", "sequence": "vocabulary", "audio": "log_mel"}
RESULTS = 1  # increased when a transform's result changes, so that cached columns are computed anew
MOST_LISTED = 1000  # categories that are written into the schema


class ColumnSchema(TypedDict, total=False):
    """What a row to predict must hold in a column; JSON values.

    kind                 the kind of column
    shape                image: [height, width, channels]
    width, names         a wide number column, frames: how many numbers a row or frame holds, and
                         their names
    minimum, maximum     number: the range of the training rows
    categories           category: those of the training rows, sorted; absent where there are many
    rate                 audio: samples per second"""

    kind: Required[Kind]
    shape: list[int]
    width: int
    names: list[str]
    minimum: float
    maximum: float
    categories: list[str]
    rate: int


class _Sizes(TypedDict):
    """The sizes in a schema; each is read only for the kinds that have it."""

    shape: list[int]
    width: int
    rate: int


class _ArrayForm(TypedDict):
    shape: list[int]
    dtype: str


class _StoredStep(TypedDict):
    part: dict[str, Any]
    state: dict[str, Any]
    arrays: dict[str, _ArrayForm]


class _StoredPipeline(TypedDict, total=False):
    """The JSON values of `ColumnPipeline.state`; the last two only where the length counts."""

    name: Required[str]
    to: Required[str]
    names: Required[list[str]]
    cardinality: Required[int]
    steps: Required[list[_StoredStep]]
    cardinalities: list[int]
    longest: int


@dataclass(frozen=True)
class ColumnPipeline:
    """The fitted transforms of one column.

    name            the column
    steps           (transform, its fitted state), in order
    input_kind      the kind of model input it ends in: "numbers", "categories", "image", "tokens"
                    or "frames"
    names           numbers, frames: the features; tokens with several codes per position: the codes
    cardinality     categories: how many codes there are
    cardinalities   tokens: how many values each of the codes of a position has
    longest         tokens, frames: the length that a model must be ready for"""

    name: str
    steps: tuple[tuple[Part, dict[str, Any]], ...]
    input_kind: str
    names: tuple[str, ...] = ()
    cardinality: int = 0
    cardinalities: tuple[int, ...] = ()
    longest: int = 0

    def run(self, column: Column) -> Column:
        """The column after every step."""
        for part, state in self.steps:
            column = _apply(part, state, column)
        return column

    def probe(self, count: int, schema: Mapping[str, object]) -> Column:
        """The result of the first `count` steps for three sample rows of the column's schema."""
        return ColumnPipeline(self.name, self.steps[:count], self.input_kind).run(
            probe_rows(self.name, schema)
        )

    def first_steps(self, count: int) -> ColumnPipeline:
        """A pipeline of the first `count` steps."""
        return replace(self, steps=self.steps[:count])

    @property
    def pixels(self) -> dict[str, list[float]]:
        """The normalising constants of an image, {"mean": [...], "std": [...]} per channel; 0 and 1
        where no transform learnt any."""
        learnt = [state["pixels"] for _, state in self.steps if "pixels" in state]
        return learnt[-1] if learnt else {"mean": [0.0], "std": [1.0]}

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the steps, their fitted state, and the version of danlu."""
        arrays: dict[str, np.ndarray] = {}
        stored = self.state("", arrays)
        hashes = {
            name: atomic_files.sha256(np.ascontiguousarray(array).data)
            for name, array in arrays.items()
        }
        contents = {
            "steps": stored["steps"],
            "arrays": hashes,
            "version": RESULTS,
            "danlu": importlib.metadata.version("danlu"),
        }
        return atomic_files.sha256(json.dumps(contents, sort_keys=True).encode())

    def state(self, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, object]:
        """The pipeline as JSON values, from which `restore_pipeline` builds an equal one. Arrays
        are put into `arrays`, under names that begin with `prefix`."""
        steps: list[_StoredStep] = []
        for number, (part, state) in enumerate(self.steps):
            learnt: dict[str, np.ndarray] = {
                key: value for key, value in state.items() if isinstance(value, np.ndarray)
            }
            arrays.update({f"{prefix}{number}.{key}": value for key, value in learnt.items()})
            steps.append(
                {
                    "part": part.as_dict(),
                    "state": {key: value for key, value in state.items() if key not in learnt},
                    "arrays": {
                        key: {"shape": list(value.shape), "dtype": str(value.dtype)}
                        for key, value in learnt.items()
                    },
                }
            )
        result: dict[str, object] = {
            "name": self.name,
            "to": self.input_kind,
            "names": list(self.names),
            "cardinality": self.cardinality,
            "steps": steps,
        }
        if self.longest:
            result |= {"cardinalities": list(self.cardinalities), "longest": self.longest}
        return result


def _apply(part: Part, state: dict[str, Any], column: Column) -> Column:
    return registry.transform(part.name).apply(part.options, state, column)


# --- fitting --------------------------------------------------------------------------------------


def default_transforms(kind: Kind, takes: Sequence[str]) -> list[Part]:
    """The transforms of a kind of column where the recipe names none, for a model that takes the
    kinds of inputs `takes`.

    >>> [part.name for part in default_transforms("number", ["numbers"])]
    ['impute', 'scale']
    """
    if kind == "number":
        return [_part("impute"), _part("scale")]
    if kind == "category":
        return [_part("group_rare"), _part("encode" if "categories" in takes else "one_hot")]
    if kind == "boolean":
        return [_part("boolean_to_number"), _part("impute", strategy="most_frequent")]
    if kind == "datetime":
        return [_part("date_parts"), _part("impute"), _part("scale")]
    if kind == "text":
        return [_part("tokenize" if "tokens" in takes else "hash_words")]
    return [_part(DEFAULT_TRANSFORM[kind])] if kind in DEFAULT_TRANSFORM else []


def _part(name: str, **options: Any) -> Part:
    return Part(name, registry.config("transforms", name)(**options))


def fit_pipeline(column: Column, parts: Sequence[Part], takes: Sequence[str]) -> ColumnPipeline:
    """The pipeline of the transforms `parts`, fitted to the training rows of a column, for a model
    that takes the kinds of inputs `takes`.

    A column that is still a category after the last transform is encoded, or one-hot encoded where
    the model takes no categories. DataError naming the column where a transform does not take the
    kind it is given, or the model does not take the last one.

    >>> column = Column("x", "number", np.array([1.0, 3.0]))
    >>> pipeline = fit_pipeline(column, default_transforms("number", ["numbers"]), ["numbers"])
    >>> pipeline.run(column).values.tolist()
    [-1.0, 1.0]
    """
    fitting = _Fitting(column, parts)
    for part in parts:
        fitting.add(part)
    if fitting.kind == "category" and "categories" not in takes:
        fitting.add(_part("one_hot"))
    elif fitting.kind == "category" and (
        not fitting.steps or fitting.steps[-1][0].name != "encode"
    ):
        fitting.add(_part("encode"))
    return fitting.pipeline(takes)


class _Fitting:
    """A pipeline while it is fitted. A step runs over all rows only when another step is to be
    fitted to its result."""

    def __init__(self, column: Column, parts: Sequence[Part]) -> None:
        self.column = column
        self.where = f"column {column.name}"
        self.names_of_parts = f"[{', '.join(part.name for part in parts)}]"
        self.steps: list[tuple[Part, dict[str, Any]]] = []
        self.whole = column  # before the last step
        self.head = matrix.row_range(
            column, 0, 1
        )  # after it: one row, enough to know kind and names

    @property
    def kind(self) -> Kind:
        return self.head.kind

    def add(self, part: Part) -> None:
        module = registry.transform(part.name)
        if self.kind not in module.takes:
            became = "" if self.kind == self.column.kind else f" (it was {self.column.kind} before)"
            raise DataError(
                f"{part.name} takes {' or '.join(module.takes)}, and the column holds "
                f"{self.kind} at this point{became}.",
                where=self.where,
                hint=f"its transforms are {self.names_of_parts}; put another in their place, or "
                "set the kind of the column",
            )
        if self.steps:
            self.whole = _apply(*self.steps[-1], self.whole)
        state = module.fit(part.options, self.whole)
        self.head = _apply(part, state, self.head)
        self.steps.append((part, state))

    def pipeline(self, takes: Sequence[str]) -> ColumnPipeline:
        if self.kind not in INPUT_OF_KIND:
            ends = {
                "boolean": "boolean_to_number",
                "datetime": "date_parts",
                "text": "hash_words",
                "audio": "log_mel",
            }
            raise DataError(
                f"the transforms {self.names_of_parts} end in {self.kind}, which no model takes.",
                where=self.where,
                hint=f"let {ends[self.kind]} follow",
            )
        if self.kind == "number" and "numbers" not in takes:
            raise DataError(
                f"the transforms {self.names_of_parts} end in numbers, which the model does not "
                f"take (it takes {', '.join(takes)}).",
                where=self.where,
                hint=f"set data.columns.{self.column.name}.use to false, or choose another model",
            )
        if self.kind in ("sequence", "frames"):
            return self._ragged(takes)
        names = matrix.feature_names(self.head) if self.kind == "number" else ()
        cardinality = len(self.head.categories) if self.kind == "category" else 0
        return ColumnPipeline(
            self.column.name, tuple(self.steps), INPUT_OF_KIND[self.kind], names, cardinality
        )

    def _ragged(self, takes: Sequence[str]) -> ColumnPipeline:
        """The pipeline of a column that ends in tokens or frames."""
        end = INPUT_OF_KIND[self.kind]
        if end not in takes:
            raise DataError(
                f"the transforms {self.names_of_parts} end in {end}, which the model does not "
                f"take (it takes {', '.join(takes)}).",
                where=self.where,
                hint=f"set data.columns.{self.column.name}.use to false, or choose another model",
            )
        if self.kind == "sequence" and not self.head.cardinalities:
            raise DataError(
                f"the transforms {self.names_of_parts} leave the sequence as it is, and a model "
                "takes tokens.",
                where=self.where,
                hint="let vocabulary follow",
            )
        learnt = [state["longest"] for _, state in self.steps if "longest" in state]
        longest = learnt[-1] if learnt else _longest(self.whole)
        names = _frame_names(self.head) if self.kind == "frames" else self.head.names
        return ColumnPipeline(
            self.column.name,
            tuple(self.steps),
            end,
            names,
            cardinalities=self.head.cardinalities,
            longest=max(int(longest), 1),
        )


def _longest(column: Column) -> int:
    return int(np.diff(column.offsets).max(initial=1)) if column.offsets is not None else 1


def _frame_names(column: Column) -> tuple[str, ...]:
    width = column.values.shape[1]
    return (
        column.names
        if len(column.names) == width
        else tuple(f"{column.name}_{number}" for number in range(width))
    )


def column_schema(column: Column) -> ColumnSchema:
    """What a row to predict must hold in a column, from its training rows; JSON values.

    >>> column_schema(Column("x", "number", np.array([1.0, 3.0])))
    {'kind': 'number', 'minimum': 1.0, 'maximum': 3.0}
    """
    schema: ColumnSchema = {"kind": column.kind}
    if column.kind == "image":
        schema["shape"] = [int(size) for size in column.values.shape[1:]]
    elif column.kind == "number" and column.values.ndim == 2:
        schema["width"] = int(column.values.shape[1])
        schema["names"] = list(matrix.feature_names(column))
    elif column.kind == "number":
        finite = column.values[np.isfinite(column.values)]
        if len(finite):
            schema["minimum"], schema["maximum"] = float(finite.min()), float(finite.max())
    elif column.kind == "category":
        codes: list[int] = np.unique(column.values[column.values >= 0]).tolist()
        seen = [column.categories[code] for code in codes]
        if len(seen) <= MOST_LISTED:
            schema["categories"] = sorted(seen)
    elif column.kind == "frames":
        schema["width"] = int(column.values.shape[1])
        schema["names"] = list(_frame_names(column))
    elif column.kind == "audio":
        schema["rate"] = column.rate
    return schema


# --- restoring ------------------------------------------------------------------------------------


def damaged_error(what: str) -> ArtifactError:
    """The error for a stored state that danlu did not write; `what` says why."""
    return ArtifactError(
        f"the preprocessing in the artifact cannot be read: {what}.",
        hint="train again, or take another copy of the artifact",
    )


def require(holds: bool, otherwise: str) -> None:
    """Raises ArtifactError with the message `otherwise` unless `holds`.

    >>> require(False, "its schema is empty")
    Traceback (most recent call last):
    danlu.errors.ArtifactError: the preprocessing in the artifact cannot be read: its schema is...
    """
    if not holds:
        raise damaged_error(otherwise)


def checked_schema(schema: Mapping[str, object]) -> ColumnSchema:
    """A column's stored schema with plausible sizes; ArtifactError otherwise.

    >>> checked_schema({"kind": "number", "width": 3})
    {'kind': 'number', 'width': 3}
    """
    require(schema["kind"] in KINDS, f"{schema['kind']!r} is no kind of column")
    sizes = cast("_Sizes", schema)
    if schema["kind"] == "image":
        shape = sizes["shape"]
        require(
            len(shape) == 3 and all(type(size) is int and 0 < size < 2**16 for size in shape),
            f"{shape!r} is no shape of images",
        )
        require(shape[0] * shape[1] * shape[2] < 2**28, f"{shape!r} is too large for images")
    if "width" in schema:
        require(
            type(sizes["width"]) is int and 0 < sizes["width"] < 2**22,
            f"{schema['width']!r} is no width",
        )
    if "rate" in schema:
        require(
            type(sizes["rate"]) is int and 0 < sizes["rate"] < 2**24,
            f"{schema['rate']!r} is no sampling rate",
        )
    return cast("ColumnSchema", dict(schema))


def restore_pipeline(
    state: Mapping[str, object],
    schema: Mapping[str, object],
    prefix: str,
    arrays: Mapping[str, np.ndarray],
    *,
    begun: bool = False,
) -> ColumnPipeline:
    """The pipeline that returned this `state`, with its arrays from `arrays`.

    `begun`: the state holds only the first steps of a pipeline, which need not end in an input. The
    pipeline is run on three sample rows of the column's `schema`. ArtifactError where an array or
    the result is not as the state says; other errors where the state has another form."""
    stored = cast("_StoredPipeline", state)
    steps: list[tuple[Part, dict[str, Any]]] = []
    for number, step in enumerate(stored["steps"]):
        options = {key: value for key, value in step["part"].items() if key != "name"}
        config: type[Options] = registry.config("transforms", step["part"]["name"])
        step_state = dict(step["state"])
        for key, form in step["arrays"].items():
            step_state[key] = _checked_array(
                arrays[f"{prefix}{number}.{key}"],
                form,
                f"the array {key} of column {stored['name']}",
            )
        steps.append((Part(step["part"]["name"], config.model_validate(options)), step_state))
    require(
        stored["to"] in INPUT_OF_KIND.values() and type(stored["cardinality"]) is int,
        f"column {stored['name']} leads nowhere",
    )
    names = tuple(str(name) for name in stored["names"])
    cardinalities, longest = stored.get("cardinalities", []), stored.get("longest", 0)
    require(
        all(type(size) is int and 0 < size < 2**31 for size in [*cardinalities, longest + 1]),
        f"column {stored['name']} has no sizes",
    )
    pipeline = ColumnPipeline(
        str(stored["name"]),
        tuple(steps),
        stored["to"],
        names,
        stored["cardinality"],
        tuple(cardinalities),
        longest,
    )
    if begun:
        require(
            len(pipeline.run(probe_rows(pipeline.name, schema))) == 3,
            f"column {state['name']} gives other rows than it takes",
        )
    else:
        _try_out(pipeline, schema)
    return pipeline


def _checked_array(array: np.ndarray, form: _ArrayForm, called: str) -> np.ndarray:
    agrees = (
        list(array.shape) == form["shape"]
        and str(array.dtype) == form["dtype"]
        and array.dtype.kind in "iufb"
    )
    require(agrees, f"{called} has another shape or type")
    require(bool(np.isfinite(array).all()), f"{called} holds a number that is not finite")
    return array


def _try_out(pipeline: ColumnPipeline, schema: Mapping[str, object]) -> None:
    """Runs a pipeline on three sample rows; ArtifactError unless the result is as its state
    says."""
    result = pipeline.run(probe_rows(pipeline.name, schema))
    leads = INPUT_OF_KIND.get(result.kind)
    require(
        leads == pipeline.input_kind and len(result) == 3,
        f"column {pipeline.name} leads to {result.kind}, not to {pipeline.input_kind}",
    )
    if pipeline.input_kind == "numbers":
        require(
            matrix.feature_names(result) == pipeline.names,
            f"column {pipeline.name} gives other features than it says",
        )
    if pipeline.input_kind == "categories":
        require(
            len(result.categories) == pipeline.cardinality,
            f"column {pipeline.name} gives other codes than it says",
        )
    if pipeline.input_kind == "tokens":
        sound = result.cardinalities == pipeline.cardinalities and result.values.dtype.kind in "iu"
        require(sound, f"column {pipeline.name} gives other tokens than it says")
        codes = result.values.reshape(len(result.values), -1).astype(np.int64)
        require(
            bool(((codes >= 0) & (codes < pipeline.cardinalities)).all()),
            f"column {pipeline.name} gives tokens beyond its vocabulary",
        )
    if pipeline.input_kind == "frames":
        require(
            _frame_names(result) == pipeline.names,
            f"column {pipeline.name} gives other features than it says",
        )
    if pipeline.input_kind == "image":
        mean, std = pipeline.pixels["mean"], pipeline.pixels["std"]
        numbers = all(type(number) is float and np.isfinite(number) for number in [*mean, *std])
        fits = {len(mean), len(std)} <= {1, cast("_Sizes", schema)["shape"][2]}
        require(
            numbers and fits and min(std) > 0,
            f"the scale of the pixels of column {pipeline.name} is no scale",
        )


def probe_rows(name: str, schema: Mapping[str, object]) -> Column:
    """Three sample rows of a column with this schema, the first of them missing (where it can be).

    >>> probe_rows("x", {"kind": "number"}).values.tolist()
    [nan, 0.0, 1.0]
    """
    described, sizes = cast("ColumnSchema", schema), cast("_Sizes", schema)
    kind = described["kind"]
    if kind == "image":
        return Column(name, kind, np.zeros((3, *sizes["shape"]), dtype=np.uint8))
    if kind == "text":
        lost = np.array([True, False, False])
        return Column(
            name,
            kind,
            np.frombuffer(b"ab", dtype=np.uint8),
            offsets=np.array([0, 0, 1, 2]),
            missing=lost,
        )
    if kind == "number":
        values = np.array([np.nan, 0, 1])
        wide = np.repeat(values[:, None], sizes["width"], axis=1) if "width" in schema else values
        return Column(name, kind, wide, names=tuple(described.get("names", ())))
    if kind == "datetime":
        return Column(name, kind, np.array([MISSING_DATETIME, 0, 1], dtype=np.int64))
    if kind == "boolean":
        return Column(name, kind, np.array([-1, 0, 1], dtype=np.int8))
    if kind in ("sequence", "frames", "audio"):
        return _a_few_ragged(name, schema)
    categories = (
        *described.get("categories", ())[:1],
        "\0",
    )  # a category of training where there is one, and one that is surely unknown
    return Column(
        name, kind, np.array([-1, 0, len(categories) - 1], dtype=np.int32), categories=categories
    )


def _a_few_ragged(name: str, schema: Mapping[str, object]) -> Column:
    """Three sample rows of a sequence, of frames or of audio, the first of them missing."""
    described, sizes = cast("ColumnSchema", schema), cast("_Sizes", schema)
    kind = described["kind"]
    lost = np.array([True, False, False])
    if kind == "sequence":
        codes = np.array([0, 1, 0], dtype=np.int32)
        return Column(
            name, kind, codes, categories=("a", "\0"), offsets=np.array([0, 0, 1, 3]), missing=lost
        )
    if kind == "frames":
        values = np.arange(3.0, dtype=np.float32)[:, None].repeat(sizes["width"], axis=1)
        return Column(
            name,
            kind,
            values,
            offsets=np.array([0, 0, 1, 3]),
            missing=lost,
            names=tuple(described.get("names", ())),
        )
    rate = sizes["rate"]
    values = (1000 * np.sin(np.arange(rate // 2))).astype(np.int16)
    return Column(
        name,
        kind,
        values,
        offsets=np.array([0, 0, rate // 4, len(values)]),
        missing=lost,
        rate=rate,
    )
