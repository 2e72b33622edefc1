"""The body of a request to rows: JSON, CSV, a multipart form, or the bytes of one image or recording.

    application/json            {"row": {field: value}} or {"rows": [{field: value}, ...]}
    text/csv                    a line of names, then a line a row
    multipart/form-data         a part a field; a field that comes n times is n rows
    image/*, audio/*            one row of a model that takes one image (or recording) and nothing else

Rows are dicts of what was written; danlu.serving.worker.decode_values makes of it what a model
takes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from pydantic_core import from_json

from danlu.errors import did_you_mean
from danlu.serving.refusals import Refusal

Rows = list[dict[str, Any]]
_JSON_HINT = 'send {"row": {...}} or {"rows": [{...}, ...]}'
_MOST_PARTS = 10_000


def read(kind: str, body: bytes, fields: Sequence[dict[str, Any]], most: int) -> Rows:
    """The rows of a body of the content type `kind`, at most `most`. Raises Refusal."""
    name = kind.partition(";")[0].strip().lower()
    if name in ("application/json", "", "application/x-www-form-urlencoded") or name.endswith(
        "+json"
    ):
        rows = _json(body, fields)  # curl -d calls everything a form
    elif name in ("text/csv", "application/csv"):
        rows = _csv(body, most)
    elif name == "multipart/form-data":
        rows = _multipart(kind, body)
    elif name.startswith(("image/", "audio/")):
        rows = [_only(name.partition("/")[0], body, fields)]
    else:
        raise Refusal(
            f"a body of the type {name[:80]!r} is not read.", status=415,
            hint="send application/json, text/csv, multipart/form-data, or the bytes of an image or a recording",
        )  # fmt: skip
    if not rows:
        raise Refusal("there is no row.", hint=_JSON_HINT)
    if len(rows) > most:
        raise Refusal(
            f"there are {len(rows):,} rows; a request may hold {most:,}.",
            status=413,
            hint="send several requests",
        )
    return rows


def _json(body: bytes, fields: Sequence[dict[str, Any]]) -> Rows:
    try:
        given = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise Refusal(f"the body is not JSON: {error}.", hint=_JSON_HINT) from None
    if not isinstance(given, dict):
        raise Refusal(f"the body is {_called(given)}, not an object.", hint=_JSON_HINT)
    if "row" in given:
        rows = [given["row"]]
    elif "rows" in given:
        rows = given["rows"]
        if not isinstance(rows, list):
            raise Refusal(f"rows is {_called(rows)}, not a list.", field="rows", hint=_JSON_HINT)
    else:
        names = [each["name"] for each in fields]
        near = did_you_mean(next(iter(given)), ["row", "rows"]) if given else ""
        bare = any(name in given for name in names)
        raise Refusal(
            "there is neither row nor rows.", hint=_JSON_HINT if bare or not near else near
        )
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise Refusal(
                f"a row is an object of names and values, not {_called(row)}.",
                row=number,
                hint=_JSON_HINT,
            )
    return rows


def _called(value: Any) -> str:
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(value), "null")


def _csv(body: bytes, most: int) -> Rows:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal(
            f"byte {error.start + 1:,} of the body is not UTF-8.", hint="save the file as UTF-8"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: Rows = []
    try:
        names = next(reader, [])
        if len(set(names)) != len(names):
            raise Refusal(
                "a name stands twice in the first line.", hint="the first line names the fields"
            )
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(names):
                message = f"the row has {len(cells)} cells, and there are {len(names)} names."
                raise Refusal(message, row=len(rows) + 1, hint="the first line names the fields")
            rows.append(dict(zip(names, cells)))
            if len(rows) > most:
                raise Refusal(
                    f"there are more than {most:,} rows in a request.",
                    status=413,
                    hint="send several requests",
                )
    except csv.Error as error:
        raise Refusal(f"the body is not CSV: {error}.", row=len(rows) + 1) from None
    return rows


def _only(kind: str, body: bytes, fields: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(fields) != 1 or fields[0]["kind"] != kind:
        names = ", ".join(each["name"] for each in fields)
        raise Refusal(
            f"the model takes {names}, not one {kind} alone.", status=415, hint=_JSON_HINT
        )
    return {fields[0]["name"]: body}


def _multipart(kind: str, body: bytes) -> Rows:
    found = _parts(kind, body)
    counts = {len(values) for values in found.values()}
    if len(counts) > 1:
        told = ", ".join(f"{name} {len(values)}" for name, values in found.items())
        raise Refusal(
            f"the fields come different numbers of times: {told}.",
            hint="give every field once a row",
        )
    return [dict(zip(found, values)) for values in zip(*found.values())]


def _parts(kind: str, body: bytes) -> dict[str, list[Any]]:
    """The values of each part by its name: bytes of a file, else text."""
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
    return form.found


class _Form:
    """What a multipart parser calls as it reads."""

    def __init__(self) -> None:
        self.found: dict[str, list[Any]] = {}
        self.count = 0
        self.ended = False
        self._begin()

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_part_data": lambda data, start, end: self.data.append(data[start:end]),
            "on_part_end": self._end,
            "on_header_field": lambda data, start, end: self.header.__iadd__(data[start:end]),
            "on_header_value": lambda data, start, end: self.value.__iadd__(data[start:end]),
            "on_header_end": self._header_ends,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.header, self.value = bytearray(), bytearray()
        self.data: list[bytes] = []

    def _header_ends(self) -> None:
        self.headers[bytes(self.header).lower()] = bytes(self.value)
        self.header, self.value = bytearray(), bytearray()

    def _all(self) -> None:
        self.ended = True

    def _end(self) -> None:
        from python_multipart.multipart import parse_options_header

        self.count += 1
        if self.count > _MOST_PARTS:
            raise Refusal(f"the form has more than {_MOST_PARTS:,} parts.", status=413)
        _, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise Refusal("a part of the form has no name.")
        data = b"".join(self.data)
        if b"filename" in options:
            value: Any = data
        else:
            try:
                value = data.decode("utf-8")
            except UnicodeDecodeError:
                raise Refusal("the value is not UTF-8.", field=name) from None
        self.found.setdefault(name, []).append(value)
