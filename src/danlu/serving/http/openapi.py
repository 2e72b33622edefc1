"""The OpenAPI description of the served models.

Each model that answers rows gets the schema of its own row, of its answer, and an example that
works as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from danlu.serving.protocol.messages import RowField

if TYPE_CHECKING:
    from danlu.serving.pool.served_model import ServedModel

Schema = dict[str, Any]  # JSON Schema

_MAX_LISTED = 200  # categories that are named one by one
_ERROR = {"$ref": "#/components/schemas/Error"}
_REFUSALS = {
    "400": "A field, row or body that cannot be used; the error names it.",
    "401": "A token is needed.",
    "413": "Too large, or too many rows.",
    "415": "A body of a type that is not read.",
    "503": "The server is full or shutting down: ask again after the seconds of Retry-After.",
    "504": "There was no answer before the deadline.",
}
_ERROR_SCHEMA: Schema = {
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


def field_schema(field: RowField) -> Schema:
    """The JSON Schema of one field of a row.

    >>> field_schema({"name": "member", "kind": "boolean", "example": True})
    {'type': 'boolean', 'examples': [True]}
    """
    schema = _kind_schema(field)
    if not field.get("required", True) and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
    return {**schema, "examples": [field["example"]]}


def _kind_schema(field: RowField) -> Schema:
    kind = field["kind"]
    if kind == "number":
        return _number(field)
    if kind == "category":
        return _category(field)
    if kind == "image":
        return _image(field)
    if kind == "boolean":
        return {"type": "boolean"}
    if kind == "datetime":
        return {"type": "string", "description": "A moment: 2024-01-31 or 2024-01-31T12:00:00."}
    if kind == "audio":
        description = f"A recording, in base64; read at {field['rate']:,} Hz."
        return {"type": "string", "contentEncoding": "base64", "description": description}
    if kind == "sequence":
        return {"type": "array", "items": {"type": ["string", "null"]}}
    if kind == "frames":
        return {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    return {"type": "string"}


def _number(field: RowField) -> Schema:
    if "width" in field:
        width = field["width"]
        items = {"type": "number"}
        return {"type": "array", "items": items, "minItems": width, "maxItems": width}
    schema: Schema = {"type": "number"}
    if "minimum" in field:
        schema["description"] = f"In training {field['minimum']:g} to {field['maximum']:g}."
    return schema


def _category(field: RowField) -> Schema:
    categories = field.get("categories", [])
    schema: Schema = {"type": "string"}
    if 0 < len(categories) <= _MAX_LISTED:
        names = ", ".join(map(str, categories))
        schema["description"] = f"In training: {names}. Others are answered as unknown."
    return schema


def _image(field: RowField) -> Schema:
    height, width, channels = field["shape"]
    file = {
        "type": "string",
        "contentEncoding": "base64",
        "description": "An image file in base64, or a data URL.",
    }
    pixel: Schema = {"type": "integer", "minimum": 0, "maximum": 255}
    if channels > 1:
        pixel = {"type": "array", "items": pixel, "minItems": channels, "maxItems": channels}
    rows = {
        "type": "array",
        "items": {"type": "array", "items": pixel},
        "description": "Rows of pixels.",
    }
    colour = "grey" if channels == 1 else "colour"
    return {
        "anyOf": [file, rows],
        "description": f"Resized to {height} x {width} pixels, {colour}.",
    }


def example(fields: Iterable[RowField]) -> dict[str, object]:
    """A row that the model answers.

    >>> example([{"name": "age", "kind": "number", "example": 30.0}])
    {'age': 30.0}
    """
    return {field["name"]: field["example"] for field in fields}


def row_schema(fields: list[RowField]) -> Schema:
    """The JSON Schema of a row."""
    return {
        "type": "object",
        "properties": {field["name"]: field_schema(field) for field in fields},
        "required": [field["name"] for field in fields],
        "additionalProperties": True,
        "examples": [example(fields)],
    }


def complete(description: Schema, models: Iterable[ServedModel], token: bool) -> Schema:
    """An OpenAPI description with the routes of every model that answers rows added, and with the
    token where the server wants one."""
    schemas = description.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"] = _ERROR_SCHEMA
    first = True
    for model in models:
        if model.writes_text:
            continue
        paths = ["/v1/predict"] * first + [f"/v1/models/{model.name}/predict"]
        first = False
        for path in paths:
            description["paths"][path] = {"post": _operation(model, path)}
        fields = model.description.get("fields", [])
        schemas[f"Row of {model.name}".replace(" ", "_")] = row_schema(fields)
    if token:
        scheme = {"token": {"type": "http", "scheme": "bearer"}}
        description["components"]["securitySchemes"] = scheme
        description["security"] = [{"token": []}]
    return description


def _operation(model: ServedModel, path: str) -> Schema:
    answer = {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "answers": {
                "type": "array",
                "items": _answer_schema(model.description.get("card", {})),
            },
        },
        "required": ["model", "answers"],
    }
    responses: Schema = {
        "200": {
            "description": "One answer per row.",
            "content": {"application/json": {"schema": answer}},
        }
    }
    for status, text in _REFUSALS.items():
        content = {"application/json": {"schema": _ERROR}}
        responses[status] = {"description": text, "content": content}
    deadline = {
        "name": "X-Deadline-Ms",
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": 1},
        "description": "Milliseconds after which an answer is of no use.",
    }
    return {
        "summary": f"Answers of {model.name}",
        "operationId": "predict" + ("" if path == "/v1/predict" else "_" + model.name),
        "parameters": [deadline],
        "requestBody": {"required": True, "content": _bodies(model)},
        "responses": responses,
    }


def _bodies(model: ServedModel) -> Schema:
    """The bodies that a model's route reads, by content type."""
    fields = model.description.get("fields", [])
    row = {"$ref": f"#/components/schemas/Row_of_{model.name}"}
    rows = {"type": "array", "items": row, "minItems": 1}
    json_body = {
        "oneOf": [
            {"type": "object", "properties": {"row": row}, "required": ["row"]},
            {"type": "object", "properties": {"rows": rows}, "required": ["rows"]},
        ]
    }
    bodies: Schema = {
        "application/json": {"schema": json_body, "example": {"rows": [example(fields)]}}
    }
    files = [field for field in fields if field["kind"] in ("image", "audio")]
    if not files:
        description = "A line of names, then one line per row."
        bodies["text/csv"] = {"schema": {"type": "string", "description": description}}
    form = {
        field["name"]: {"type": "string", "contentMediaType": "application/octet-stream"}
        if field in files
        else {"type": "string"}
        for field in fields
    }
    bodies["multipart/form-data"] = {"schema": {"type": "object", "properties": form}}
    if len(fields) == 1 and files:
        bodies[f"{fields[0]['kind']}/*"] = {"schema": {}}
    return bodies


def _answer_schema(card: Mapping[str, object]) -> Schema:
    classes = card.get("classes")
    properties: Schema = {"prediction": {}}
    if isinstance(classes, list) and classes and card.get("task") == "classification":
        properties["prediction"] = {"enum": classes}
        probability = {"type": "number", "minimum": 0, "maximum": 1}
        names = {str(label): probability for label in classes}
        properties["probabilities"] = {"type": "object", "properties": names}
    return {"type": "object", "properties": properties, "required": ["prediction"]}
