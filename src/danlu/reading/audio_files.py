"""Recordings to 16-bit samples of one channel at one rate: WAV, and with soundfile FLAC, OGG, MP3.

Several channels are averaged. Another sampling rate is converted with a polyphase filter
(scipy.signal.resample_poly). Every DataError names the file."""

from __future__ import annotations

import importlib.util
import math
import wave
from pathlib import Path

import numpy as np

from danlu.errors import DataError
from danlu.reading import files as disk

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
MOST_SAMPLES = 1 << 28  # of one file, all channels together: 90 minutes at 48 kHz
_LOWEST, _HIGHEST = 1_000, 384_000  # samples a second


def read_audio(path: Path, name: str) -> tuple[np.ndarray, int]:
    """(int16 (samples,), samples a second). DataError naming the file where it is none, is damaged,
    empty or too long."""
    disk.check_file(path)
    samples, rate = (
        _by_soundfile(path, name) if importlib.util.find_spec("soundfile") else _by_wave(path, name)
    )
    if not _LOWEST <= rate <= _HIGHEST:
        raise DataError(
            f"it has {rate:,} samples a second; {_LOWEST:,} to {_HIGHEST:,} are read.", where=name
        )
    if not len(samples):
        raise DataError("the recording is empty.", where=name, hint="remove the file")
    return samples, rate


def _by_soundfile(path: Path, name: str) -> tuple[np.ndarray, int]:
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            _refuse_long(file.frames * file.channels, name)
            samples = file.read(dtype="int16", always_2d=True)
            return to_mono(samples), int(file.samplerate)
    except DataError:
        raise
    except (soundfile.SoundFileError, RuntimeError, ValueError, MemoryError, OSError) as error:
        raise _damaged(name, error) from None


def _by_wave(path: Path, name: str) -> tuple[np.ndarray, int]:
    if path.suffix.lower() != ".wav":
        raise DataError(
            f"{path.suffix.lower()} files are read by the library soundfile, which is not "
            "installed.",
            where=name,
            hint="pip install 'danlu[audio]'",
        )
    try:
        with wave.open(str(path), "rb") as file:
            channels, width = file.getnchannels(), file.getsampwidth()
            _refuse_long(file.getnframes() * channels, name)
            if width != 2:
                raise DataError(
                    f"its samples have {8 * width} bits; without the library soundfile only 16 "
                    "are read.",
                    where=name,
                    hint="pip install 'danlu[audio]'",
                )
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(
                np.int16
            )
            return to_mono(
                samples[: len(samples) // channels * channels].reshape(-1, channels)
            ), file.getframerate()
    except DataError:
        raise
    except (wave.Error, EOFError, ValueError, OSError) as error:
        raise _damaged(name, error) from None


def _refuse_long(samples: int, name: str) -> None:
    if samples > MOST_SAMPLES:
        raise DataError(
            f"it says it has {samples:,} samples; at most {MOST_SAMPLES:,} are read.",
            where=name,
            hint="cut it into pieces",
        )


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
    rounded up to a whole sample.

    >>> len(resample(np.zeros(100, dtype=np.int16), 16_000, 8_000))
    50
    """
    if rate == wanted or not len(samples):
        return samples
    from scipy.signal import resample_poly

    shared = math.gcd(rate, wanted)
    converted = resample_poly(samples.astype(np.float64), wanted // shared, rate // shared)
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
