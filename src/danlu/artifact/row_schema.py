"""The fields of one raw row to predict, as JSON values: for forms, schemas and cards.

A field has these keys; keys that do not apply are left out.

    name, kind         the column, and its kind (danlu.terms.Kind)
    required           whether a value must be given; the column itself must always be there
    categories         those of the training rows
    shape              [height, width, channels] of an image
    rate               samples per second of a recording
    width              numbers per value
    minimum, maximum   of the training rows
    example            a value
"""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Required, TypedDict, cast

import numpy as np

from danlu.data import column_pipeline
from danlu.parts.tasks._base import ExportsGenerator
from danlu.system.image_grid import encode_png
from danlu.terms import Json

if TYPE_CHECKING:
    from danlu.artifact.artifact import Contents

_MOMENT = "2024-01-31 12:00:00"


class _Schema(TypedDict, total=False):
    """What a column schema says that an example value depends on."""

    kind: Required[str]
    minimum: float
    maximum: float
    width: int
    categories: Sequence[str]
    shape: Required[Sequence[int]]  # of images
    rate: Required[int]  # of recordings


class _FramesSchema(TypedDict):
    width: int


def row_fields(contents: Contents) -> list[dict[str, object]]:
    """The fields of a row that `predict` takes, in the order of the columns."""
    task = contents.task
    generates = isinstance(task, ExportsGenerator)  # its rows ask for images
    pipelines = (
        {} if generates else {chain.name: chain for chain in contents.preprocessor.pipelines}
    )
    fields: list[dict[str, object]] = []
    schemas = (
        task.row_schema()
        if isinstance(task, ExportsGenerator)
        else contents.preprocessor.row_schema
    )
    for name, schema in schemas.items():
        required = _needs_a_value(pipelines[name], schema) if name in pipelines else True
        values: dict[str, object] = {**schema}
        facts = {
            key: values[key]
            for key in ("categories", "shape", "rate", "width", "minimum", "maximum")
            if key in values
        }
        fields.append(
            {
                "name": name,
                "kind": schema["kind"],
                "required": required,
                **facts,
                "example": example_value(schema),
            }
        )
    return fields


def _needs_a_value(chain: column_pipeline.ColumnPipeline, schema: Mapping[str, object]) -> bool:
    """Whether the transforms leave a missing value missing, so that a value must be given."""
    if chain.input_kind in ("image", "frames"):
        return True
    rows = chain.run(column_pipeline.probe_rows(chain.name, schema))  # the first of them is missing
    return chain.input_kind == "numbers" and bool(
        np.isnan(np.asarray(rows.values[:1], dtype=np.float64)).any()
    )


def example_value(schema: Mapping[str, object]) -> Json:
    """A value that a column of this schema could hold, as a JSON value.

    >>> example_value({"kind": "number", "minimum": 1.0, "maximum": 3.0})
    2.0
    """
    sizes = cast("_Schema", schema)  # a stored schema is checked where it is read
    kind = sizes["kind"]
    if kind == "number":
        low, high = sizes.get("minimum", 0.0), sizes.get("maximum", 1.0)
        middle = float(f"{low / 2 + high / 2:.3g}")
        value = middle if low <= middle <= high else low
        return [0.0] * sizes["width"] if "width" in sizes else value
    if kind == "category":
        return next(iter(sizes.get("categories", ())), "name")
    if kind == "boolean":
        return True
    if kind == "datetime":
        return _MOMENT
    if kind == "sequence":
        return ["some", "words"]
    if kind == "frames":
        return [[0.0] * cast("_FramesSchema", schema)["width"]] * 2
    if kind == "image":
        return _data_url("image/png", encode_png(np.full(sizes["shape"], 128, dtype=np.uint8)))
    if kind == "audio":
        return _data_url("audio/wav", _silence(sizes["rate"]))
    return "some text"


def _silence(rate: int) -> bytes:
    """A tenth of a second as a WAV file."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(bytes(2 * max(rate // 10, 1)))
    return buffer.getvalue()


def _data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
