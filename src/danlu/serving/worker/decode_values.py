"""The values of a request to columns that a model takes, and whether its rows may be answered beside those of other requests.

A file is never named: a string where an image or a recording belongs is its bytes in base64 (or a
data URL), never a path.

What is read depends on one row alone where every value is written in the one way that its kind has:
numbers as numbers, words as strings, date-times in ISO form. Such requests are put together (`key`
is equal). Others (a number written as text, a date as 3/4/2011) are read by all that the request
holds, as a file would be, and answered alone."""

from __future__ import annotations

import base64
import binascii
import io
import re
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from danlu.errors import did_you_mean
from danlu.serving.refusals import Refusal

LARGEST_WHOLE = 2**63  # of a number without a point
MOST_PIXELS = 2**26  # that all images of a request declare together
_MOMENTS = (
    re.compile(r"\d{4}-\d\d-\d\d\Z"),
    re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\Z"),
    re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z"),
)
_FORMATS = (
    "PNG",
    "JPEG",
    "BMP",
    "GIF",
    "WEBP",
    "PPM",
    "TIFF",
)  # those that danlu.reading.image_files decodes
_DATA_URL = re.compile(r"data:[^,;]{0,100}(?:;[^,;]{0,100})*;base64,", re.IGNORECASE)


@dataclass
class Columns:
    """The rows of a request, column by column.

    values   a list or an array a field, `count` long
    key      requests with equal keys may be answered together; None: alone
    """

    values: dict[str, Any]
    count: int
    key: Hashable | None

    def cut(self, start: int, stop: int) -> dict[str, Any]:
        """Some of the rows."""
        if start == 0 and stop == self.count:
            return self.values
        return {name: each[start:stop] for name, each in self.values.items()}


def together(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows of several requests of one key, one after the other."""
    if len(parts) == 1:
        return parts[0]
    found: dict[str, Any] = {}
    for name, first in parts[0].items():
        each = [part[name] for part in parts]
        found[name] = (
            np.concatenate(each)
            if isinstance(first, np.ndarray)
            else [cell for cells in each for cell in cells]
        )
    return found


def read(rows: Sequence[Mapping[str, Any]], fields: Sequence[dict[str, Any]]) -> Columns:
    """The columns of `fields` in rows as they were sent; other names are passed over. Raises
    Refusal naming the field and row."""
    values: dict[str, Any] = {}
    key: list[Hashable] | None = []
    for field in fields:
        name = field["name"]
        try:
            cells = [row[name] for row in rows]
        except KeyError:
            raise _lost(rows, name) from None
        values[name], form = _READERS.get(field["kind"], _as_it_is)(field, cells)
        key = None if key is None or form is None else [*key, form]
    return Columns(values, len(rows), None if key is None else tuple(key))


def _lost(rows: Sequence[Mapping[str, Any]], name: str) -> Refusal:
    number, row = next((number, row) for number, row in enumerate(rows, start=1) if name not in row)
    given = [str(each) for each in row]
    hint = (
        did_you_mean(name, given).replace("did you mean", "was it written as")
        or "null stands for a missing value"
    )
    return Refusal(f"the field {name} is not there.", field=name, row=number, hint=hint)


# --- one kind each: (field, cells) -> (values, form); form None: to be read with the whole request ------------------------


def _numbers(field: dict[str, Any], cells: list[Any]) -> tuple[Any, Hashable | None]:
    kinds = set(map(type, cells))
    if "width" in field or not kinds <= {float, int, type(None)}:
        _check_whole(field, cells)
        return cells, None
    _check_whole(field, cells)
    return np.array(
        [np.nan if cell is None else cell for cell in cells], dtype=np.float64
    ), "number"


def _check_whole(field: dict[str, Any], cells: list[Any]) -> None:
    for number, cell in enumerate(cells, start=1):
        each = cell if isinstance(cell, list) else (cell,)
        if any(type(one) is int and not -LARGEST_WHOLE <= one < LARGEST_WHOLE for one in each):
            raise Refusal(
                "the number is too large.",
                field=field["name"],
                row=number,
                hint="write it with a decimal point",
            )


def _words(field: dict[str, Any], cells: list[Any]) -> tuple[Any, Hashable | None]:
    if set(map(type, cells)) <= {str, type(None)}:
        return cells, "words"
    _check_whole(field, cells)
    return cells, None


def _yes_or_no(field: dict[str, Any], cells: list[Any]) -> tuple[Any, Hashable | None]:
    _check_whole(field, cells)
    return cells, "boolean" if set(map(type, cells)) <= {bool, type(None)} else None


def _moments(field: dict[str, Any], cells: list[Any]) -> tuple[Any, Hashable | None]:
    _check_whole(field, cells)
    for number, form in enumerate(_MOMENTS):
        if all(type(cell) is str and form.match(cell) for cell in cells):
            return cells, number
    return cells, None


def _sequences(field: dict[str, Any], cells: list[Any]) -> tuple[Any, Hashable | None]:
    plain = all(type(cell) is list and set(map(type, cell)) <= {str} for cell in cells)
    return cells, "sequence" if plain else None


def _as_it_is(field: dict[str, Any], cells: list[Any]) -> tuple[Any, Hashable | None]:
    return cells, None


def _images(field: dict[str, Any], cells: list[Any]) -> tuple[Any, Hashable | None]:
    from danlu.reading.image_files import decode

    shape = tuple(field["shape"])
    pixels = np.empty((len(cells), *shape), dtype=np.uint8)
    left = MOST_PIXELS
    for number, cell in enumerate(cells):
        flat = _flat(cell, shape) if type(cell) is list else None
        if flat is not None:
            pixels[number] = np.frombuffer(flat, dtype=np.uint8).reshape(shape)
            continue
        where = _Naming(field["name"], number + 1)
        with where:
            made = cell if type(cell) is list else _bytes(cell, where, "image")
            if isinstance(made, bytes):
                left -= _declared(made)
                if left < 0:
                    raise where(
                        f"the images of a request may have {MOST_PIXELS:,} pixels together.",
                        status=413,
                    )
            pixels[number] = decode([made], size=shape[:2], channels=shape[2], name=lambda _: "")[0]
    return pixels, "image"


def _flat(cell: list[Any], shape: tuple[int, ...]) -> bytes | None:
    """The pixels of nested lists that are just an image of this shape; None where they are not."""
    height, width, channels = shape
    if channels != 1 or len(cell) != height:
        return None
    for row in cell:
        if type(row) is not list or len(row) != width:
            return None
    try:
        return b"".join(map(bytes, cell))
    except (TypeError, ValueError):
        return None


def _declared(content: bytes) -> int:
    """Pixels that an image file says it has; 0 where that cannot be told (decoding it will say
    why)."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return image.width * image.height
    except Exception:  # decoders of hostile bytes raise errors of every kind
        return 0


def _recordings(field: dict[str, Any], cells: list[Any]) -> tuple[Any, Hashable | None]:
    from danlu.reading import sound

    found = []
    for number, cell in enumerate(cells, start=1):
        where = _Naming(field["name"], number)
        with where:
            if type(cell) is list:
                found.append(sound.from_cell(np.array(cell), field["rate"], ""))
                continue
            with tempfile.TemporaryDirectory(
                prefix="danlu-"
            ) as folder:  # the readers of sound take files
                content = _bytes(cell, where, "recording")
                path = Path(folder) / f"sent{_sound_suffix(content)}"
                path.write_bytes(content)
                samples, rate = sound.read(path, "")
            found.append(sound.resampled(samples, rate, field["rate"]))
    return found, "audio"


def _sound_suffix(content: bytes) -> str:
    begins = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}
    return begins.get(content[:4], ".mp3")


def _bytes(cell: Any, where: _Naming, what: str) -> bytes:
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str):
        raise where(
            f"there is no {what}." if cell is None else f"this is no {what}.",
            hint="send its bytes in base64",
        )
    begun = _DATA_URL.match(cell)
    try:
        return base64.b64decode(cell[begun.end() :] if begun else cell, validate=True)
    except (binascii.Error, ValueError):
        raise where(
            f"this is no {what} in base64.",
            hint="a path is not read: send the bytes of the file in base64",
        ) from None


class _Naming:
    """Makes refusals that name a field and a row; as a context, of whatever goes wrong within."""

    def __init__(self, field: str, row: int) -> None:
        self.field = field
        self.row = row

    def __call__(self, message: str, hint: str = "", status: int = 400) -> Refusal:
        return Refusal(message, status=status, field=self.field, row=self.row, hint=hint)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, Refusal) or not isinstance(error, Exception):
            return
        problem = getattr(error, "problem", None)
        if problem is not None:
            raise self(problem.message, problem.hint) from None
        raise self(f"this cannot be read ({type(error).__name__}).") from None


_READERS: dict[str, Callable[[dict[str, Any], list[Any]], tuple[Any, Hashable | None]]] = {
    "number": _numbers,
    "category": _words,
    "text": _words,
    "boolean": _yes_or_no,
    "datetime": _moments,
    "sequence": _sequences,
    "image": _images,
    "audio": _recordings,
}
