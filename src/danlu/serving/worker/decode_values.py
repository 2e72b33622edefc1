"""The values of a request as the columns that a model takes.

No file is ever named: a string in place of an image or a recording is its bytes in base64 (or a
data URL), never a path.

Where every value has the one usual form of its kind (numbers as numbers, words as strings, moments
in ISO form), what is read depends on one row alone. Such requests have equal keys and may be
answered together. Other values (a number written as text, a date such as 3/4/2011) are read in the
light of all rows of their request, as a data file would be; their request has no key and is
answered alone.
"""

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

from danlu.errors import DanluError, did_you_mean
from danlu.serving.protocol.messages import RowField
from danlu.serving.protocol.refusals import Refusal

MAX_INTEGER = 2**63  # integers at or beyond it are refused
MAX_PIXELS = 2**26  # that all images of a request declare together
_MOMENT_FORMS = (
    re.compile(r"\d{4}-\d\d-\d\d\Z"),
    re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d\Z"),
    re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z"),
)
# Those that danlu.reading.image_files decodes.
_IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
_DATA_URL = re.compile(r"data:[^,;]{0,100}(?:;[^,;]{0,100})*;base64,", re.IGNORECASE)

# A column, and its part of the key; None where it has no usual form.
Decoded = tuple[Sequence[Any] | np.ndarray, Hashable | None]


@dataclass
class Columns:
    """The rows of a request, column by column.

    values   by field, a list or an array of `count` values
    key      requests with equal keys may be answered together; None: this one is answered alone
    """

    values: dict[str, Any]
    count: int
    key: Hashable | None

    def cut(self, start: int, stop: int) -> dict[str, Any]:
        """The rows from `start` to `stop` (exclusive).

        >>> Columns({"age": [30, 40, 50]}, count=3, key=None).cut(1, 3)
        {'age': [40, 50]}
        """
        if start == 0 and stop == self.count:
            return self.values
        return {name: values[start:stop] for name, values in self.values.items()}


def concatenate(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The rows of several requests of one key, one after the other.

    >>> concatenate([{"city": ["Rome"]}, {"city": ["Oslo", None]}])
    {'city': ['Rome', 'Oslo', None]}
    """
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {}
    for name, first in parts[0].items():
        pieces = [part[name] for part in parts]
        columns[name] = (
            np.concatenate(pieces)
            if isinstance(first, np.ndarray)
            else [cell for piece in pieces for cell in piece]
        )
    return columns


def decode(rows: Sequence[Mapping[str, Any]], fields: Sequence[RowField]) -> Columns:
    """The columns of `fields` in rows as they were sent; other names in a row are ignored. Raises
    Refusal naming the field and row."""
    values: dict[str, Any] = {}
    key: list[Hashable] | None = []
    for field in fields:
        name = field["name"]
        try:
            cells = [row[name] for row in rows]
        except KeyError:
            raise _missing_field(rows, name) from None
        values[name], form = _DECODERS.get(field["kind"], _unchanged)(field, cells)
        key = None if key is None or form is None else [*key, form]
    return Columns(values, len(rows), None if key is None else tuple(key))


def _missing_field(rows: Sequence[Mapping[str, Any]], name: str) -> Refusal:
    number, row = next((number, row) for number, row in enumerate(rows, start=1) if name not in row)
    near = did_you_mean(name, [str(key) for key in row])
    hint = near.replace("did you mean", "was it written as") or "null stands for a missing value"
    return Refusal(f"the field {name} is missing.", field=name, row=number, hint=hint)


# --- one kind of field each


def _numbers(field: RowField, cells: list[Any]) -> Decoded:
    _check_integers(field, cells)
    types = set(map(type, cells))
    if "width" in field or not types <= {float, int, type(None)}:
        return cells, None
    numbers = [np.nan if cell is None else cell for cell in cells]
    return np.array(numbers, dtype=np.float64), "number"


def _check_integers(field: RowField, cells: list[Any]) -> None:
    for number, cell in enumerate(cells, start=1):
        values = cell if isinstance(cell, list) else (cell,)
        if any(type(value) is int and not -MAX_INTEGER <= value < MAX_INTEGER for value in values):
            raise Refusal(
                "the number is too large.",
                field=field["name"],
                row=number,
                hint="write it with a decimal point",
            )


def _words(field: RowField, cells: list[Any]) -> Decoded:
    if set(map(type, cells)) <= {str, type(None)}:
        return cells, "words"
    _check_integers(field, cells)
    return cells, None


def _booleans(field: RowField, cells: list[Any]) -> Decoded:
    _check_integers(field, cells)
    return cells, "boolean" if set(map(type, cells)) <= {bool, type(None)} else None


def _moments(field: RowField, cells: list[Any]) -> Decoded:
    _check_integers(field, cells)
    for number, form in enumerate(_MOMENT_FORMS):
        if all(type(cell) is str and form.match(cell) for cell in cells):
            return cells, number
    return cells, None


def _sequences(field: RowField, cells: list[Any]) -> Decoded:
    usual = all(type(cell) is list and set(map(type, cell)) <= {str} for cell in cells)
    return cells, "sequence" if usual else None


def _unchanged(field: RowField, cells: list[Any]) -> Decoded:
    return cells, None


def _images(field: RowField, cells: list[Any]) -> Decoded:
    """uint8 (rows, height, width, channels)."""
    from danlu.reading.image_files import decode_images

    shape = tuple(field["shape"])
    pixels = np.empty((len(cells), *shape), dtype=np.uint8)
    pixels_left = MAX_PIXELS
    for number, cell in enumerate(cells):
        flat = _flat_pixels(cell, shape) if type(cell) is list else None
        if flat is not None:
            pixels[number] = np.frombuffer(flat, dtype=np.uint8).reshape(shape)
            continue
        in_cell = _InCell(field["name"], number + 1)
        with in_cell:
            image = cell if type(cell) is list else _file_bytes(cell, in_cell, "image")
            if isinstance(image, bytes):
                pixels_left -= _declared_pixels(image)
                if pixels_left < 0:
                    message = f"the images of a request may have {MAX_PIXELS:,} pixels together."
                    raise in_cell.refusal(message, status=413)
            size, channels = shape[:2], shape[2]
            pixels[number] = decode_images(
                [image], size=size, channels=channels, name=lambda _: ""
            )[0]
    return pixels, "image"


def _flat_pixels(cell: list[Any], shape: tuple[int, ...]) -> bytes | None:
    """The pixels of nested lists that are an image of exactly this shape; None where they are
    not."""
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


def _declared_pixels(content: bytes) -> int:
    """The pixels that an image file declares; 0 where it is no image (decoding it says why)."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=_IMAGE_FORMATS) as image:
            return image.width * image.height
    except Exception:  # decoders of hostile bytes raise errors of every kind
        return 0


def _recordings(field: RowField, cells: list[Any]) -> Decoded:
    """A list of the samples of each recording, at the field's rate."""
    from danlu.reading import audio_files

    recordings = []
    for number, cell in enumerate(cells, start=1):
        in_cell = _InCell(field["name"], number)
        with in_cell:
            if type(cell) is list:
                recordings.append(audio_files.decode_audio(np.array(cell), field["rate"], ""))
                continue
            # The readers of sound take files.
            with tempfile.TemporaryDirectory(prefix="danlu-") as folder:
                content = _file_bytes(cell, in_cell, "recording")
                path = Path(folder) / f"sent{_sound_suffix(content)}"
                path.write_bytes(content)
                samples, rate = audio_files.read_audio(path, "")
            recordings.append(audio_files.resample(samples, rate, field["rate"]))
    return recordings, "audio"


def _sound_suffix(content: bytes) -> str:
    suffixes = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}
    return suffixes.get(content[:4], ".mp3")


def _file_bytes(cell: object, in_cell: _InCell, what: str) -> bytes:
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, str):
        message = f"there is no {what}." if cell is None else f"this is no {what}."
        raise in_cell.refusal(message, hint="send its bytes in base64")
    prefix = _DATA_URL.match(cell)
    try:
        return base64.b64decode(cell[prefix.end() :] if prefix else cell, validate=True)
    except (binascii.Error, ValueError):
        raise in_cell.refusal(
            f"this is no {what} in base64.",
            hint="a path is not read: send the bytes of the file in base64",
        ) from None


class _InCell:
    """Makes refusals that name a field and a row; as a context manager, of every error inside."""

    def __init__(self, field: str, row: int) -> None:
        self.field = field
        self.row = row

    def refusal(self, message: str, hint: str = "", status: int = 400) -> Refusal:
        return Refusal(message, status=status, field=self.field, row=self.row, hint=hint)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, Refusal) or not isinstance(error, Exception):
            return
        if isinstance(error, DanluError):
            raise self.refusal(error.problem.message, error.problem.hint) from None
        raise self.refusal(f"this cannot be read ({type(error).__name__}).") from None


_DECODERS: dict[str, Callable[[RowField, list[Any]], Decoded]] = {
    "number": _numbers,
    "category": _words,
    "text": _words,
    "boolean": _booleans,
    "datetime": _moments,
    "sequence": _sequences,
    "image": _images,
    "audio": _recordings,
}
