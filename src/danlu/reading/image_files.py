"""Images to pixels, safely: files, arrays or PIL images to uint8 (N, height, width, channels).

Formats: PNG, JPEG, BMP, GIF and WebP (their first frame), PPM, TIFF. The size that a file declares
is checked before anything is decoded: more than MOST_PIXELS pixels, or many times more pixels than
the file has bytes, is refused, so that a small file cannot fill the memory; what else makes an
image costly is bounded in danlu.reading.image_checks. Truncated and damaged files are refused. The
orientation recorded by the camera (EXIF) is applied; transparent pixels are laid over white; 16-bit
grey is scaled to 8 bits. Decoding runs in threads (Pillow releases the interpreter lock); the
result is in the order of the arguments."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import DataError
from danlu.reading import image_checks
from danlu.reading.files import read_file
from danlu.reading.image_checks import PixelRoom
from danlu.system.machine import cores

if TYPE_CHECKING:
    from PIL import Image, ImageFile

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".webp",
    ".ppm",
    ".pgm",
    ".pnm",
    ".tif",
    ".tiff",
)
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
MOST_PIXELS = 2**27  # 134 million; the largest cameras take 100 to 150 million
# FREE_PIXELS are decoded whatever the file's size: 67 MB. Larger images may have MOST_EXPANSION
# pixels per byte of the file, the largest fewer. Photographs have 1 to 20, drawings up to 150.
FREE_PIXELS, MOST_EXPANSION = 2**24, 200
_LARGE_PIXELS, _MOST_OF_LARGE = 2**26, 50
_TOGETHER = 2**26  # pixels that all threads decode at a time: four bytes each
_BAND = 2**22  # pixels that are converted at a time

_ORIENTATION = 0x0112  # the EXIF entry that says how the camera was held

# A path (str or Path), the bytes of an image file, an array, or a PIL image; anything else is
# refused.
Cell = object


def decode_images(
    cells: Sequence[Cell],
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    name: Callable[[int], str] = "image {}".format,
    out: Callable[[tuple[int, ...]], np.ndarray] | None = None,
) -> np.ndarray:
    """The pixels of N images, uint8 (N, height, width, channels).

    cells      paths, bytes of image files, arrays (height, width[, 1 or 3]), or PIL
               images
    size       (height, width) to resize to (the aspect ratio is not kept); None: all images must
               have the same size
    channels   1 (grey) or 3 (RGB); None: 3 if the first image has colour, else 1
    name       what messages call image number i (0-based)
    out        creates the array that is filled, from its shape; None: np.empty. For images larger
               than the memory it returns a memory-mapped array
    Raises DataError naming the first image that cannot be decoded.

    >>> decode_images([[[0, 255], [255, 0]]], size=(2, 2)).shape
    (1, 2, 2, 1)
    """
    if not len(cells):
        height, width = size or (1, 1)
        return np.zeros((0, height, width, channels or 1), dtype=np.uint8)
    with _quiet():
        room = PixelRoom(_TOGETHER)
        start = _pixels(cells[0], size, channels, name(0), room)
        shape = start.shape
        pixels = (out or (lambda full: np.empty(full, dtype=np.uint8)))((len(cells), *shape))
        pixels[0] = start
        del start

        def fill(number: int) -> None:
            image = _pixels(cells[number], size, shape[2], name(number), room)
            if image.shape != shape:
                raise _other_size(image.shape, shape, name(number), name(0))
            pixels[number] = image

        with ThreadPoolExecutor(max_workers=cores()) as pool:
            futures = [pool.submit(fill, number) for number in range(1, len(cells))]
            try:
                for future in futures:  # in order: the message names the first bad image
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return pixels


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides Pillow's warnings (a large image, a damaged EXIF block): the checks here cover them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _other_size(
    shape: tuple[int, ...], first: tuple[int, ...], name: str, name_of_first: str
) -> DataError:
    return DataError(
        f"the image is {shape[0]} x {shape[1]} pixels (height x width), and {name_of_first} is "
        f"{first[0]} x {first[1]}.",
        where=name,
        hint=f"give one size for all: size: [{first[0]}, {first[1]}], under data.source for a "
        "folder, under data.columns for a column",
    )


def _pixels(
    cell: Cell, size: tuple[int, int] | None, channels: int | None, name: str, room: PixelRoom
) -> np.ndarray:
    """One image, uint8 (height, width, channels)."""
    if isinstance(cell, np.ndarray | list | tuple):
        return _decoded(_array_image(cell, name), size, channels, name)
    image = _opened(cell, name)
    draft = None if image is cell else size
    with room.take(image.width * image.height):
        return _decoded(_loaded(image, draft, name), size, channels, name)


def _decoded(
    image: Image.Image, size: tuple[int, int] | None, channels: int | None, name: str
) -> np.ndarray:
    """The pixels of an image that is loaded, uint8 (height, width, channels)."""
    from PIL import Image

    try:
        image = _upright(image)
        mode = _mode(image, channels)
        if size is None or image.size == (size[1], size[0]):
            pixels = np.empty((image.height, image.width, len(mode)), dtype=np.uint8)
            for top, band in _bands(image):
                piece = np.asarray(_in_mode(band, mode, name), dtype=np.uint8)
                pixels[top : top + band.height] = piece.reshape(*piece.shape[:2], -1)
            return pixels
        image = _whole_in_mode(image, mode, name)
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.uint8)
    except DataError:
        raise
    except Exception as error:  # given hostile bytes, decoders raise errors of every type
        raise _damaged(error, name) from None
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(top row, the image's pixels from there) in bands of about _BAND pixels: to convert a large
    image at once would take several times its memory."""
    rows = max(1, _BAND // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _whole_in_mode(image: Image.Image, mode: str, name: str) -> Image.Image:
    from PIL import Image

    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.width * image.height <= _BAND:
        return _in_mode(image, mode, name)
    whole = Image.new(mode, image.size)
    for top, band in _bands(image):
        whole.paste(_in_mode(band, mode, name), (0, top))
    return whole


def _damaged(error: Exception, name: str) -> DataError:
    lines = str(error).strip().splitlines()
    detail = f" ({lines[0][:120]})" if lines else f" ({type(error).__name__})"
    return DataError(
        f"the image is damaged or ends too early{detail}.",
        where=name,
        hint="mend the file, or take it out",
    )


def _opened(cell: Cell, name: str) -> Image.Image:
    """The image with what it declares checked; its pixels are not loaded."""
    from PIL import Image

    if isinstance(cell, Image.Image):
        _check_size(cell.size, None, name)
        return cell
    if isinstance(cell, bytes | bytearray | memoryview):
        content = bytes(cell)
    elif isinstance(cell, str | Path):
        content = _read(Path(cell), name)
    else:
        message = (
            "there is no image."
            if cell is None
            else f"a value of type {type(cell).__name__} is no image."
        )
        raise DataError(message, where=name, hint="give a path, an array or a PIL image")
    if not content:
        raise DataError("the file is empty.", where=name, hint="mend the file, or take it out")
    with _errors_of_decoders(name):
        file = image_checks.CountedFile(content)
        image = Image.open(file, formats=_FORMATS)
        file.expect(image.format)
        _check_size(image.size, len(content), name)
        image_checks.check_cost(content, image.format, image.width * image.height)
    return image


def _loaded(image: Image.Image, draft: tuple[int, int] | None, name: str) -> Image.Image:
    """The image with its pixels decoded; a JPEG at 1/2, 1/4 or 1/8 of its size where that is still
    at least twice the size `draft`."""
    with _errors_of_decoders(name):
        if draft is not None and image.format == "JPEG":
            image.draft(None, (2 * draft[1], 2 * draft[0]))
        image.load()
    return image


def work_to_decode(content: bytes) -> int:
    """The pixels of an image file, as often as its decoder goes over them; 0 where it is no image
    that can be decoded (decode_images says why).

    >>> work_to_decode(b"no image")
    0
    """
    from PIL import Image

    try:
        with _quiet(), Image.open(image_checks.CountedFile(content), formats=_FORMATS) as image:
            pixels = image.width * image.height
            return pixels * image_checks.check_cost(content, image.format, pixels)
    except Exception:  # given hostile bytes, decoders raise errors of every type
        return 0


@contextmanager
def _errors_of_decoders(name: str) -> Iterator[None]:
    """Raises DataError, naming the image, in place of what a decoder raises."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except DataError:
        raise
    except image_checks.CostlyImage as error:
        raise DataError(
            f"the image would take very long to decode: {error}.",
            where=name,
            hint="save it again as PNG, or take it out",
        ) from None
    except UnidentifiedImageError:
        formats = "PNG, JPEG, BMP, GIF, WebP, PPM or TIFF"
        raise DataError(
            f"this is no image that can be read ({formats}).",
            where=name,
            hint="save it as PNG, or take it out",
        ) from None
    except Image.DecompressionBombError:
        raise DataError(
            "the image declares more pixels than can be right.",
            where=name,
            hint="make it smaller, or take it out",
        ) from None
    except Exception as error:  # given hostile bytes, decoders raise errors of every type
        raise _damaged(error, name) from None


def _read(path: Path, name: str) -> bytes:
    try:
        return read_file(path)
    except DataError as error:
        raise DataError(error.problem.message, where=name, hint=error.problem.hint) from None


def _check_size(size: tuple[int, int], length: int | None, name: str) -> None:
    pixels = size[0] * size[1]
    hint = "make it smaller, or take it out"
    if pixels > MOST_PIXELS:
        raise DataError(
            f"the image declares {size[0]:,} x {size[1]:,} pixels; at most {MOST_PIXELS:,} are "
            "decoded.",
            where=name,
            hint=hint,
        )
    expansion = _MOST_OF_LARGE if pixels > _LARGE_PIXELS else MOST_EXPANSION
    if length is not None and pixels > FREE_PIXELS and pixels > expansion * length:
        message = (
            f"{length:,} bytes declare {size[0]:,} x {size[1]:,} pixels, as a decompression "
            "bomb would; it is not decoded."
        )
        raise DataError(message, where=name, hint=hint)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its camera was held."""
    from PIL import Image, ImageFile, ImageOps

    try:
        if not isinstance(image, ImageFile.ImageFile):
            return ImageOps.exif_transpose(image)
        turn = {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_270,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90,
        }.get(_orientation(image))
    except Exception:  # the pixels are good although the EXIF block is damaged
        return image
    return image if turn is None else image.transpose(turn)


def _orientation(image: ImageFile.ImageFile) -> int:
    """The orientation (1 to 8) in the EXIF block, a TIFF's own entries, or the XMP text."""
    from PIL import TiffImagePlugin

    block = image.info.get("exif")
    hexadecimal = image.info.get("Raw profile type exif")
    found = 1
    if block is not None:
        found = image_checks.exif_orientation(block)
    elif hexadecimal is not None:
        digits = "".join(hexadecimal.split("\n")[3:])
        found = image_checks.exif_orientation(bytes.fromhex(digits))
    elif isinstance(image, TiffImagePlugin.TiffImageFile):
        found = image.tag_v2.get(_ORIENTATION, 1)
    text = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp")
    if found == 1 and text:
        letters = text.encode() if isinstance(text, str) else text
        match = re.search(rb'tiff:Orientation(="|>)([0-9])', letters)
        found = int(match[2]) if match else 1
    return found


def _mode(image: Image.Image, channels: int | None) -> str:
    """ "L" (grey) or "RGB": the mode of the pixels wanted, by the number of channels or by what the
    image holds."""
    if image.mode in ("I", "LA") or image.mode.startswith("I;16"):
        grey = True
    elif "transparency" in image.info:
        grey = False
    else:
        grey = image.mode in ("1", "L") or (image.mode == "P" and _grey_palette(image))
    return "L" if (channels or (1 if grey else 3)) == 1 else "RGB"


def _in_mode(image: Image.Image, mode: str, name: str) -> Image.Image:
    """The image as 8-bit grey ("L") or RGB."""
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode == "I":
        image = _eight_bits(image, name)
    if image.mode == "F":
        raise DataError(
            "pixels are floating-point numbers, whose range is not known.",
            where=name,
            hint="save the image with 8 bits",
        )
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA") if image.mode != "LA" else image
        under = Image.new(image.mode, image.size, "white" if image.mode == "RGBA" else (255, 255))
        image = (
            Image.alpha_composite(under, image).convert("RGB")
            if image.mode == "RGBA"
            else _over_white(image)
        )
    return image if image.mode == mode else image.convert(mode)


def _over_white(image: Image.Image) -> Image.Image:
    """Grey with transparency over white."""
    from PIL import Image

    grey, alpha = (np.asarray(image.getchannel(channel), dtype=np.uint32) for channel in ("L", "A"))
    return Image.fromarray(((grey * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8))


def _grey_palette(image: Image.Image) -> bool:
    palette = np.asarray(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """16-bit grey divided by 257, so that 65,535 becomes 255 (Pillow alone would clip at 255)."""
    from PIL import Image

    wide = np.asarray(image).astype(np.int64)
    if wide.min() < 0 or wide.max() > 65_535:
        raise DataError(
            f"pixels run from {wide.min():,} to {wide.max():,}, not 0 to 65,535.",
            where=name,
            hint="save the image with 8 bits",
        )
    return Image.fromarray(((wide + 128) // 257).astype(np.uint8))


def _array_image(cell: Any, name: str) -> Image.Image:
    """An array (height, width) or (height, width, 1 or 3) of 0..255 as an image."""
    from PIL import Image

    try:
        array = np.asarray(cell)
    except ValueError:
        raise DataError("the rows of the image have different lengths.", where=name) from None
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or 0 in array.shape:
        raise DataError(
            f"an array of shape {array.shape} is no image (height, width, 1 or 3).", where=name
        )
    if array.dtype.kind not in "iufb":
        raise DataError(f"pixels of type {array.dtype} are no numbers.", where=name)
    if array.dtype != np.uint8:
        numbers = array.astype(np.float64)
        if not ((numbers >= 0) & (numbers <= 255) & (numbers == np.floor(numbers))).all():
            message = (
                f"pixels run from {numbers.min():g} to {numbers.max():g}; they must be whole "
                "numbers of 0 to 255."
            )
            raise DataError(
                message, where=name, hint="multiply pixels of 0 to 1 by 255 and round them"
            )
        array = numbers.astype(np.uint8)
    _check_size((array.shape[1], array.shape[0]), None, name)
    return Image.fromarray(np.ascontiguousarray(array))
