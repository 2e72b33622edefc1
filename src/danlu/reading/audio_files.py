"""Recordings to 16-bit samples of one channel at one rate: WAV, and with soundfile FLAC, OGG, MP3.

Several channels are averaged. Another sampling rate is converted with a polyphase filter
(scipy.signal.resample_poly). Every DataError names the file."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import wave
from pathlib import Path
from typing import cast

import numpy as np

from danlu.errors import DataError
from danlu.reading import files as disk
from danlu.reading.decoded_size import DecodedSize

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
# What a file decodes to is counted block by block, since a header can say anything. Whatever its
# size, FREE_SAMPLES are decoded (all channels together: 11 minutes at 48 kHz). Above, each byte may
# give MOST_EXPANSION bytes of 16-bit samples: speech in the most frugal of codecs gives 128,
# digital silence in FLAC many hundreds.
FREE_SAMPLES = 1 << 25
MOST_EXPANSION = 256
_BLOCK = 1 << 20  # samples that are decoded together
_WHOLE = 1 << 21  # samples that are resampled together
_LOWEST, _HIGHEST = 1_000, 384_000  # samples a second


def read_audio(path: Path, name: str, free: int = FREE_SAMPLES) -> tuple[np.ndarray, int]:
    """(int16 (samples,), samples a second). `free` samples, those of all channels together, are
    decoded whatever the file's size.

    DataError naming the file where it is none, is damaged, empty, too large for the memory, or
    where few bytes decode to very many samples."""
    encoded = disk.check_file(path).st_size
    size = DecodedSize(
        encoded, name, free=2 * free, expansion=MOST_EXPANSION, instead="save it as WAV"
    )
    blocks, rate = (
        _by_soundfile(path, name, size)
        if importlib.util.find_spec("soundfile")
        else _by_wave(path, name, size)
    )
    if not blocks:
        raise DataError("the recording is empty.", where=name, hint="remove the file")
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0], rate


def _by_soundfile(path: Path, name: str, size: DecodedSize) -> tuple[list[np.ndarray], int]:
    import soundfile

    blocks: list[np.ndarray] = []
    try:
        with path.open("rb") as opened, soundfile.SoundFile(opened.fileno(), closefd=False) as file:
            rate = _checked_rate(file.samplerate, name)
            together = max(1, _BLOCK // file.channels)
            while len(samples := file.read(together, dtype="int16", always_2d=True)):
                size.add(samples.nbytes, os.lseek(opened.fileno(), 0, os.SEEK_CUR))
                blocks.append(to_mono(samples))
            return blocks, rate
    except DataError:
        raise
    except (soundfile.SoundFileError, RuntimeError, ValueError, MemoryError, OSError) as error:
        raise _damaged(name, error) from None


def _by_wave(path: Path, name: str, size: DecodedSize) -> tuple[list[np.ndarray], int]:
    if path.suffix.lower() != ".wav":
        raise DataError(
            f"{path.suffix.lower()} files are read by the library soundfile, which is not "
            "installed.",
            where=name,
            hint="pip install 'danlu[audio]'",
        )
    blocks: list[np.ndarray] = []
    try:
        with wave.open(str(path), "rb") as file:
            channels, width = file.getnchannels(), file.getsampwidth()
            if width != 2:
                raise DataError(
                    f"its samples have {8 * width} bits; without the library soundfile only 16 "
                    "are read.",
                    where=name,
                    hint="pip install 'danlu[audio]'",
                )
            rate = _checked_rate(file.getframerate(), name)
            while content := file.readframes(max(1, _BLOCK // channels)):
                size.add(len(content))
                samples = np.frombuffer(content[: len(content) // 2 * 2], dtype="<i2")
                whole = samples[: len(samples) // channels * channels].astype(np.int16)
                if len(whole):
                    blocks.append(to_mono(whole.reshape(-1, channels)))
            return blocks, rate
    except DataError:
        raise
    except (wave.Error, EOFError, ValueError, MemoryError, OSError) as error:
        raise _damaged(name, error) from None


def _checked_rate(rate: float, name: str) -> int:
    if not _LOWEST <= rate <= _HIGHEST:
        raise DataError(
            f"it has {rate:,} samples a second; {_LOWEST:,} to {_HIGHEST:,} are read.", where=name
        )
    return int(rate)


def _damaged(name: str, error: Exception) -> DataError:
    cause = str(error).strip().rstrip(".")
    return DataError(
        f"this is no recording that can be read ({cause}).",
        where=name,
        hint="remove the file, or save it anew as WAV",
    )


def to_mono(samples: np.ndarray) -> np.ndarray:
    """The mean of the channels: int16 (samples, channels) to int16 (samples,).

    >>> to_mono(np.array([[100, 300], [0, 0]], dtype=np.int16)).tolist()
    [200, 0]
    """
    if samples.shape[1] == 1:
        return np.ascontiguousarray(samples[:, 0])
    return np.rint(samples.mean(axis=1, dtype=np.float64)).astype(np.int16)


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """int16 (samples,) converted from `rate` to `wanted` samples a second: the same duration,
    rounded up to a whole sample. Long recordings are converted piece by piece: the same samples in
    less memory.

    >>> len(resample(np.zeros(100, dtype=np.int16), 16_000, 8_000))
    50
    """
    if rate == wanted or not len(samples):
        return samples
    shared = math.gcd(rate, wanted)
    up, down = wanted // shared, rate // shared
    if len(samples) <= _WHOLE:
        return _converted(samples, up, down)
    # Pieces begin where input and output have a sample at the same moment. What the filter reaches
    # beyond a piece (10 samples of the slower rate on either side) is converted with it.
    margin = down * -(-(10 * max(up, down) // up + 2) // down)
    step = down * max(1, _WHOLE // down)
    converted = np.empty(-(-len(samples) * up // down), dtype=np.int16)
    for begin in range(0, len(samples), step):
        first, stop = max(0, begin - margin), min(len(samples), begin + step + margin)
        piece = _converted(samples[first:stop], up, down)
        start, skipped = begin * up // down, (begin - first) * up // down
        count = min(step * up // down, len(converted) - start)
        converted[start : start + count] = piece[skipped : skipped + count]
    return converted


def resampling_cost(rate: int, wanted: int) -> int:
    """Coefficients of the filter that converts from one rate to another. Two rates without a common
    divisor need millions, and a second to compute them, however short the recording is.

    >>> resampling_cost(44_100, 16_000), resampling_cost(383_999, 16_000)
    (8821, 7679981)
    """
    return 0 if rate == wanted else 20 * (max(rate, wanted) // math.gcd(rate, wanted)) + 1


@functools.lru_cache(maxsize=2)
def _filter(steps: int) -> np.ndarray:
    """The filter that scipy.signal.resample_poly designs where the larger factor is `steps`."""
    from scipy.signal import firwin

    # scipy's annotations take one name of a window, and its documentation a pair as well
    window = cast("str", ("kaiser", 5.0))
    return np.asarray(firwin(20 * steps + 1, 1.0 / steps, window=window))


def _converted(samples: np.ndarray, up: int, down: int) -> np.ndarray:
    from scipy.signal import resample_poly

    window = _filter(max(up, down))
    converted = resample_poly(samples.astype(np.float64), up, down, window=window)
    return np.clip(np.rint(converted), -32768, 32767).astype(np.int16)


def decode_audio(value: object, rate: int, name: str) -> np.ndarray:
    """One recording as int16 (samples,) at `rate` samples a second. `value` is a path, or an array
    of samples at that rate (int16, or floats from -1 to 1); messages call it `name`.

    DataError where it is neither.

    >>> decode_audio(np.array([0.0, 1.0, -1.0]), 8_000, "row 1").tolist()
    [0, 32767, -32767]
    """
    if isinstance(value, str | Path):
        samples, file_rate = read_audio(Path(value), name)
        return resample(samples, file_rate, rate)
    array = np.asarray(value)
    if array.ndim != 1 or array.dtype.kind not in "if":
        raise DataError(
            f"a recording is a path or an array of samples, not {array.dtype} of shape "
            f"{array.shape}.",
            where=name,
            hint=f"give int16, or floats from -1 to 1, at {rate:,} samples a second",
        )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError("a sample is no number.", where=name)
        array = np.rint(np.clip(array, -1.0, 1.0) * 32767)
    return array.astype(np.int16)
