"""Pixels as a picture: several images side by side in a grid, and a PNG file of it.

Written in a few lines because nothing that danlu always has beside it writes PNG.
Source: Portable Network Graphics, third edition, W3C, 2025 (the chunks IHDR, IDAT, IEND; filter 0).
"""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE = {1: 0, 3: 2}  # grey, RGB


def grid(images: np.ndarray, columns: int | None = None, gap: int = 1) -> np.ndarray:
    """uint8 images (N, H, W, C) side by side, row by row, as one picture (H', W', C); `gap` white
    pixels stand between them.

    `columns` null: as many as make the picture about square.
    """
    count, height, width, channels = images.shape
    columns = columns or max(1, math.ceil(math.sqrt(count * height / width)))
    columns = min(columns, max(count, 1))
    rows = max(1, math.ceil(count / columns))
    sheet = np.full((rows, height + gap, columns, width + gap, channels), 255, dtype=np.uint8)
    for place in range(count):
        sheet[place // columns, :height, place % columns, :width] = images[place]
    return np.ascontiguousarray(
        sheet.reshape(rows * (height + gap), columns * (width + gap), channels)[
            : -gap or None, : -gap or None
        ]
    )


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of pixels uint8 (H, W, C), C = 1 (grey) or 3 (RGB), or (H, W)."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    height, width, channels = pixels.shape
    if pixels.dtype != np.uint8 or channels not in _COLOUR_TYPE:
        raise ValueError(
            f"a picture is uint8 with 1 or 3 channels, and this is {pixels.dtype} with {channels}"
        )
    lines = np.zeros(
        (height, 1 + width * channels), dtype=np.uint8
    )  # each line begins with its filter: 0, none
    lines[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPE[channels], 0, 0, 0)
    return (
        _SIGNATURE
        + _chunk(b"IHDR", head)
        + _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
