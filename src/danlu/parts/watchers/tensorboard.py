"""TensorBoard event files in the run folder: tensorboard --logdir RUN.

The file is a sequence of records: length (uint64), its masked CRC-32C, an Event (Protocol Buffers),
its masked CRC-32C; little-endian. danlu writes it itself, without a thread: the usual writer takes
half a second to import, and on a full disk it fails in its own thread.
Source of the format: tensorflow/core/util/event.proto, tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

import os
import platform
import struct
import time
from typing import Any

from danlu.parts.watchers._base import RunInfo, SpeakingWatcher
from danlu.recipe import Options
from danlu.system.atomic_files import append
from danlu.system.image_grid import encode_png
from danlu.terms import TrainingEvent


class Config(Options):
    """No options."""


class TensorBoard(SpeakingWatcher):
    """Scalars by split (train/loss, validation/accuracy, ...), notices and texts as text, images.

    When the file cannot be written, it gives a notice and writes no more.
    """

    def __init__(self, run: RunInfo) -> None:
        super().__init__()
        self.file: Any = None
        host = platform.node() or "localhost"
        name = f"events.out.tfevents.{int(time.time()):010d}.{host}.{os.getpid()}.0"
        try:
            self.file = (run.folder / name).open("xb", buffering=0)
        except OSError as error:
            self._give_up(error)
        self._write(_text(3, "brain.Event:2"))
        # the viewer then hides what a killed run wrote after its last checkpoint
        if run.resumed_step:
            self._write(_number(2, run.resumed_step + 1) + _bytes(7, _number(1, 1)))

    def hear(self, report: TrainingEvent) -> None:
        if report.kind in ("train", "validation", "test"):
            scalars = {**report.values, **report.timing}
            values = [
                _scalar(f"{report.kind}/{name}", value)
                for name, value in scalars.items()
                if isinstance(value, int | float)
            ]
            values += [
                _sample(f"{report.kind}/{sample.name}", sample.value) for sample in report.samples
            ]
            self._write(_number(2, report.step) + _bytes(5, b"".join(values)))
        elif report.kind == "notice":
            self._write(_number(2, report.step) + _bytes(5, _note("notices", report.message)))

    def _write(self, event: bytes) -> None:
        if self.file is None:
            return
        event = struct.pack("<Bd", 1 << 3 | 1, time.time()) + event
        length = struct.pack("<Q", len(event))
        try:
            append(self.file, length + _masked(length) + event + _masked(event))
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.close()
        self.notices.append(f"TensorBoard events are no longer written: {error.strerror or error}.")

    def close(self) -> None:
        if self.file is not None:
            file, self.file = self.file, None
            file.close()


def build(config: Config, run: RunInfo) -> TensorBoard:
    """A writer of event files."""
    return TensorBoard(run)


# --- Protocol Buffers: a field is its number and wire type, then its value
# (wire types: 0 varint, 1 eight bytes, 2 bytes after their count, 5 four bytes)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _scalar(tag: str, value: float) -> bytes:
    """A Summary.Value: tag = 1, simple_value = 2 (float32; numbers beyond its range become
    infinite)."""
    try:
        packed = struct.pack("<f", value)
    except OverflowError:
        packed = struct.pack("<f", float("inf") if value > 0 else float("-inf"))
    return _bytes(1, _text(1, tag) + _varint(2 << 3 | 5) + packed)


def _note(tag: str, text: str) -> bytes:
    """A Summary.Value of the text plugin: tag = 1, tensor = 8 (dtype 7, a string; shape [1]),
    metadata = 9."""
    tensor = _number(1, 7) + _bytes(2, _bytes(2, _number(1, 1))) + _text(8, text)
    return _bytes(1, _text(1, tag) + _bytes(8, tensor) + _bytes(9, _bytes(1, _text(1, "text"))))


def _sample(tag: str, value: Any) -> bytes:
    """A Summary.Value of a sample: text, or pixels uint8 (H, W, C) as image = 4 (height 1, width 2,
    channels 3, PNG 4)."""
    if isinstance(value, str):
        return _note(tag, value)
    height, width, channels = value.shape
    image = (
        _number(1, height) + _number(2, width) + _number(3, channels) + _bytes(4, encode_png(value))
    )
    return _bytes(1, _text(1, tag) + _bytes(4, image))


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (
                0x82F63B78 if value & 1 else 0
            )  # Castagnoli's polynomial, bits reversed
        table.append(value)
    return table


_CRC = _table()


def _masked(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
