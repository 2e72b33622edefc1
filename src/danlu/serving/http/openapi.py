"""The OpenAPI description of what is served: of each model its own typed row, its answer, and an example that works as it stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from danlu.serving.pool.pool import Served

_MOST_LISTED = 200  # categories that are named one by one
_ERROR = {"$ref": "#/components/schemas/Error"}
_REFUSALS = {
    "400": "A field, row or body that cannot be used; the error names it.",
    "401": "A token is needed.",
    "413": "Too large, or too many rows.",
    "415": "A body of a type that is not read.",
    "503": "The server is full or about to end: ask again after the seconds of Retry-After.",
    "504": "There was no answer within the time that was given.",
}


def field_schema(field: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of one field of a row."""
    kind = field["kind"]
    if kind == "number":
        made: dict[str, Any] = {"type": "number"}
        if "minimum" in field:
            made["description"] = f"In training {field['minimum']:g} to {field['maximum']:g}."
        if "width" in field:
            made = {
                "type": "array",
                "items": {"type": "number"},
                "minItems": field["width"],
                "maxItems": field["width"],
            }
    elif kind == "category":
        known = field.get("categories", [])
        made = {"type": "string"}
        if 0 < len(known) <= _MOST_LISTED:
            made["description"] = (
                "In training: " + ", ".join(map(str, known)) + ". Others are answered as unknown."
            )
    elif kind == "boolean":
        made = {"type": "boolean"}
    elif kind == "datetime":
        made = {"type": "string", "description": "A moment: 2024-01-31 or 2024-01-31T12:00:00."}
    elif kind == "image":
        made = _image(field)
    elif kind == "audio":
        made = {
            "type": "string",
            "contentEncoding": "base64",
            "description": f"A recording, in base64; read at {field['rate']:,} Hz.",
        }
    elif kind == "sequence":
        made = {"type": "array", "items": {"type": ["string", "null"]}}
    elif kind == "frames":
        made = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    else:
        made = {"type": "string"}
    if not field.get("required", True) and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    return {**made, "examples": [field["example"]]}


def _image(field: dict[str, Any]) -> dict[str, Any]:
    height, width, channels = field["shape"]
    bytes_ = {
        "type": "string",
        "contentEncoding": "base64",
        "description": "An image file in base64, or a data URL.",
    }
    pixel: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": 255}
    if channels > 1:
        pixel = {"type": "array", "items": pixel, "minItems": channels, "maxItems": channels}
    rows = {
        "type": "array",
        "items": {"type": "array", "items": pixel},
        "description": "Rows of pixels.",
    }
    return {
        "anyOf": [bytes_, rows],
        "description": f"Resized to {height} x {width} pixels, {'grey' if channels == 1 else 'colour'}.",
    }


def example(fields: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A row that the model answers."""
    return {field["name"]: field["example"] for field in fields}


def row_schema(fields: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON Schema of a row."""
    return {
        "type": "object",
        "properties": {field["name"]: field_schema(field) for field in fields},
        "required": [field["name"] for field in fields],
        "additionalProperties": True,
        "examples": [example(fields)],
    }


def complete(described: dict[str, Any], served: Iterable[Served], token: bool) -> dict[str, Any]:
    """An OpenAPI description with the routes of every model that answers rows added."""
    parts = described.setdefault("components", {}).setdefault("schemas", {})
    parts["Error"] = {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": {"type": "string"},
                    "field": {"type": ["string", "null"]},
                    "row": {"type": ["integer", "null"], "description": "Counted from 1."},
                    "hint": {"type": "string"},
                },
            }
        },
    }
    first = True
    for each in served:
        if each.writes:
            continue
        paths = ["/v1/predict"] * first + [f"/v1/models/{each.name}/predict"]
        first = False
        for path in paths:
            described["paths"][path] = {"post": _operation(each, path)}
        parts[f"Row of {each.name}".replace(" ", "_")] = row_schema(each.about["fields"])
    if token:
        described["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        described["security"] = [{"token": []}]
    return described


def _operation(served: Served, path: str) -> dict[str, Any]:
    fields = served.about["fields"]
    row = {"$ref": f"#/components/schemas/Row_of_{served.name}"}
    json_body = {
        "oneOf": [
            {"type": "object", "properties": {"row": row}, "required": ["row"]},
            {
                "type": "object",
                "properties": {"rows": {"type": "array", "items": row, "minItems": 1}},
                "required": ["rows"],
            },
        ]
    }
    bodies: dict[str, Any] = {
        "application/json": {"schema": json_body, "example": {"rows": [example(fields)]}}
    }
    files = [field for field in fields if field["kind"] in ("image", "audio")]
    if not files:
        bodies["text/csv"] = {
            "schema": {"type": "string", "description": "A line of names, then a line a row."}
        }
    form = {
        field["name"]: {"type": "string", "contentMediaType": "application/octet-stream"}
        if field in files
        else {"type": "string"}
        for field in fields
    }
    bodies["multipart/form-data"] = {"schema": {"type": "object", "properties": form}}
    if len(fields) == 1 and files:
        bodies[f"{fields[0]['kind']}/*"] = {"schema": {}}
    answer = {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "answers": {"type": "array", "items": _answer(served.about["card"])},
        },
        "required": ["model", "answers"],
    }
    return {
        "summary": f"Answers of {served.name}",
        "operationId": "predict" + ("" if path == "/v1/predict" else "_" + served.name),
        "parameters": [
            {
                "name": "X-Deadline-Ms", "in": "header", "required": False, "schema": {"type": "integer", "minimum": 1},
                "description": "Milliseconds after which an answer is of no use.",
            }
        ],
        "requestBody": {"required": True, "content": bodies},
        "responses": {
            "200": {"description": "An answer a row.", "content": {"application/json": {"schema": answer}}},
            **{status: {"description": told, "content": {"application/json": {"schema": _ERROR}}} for status, told in _REFUSALS.items()},
        },
    }  # fmt: skip


def _answer(card: dict[str, Any]) -> dict[str, Any]:
    classes = card.get("classes") or []
    made: dict[str, Any] = {
        "type": "object",
        "properties": {"prediction": {}},
        "required": ["prediction"],
    }
    if classes and card.get("task") == "classification":
        made["properties"]["prediction"] = {"enum": classes}
        names = [str(each) for each in classes]
        made["properties"]["probabilities"] = {
            "type": "object", "properties": {name: {"type": "number", "minimum": 0, "maximum": 1} for name in names},
        }  # fmt: skip
    return made
