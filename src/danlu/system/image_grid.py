"""Images side by side in one picture, and pixels as the bytes of a PNG file."""

from __future__ import annotations

import io
import math

import numpy as np


def image_grid(images: np.ndarray, columns: int | None = None, gap: int = 1) -> np.ndarray:
    """One picture, uint8 (H', W', C), of the images uint8 (N, H, W, C): row by row, from the left.

    `columns` images stand in a row (None: as many as make the picture about square); `gap` white
    pixels separate neighbours.

    >>> image_grid(np.zeros((4, 2, 3, 1), dtype=np.uint8), columns=2).shape
    (5, 7, 1)
    """
    count, height, width, channels = images.shape
    columns = columns or max(1, math.ceil(math.sqrt(count * height / width)))
    columns = min(columns, max(count, 1))
    rows = max(1, math.ceil(count / columns))
    sheet = np.full((rows, height + gap, columns, width + gap, channels), 255, dtype=np.uint8)
    for number in range(count):
        sheet[number // columns, :height, number % columns, :width] = images[number]
    return np.ascontiguousarray(
        sheet.reshape(rows * (height + gap), columns * (width + gap), channels)[
            : -gap or None, : -gap or None
        ]
    )


def encode_png(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG file of pixels uint8: (H, W), (H, W, 1) for grey, or (H, W, 3) for RGB.

    Raises ValueError for another dtype or number of channels.

    >>> encode_png(np.zeros((2, 3, 1), dtype=np.uint8))[:4]
    b'\\x89PNG'
    """
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or channels not in (1, 3):
        raise ValueError(
            f"a PNG is written of uint8 pixels with 1 or 3 channels, not of {pixels.dtype} with"
            f" {channels}"
        )
    from PIL import Image  # here: commands that write no image start without Pillow

    buffer = io.BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and channels == 1 else pixels)
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
