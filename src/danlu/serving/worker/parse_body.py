"""The body of a request to rows: JSON, CSV, a multipart form, or the bytes of one image or sound.

    application/json            {"row": {field: value}} or {"rows": [{field: value}, ...]}
    text/csv                    a line of field names, then one line per row
    multipart/form-data         one part per field; a field that comes n times makes n rows
    image/*, audio/*            one row of a model that takes one image (or recording) and no more

Rows are dicts of the values as they were sent; danlu.serving.worker.decode_values makes of them the
columns that a model takes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

from pydantic_core import from_json

from danlu.errors import did_you_mean
from danlu.serving.protocol.json_structure import JsonStructure, TooManyValues
from danlu.serving.protocol.messages import RowField
from danlu.serving.protocol.refusals import Refusal

Rows = list[dict[str, Any]]  # values as they were sent
_JSON_HINT = 'send {"row": {...}} or {"rows": [{...}, ...]}'
_MAX_PARTS = 10_000
_MAX_VALUES = 2_000_000  # of a JSON body: parsing them takes half a second
_SPARE_NAMES = 10_000  # that a JSON body may have beside those of its fields


def parse(kind: str, body: bytes, fields: Sequence[RowField], max_rows: int) -> Rows:
    """The rows of a body of the content type `kind`, at most `max_rows`. Raises Refusal.

    >>> parse("application/json", b'{"row": {"age": 30}}', [], max_rows=10)
    [{'age': 30}]
    >>> parse("text/csv", b"age,city\\n30,Rome\\n", [], max_rows=10)
    [{'age': '30', 'city': 'Rome'}]
    """
    name = kind.partition(";")[0].strip().lower()
    # curl -d calls every body a form.
    json_names = ("application/json", "", "application/x-www-form-urlencoded")
    if name in json_names or name.endswith("+json"):
        _check_structure(body, fields, max_rows)
        rows = _json_rows(body, fields)
    elif name in ("text/csv", "application/csv"):
        rows = _csv_rows(body, max_rows)
    elif name == "multipart/form-data":
        rows = _form_rows(kind, body)
    elif name.startswith(("image/", "audio/")):
        rows = [_file_row(name.partition("/")[0], body, fields)]
    else:
        raise Refusal(
            f"a body of the type {name[:80]!r} is not read.",
            status=415,
            hint="send application/json, text/csv, multipart/form-data, or the bytes of an image "
            "or a recording",
        )
    if not rows:
        raise Refusal("there is no row.", hint=_JSON_HINT)
    if len(rows) > max_rows:
        raise Refusal(
            f"there are {len(rows):,} rows; a request may hold {max_rows:,}.",
            status=413,
            hint="send several requests",
        )
    return rows


def _check_structure(body: bytes, fields: Sequence[RowField], max_rows: int) -> None:
    """Refuse a body with more names than so many rows of these fields have, or with more values
    than are parsed while other requests wait."""
    structure = JsonStructure(_MAX_VALUES, _SPARE_NAMES + 2 * max_rows * len(fields))
    try:
        structure.add(body)
    except TooManyValues as error:
        raise Refusal(f"{error}.", status=413, hint="send fewer rows in a request") from None


def _json_rows(body: bytes, fields: Sequence[RowField]) -> Rows:
    try:
        value = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise Refusal(f"the body is not JSON: {error}.", hint=_JSON_HINT) from None
    if not isinstance(value, dict):
        raise Refusal(f"the body is {_described(value)}, not an object.", hint=_JSON_HINT)
    if "row" in value:
        rows = [value["row"]]
    elif "rows" in value:
        rows = value["rows"]
        if not isinstance(rows, list):
            raise Refusal(f"rows is {_described(rows)}, not a list.", field="rows", hint=_JSON_HINT)
    else:
        near = did_you_mean(next(iter(value)), ["row", "rows"]) if value else ""
        is_bare_row = any(field["name"] in value for field in fields)
        hint = _JSON_HINT if is_bare_row or not near else near
        raise Refusal("there is neither row nor rows.", hint=hint)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise Refusal(
                f"a row is an object of names and values, not {_described(row)}.",
                row=number,
                hint=_JSON_HINT,
            )
    return rows


def _described(value: object) -> str:
    words = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return words.get(type(value), "null")


def _csv_rows(body: bytes, max_rows: int) -> Rows:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal(
            f"byte {error.start + 1:,} of the body is not UTF-8.", hint="save the file as UTF-8"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    hint = "the first line names the fields"
    rows: Rows = []
    try:
        names = next(reader, [])
        if len(set(names)) != len(names):
            raise Refusal("a name stands twice in the first line.", hint=hint)
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                message = f"the row has {len(cells)} cells, and there are {len(names)} names."
                raise Refusal(message, row=len(rows) + 1, hint=hint)
            rows.append(dict(zip(names, cells)))
            if len(rows) > max_rows:
                message = f"there are more than {max_rows:,} rows in a request."
                raise Refusal(message, status=413, hint="send several requests")
    except csv.Error as error:
        raise Refusal(f"the body is not CSV: {error}.", row=len(rows) + 1) from None
    return rows


def _file_row(kind: str, body: bytes, fields: Sequence[RowField]) -> dict[str, Any]:
    if len(fields) != 1 or fields[0]["kind"] != kind:
        names = ", ".join(field["name"] for field in fields)
        raise Refusal(
            f"the model takes {names}, not one {kind} alone.", status=415, hint=_JSON_HINT
        )
    return {fields[0]["name"]: body}


def _form_rows(kind: str, body: bytes) -> Rows:
    fields = _form_fields(kind, body)
    if len({len(values) for values in fields.values()}) > 1:
        counts = ", ".join(f"{name} {len(values)}" for name, values in fields.items())
        raise Refusal(
            f"the fields come different numbers of times: {counts}.",
            hint="give every field once per row",
        )
    return [dict(zip(fields, values)) for values in zip(*fields.values())]


def _form_fields(kind: str, body: bytes) -> dict[str, list[bytes | str]]:
    """The values of the parts of each name: bytes of a file, else text."""
    from python_multipart.exceptions import MultipartParseError
    from python_multipart.multipart import MultipartParser, parse_options_header

    _, options = parse_options_header(kind)
    boundary = options.get(b"boundary")
    if not boundary:
        raise Refusal(
            "the content type names no boundary.", hint="multipart/form-data; boundary=..."
        )
    form = _Form()
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError) as error:
        raise Refusal(f"the form cannot be read: {error}.") from None
    if not form.ended:
        raise Refusal("the form ends too early.")
    return form.fields


class _Form:
    """Receives the callbacks of a multipart parser. `fields` holds the values of the parts read."""

    def __init__(self) -> None:
        self.fields: dict[str, list[bytes | str]] = {}
        self.count = 0
        self.ended = False
        self._begin_part()

    def callbacks(self) -> dict[str, Callable[..., object]]:
        return {
            "on_part_begin": self._begin_part,
            "on_part_data": lambda data, start, end: self.data.append(data[start:end]),
            "on_part_end": self._end_part,
            "on_header_field": lambda data, start, end: self.header.__iadd__(data[start:end]),
            "on_header_value": lambda data, start, end: self.value.__iadd__(data[start:end]),
            "on_header_end": self._end_header,
            "on_end": self._end_form,
        }

    def _begin_part(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.header, self.value = bytearray(), bytearray()
        self.data: list[bytes] = []

    def _end_header(self) -> None:
        self.headers[bytes(self.header).lower()] = bytes(self.value)
        self.header, self.value = bytearray(), bytearray()

    def _end_form(self) -> None:
        self.ended = True

    def _end_part(self) -> None:
        from python_multipart.multipart import parse_options_header

        self.count += 1
        if self.count > _MAX_PARTS:
            raise Refusal(f"the form has more than {_MAX_PARTS:,} parts.", status=413)
        _, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise Refusal("a part of the form has no name.")
        value: bytes | str = b"".join(self.data)
        if b"filename" not in options:
            try:
                value = value.decode("utf-8")
            except UnicodeDecodeError:
                raise Refusal("the value is not UTF-8.", field=name) from None
        self.fields.setdefault(name, []).append(value)
