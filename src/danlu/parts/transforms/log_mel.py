"""Recordings to log-mel frames: log energy in bands of the mel scale, every hundredth of a second.

    frame t        samples around t * hop, times a Hann window of `window` seconds; |FFT|^2;
                   weighted sums by triangles on the mel scale; log(energy + floor)
    then           minus the mean of each band, divided by its standard deviation (training rows)

The mel scale and the triangles of equal area are Slaney's (Auditory Toolbox, 1998), the default of
librosa. A recording shorter than a window gives one frame. A recording with another sampling rate
than in training is resampled.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from danlu.reading.audio_files import resample
from danlu.recipe import Options
from danlu.terms import Column

TAKES = ("audio",)
_FLOOR = 1e-10  # of energies on the scale where a full sine has amplitude 1
_LEAST_SPREAD = 1e-5


class Config(Options):
    """The resolution in time and frequency."""

    bands: int = Field(64, ge=1, le=512, description="Bands of the mel scale.")
    window: float = Field(0.025, gt=0, le=1, description="Seconds covered by a frame.")
    hop: float = Field(0.01, gt=0, le=1, description="Seconds between frames.")
    lowest: float = Field(20.0, ge=0, le=100_000, description="Lowest frequency, in Hz.")
    highest: float | None = Field(
        None,
        gt=0,
        le=200_000,
        description="Highest frequency, in Hz; null: half the sampling rate.",
    )
    scale: bool = Field(
        True,
        description="Scale each band to mean 0 and standard deviation 1 over the training rows.",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Config:
        if self.highest is not None and self.lowest >= self.highest:
            raise ValueError("lowest must lie below highest")
        return self


def fit(config: Config, column: Column) -> dict[str, Any]:
    """Sampling rate, mean and standard deviation of each band, and frames of the longest row."""
    state: dict[str, Any] = {"rate": column.rate, "longest": 1}
    plain = apply(config.model_copy(update={"scale": False}), state, column)
    assert plain.offsets is not None
    state["longest"] = int(np.diff(plain.offsets).max(initial=1))
    if config.scale:
        values = plain.values.astype(np.float64)
        spread = values.std(axis=0) if len(values) else np.zeros(config.bands)
        state["mean"] = values.mean(axis=0) if len(values) else np.zeros(config.bands)
        state["deviation"] = np.where(spread < _LEAST_SPREAD, 1.0, spread)
    return state


def apply(config: Config, state: dict[str, Any], column: Column) -> Column:
    """Frames float32 (frames, bands), computed row by row so that no row depends on its
    neighbours."""
    assert column.offsets is not None
    rate = int(state["rate"])
    triangles_FM = _triangles(config, rate)
    offsets = np.asarray(column.offsets)
    rows = [
        _frames(
            config,
            rate,
            resample(np.asarray(column.values[begin:end]), column.rate, rate),
            triangles_FM,
        )
        for begin, end in itertools.pairwise(offsets)
    ]
    sizes = np.array([len(row) for row in rows], dtype=np.int64)
    values = np.concatenate(rows) if rows else np.zeros((0, config.bands))
    if config.scale:
        values = (values - state["mean"]) / state["deviation"]
    return replace(
        column,
        kind="frames",
        values=values.astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        names=tuple(f"mel_{band}" for band in range(config.bands)),
        rate=0,
    )


def _frames(config: Config, rate: int, samples: np.ndarray, triangles_FM: np.ndarray) -> np.ndarray:
    """Log energies float64 (frames, bands) of one recording; no frame for an empty one."""
    if not len(samples):
        return np.zeros((0, triangles_FM.shape[1]))
    size, hop = _sizes(config, rate)
    count = 1 + (len(samples) - 1) // hop
    padded = np.zeros((count - 1) * hop + size)
    start = size // 2  # frame t is centred on sample t * hop
    kept = min(len(samples), len(padded) - start)
    padded[start : start + kept] = samples[:kept] / 32768.0
    windows = (
        np.lib.stride_tricks.sliding_window_view(padded, size)[::hop] * np.hanning(size + 1)[:-1]
    )
    energies = np.abs(np.fft.rfft(windows, _fft(size), axis=1)) ** 2
    return np.log(energies @ triangles_FM + _FLOOR)


def _sizes(config: Config, rate: int) -> tuple[int, int]:
    """(samples per window, samples between frames)."""
    return max(2, round(config.window * rate)), max(1, round(config.hop * rate))


def _fft(size: int) -> int:
    return 1 << (size - 1).bit_length()


def _triangles(config: Config, rate: int) -> np.ndarray:
    """float64 (frequencies, bands): the weight of each frequency of the FFT in each band."""
    size, _ = _sizes(config, rate)
    pitches = np.fft.rfftfreq(_fft(size), 1 / rate)
    highest = min(config.highest or rate / 2, rate / 2)
    lowest = min(config.lowest, highest / 2)
    edges = _hertz(np.linspace(_mel(np.array(lowest)), _mel(np.array(highest)), config.bands + 2))
    rising = (pitches[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - pitches[:, None]) / np.diff(edges)[1:]
    weights = np.maximum(0.0, np.minimum(rising, falling))
    return weights * (2.0 / (edges[2:] - edges[:-2]))


_LINEAR = 200.0 / 3  # Hz per mel below 1,000 Hz
_STEP = np.log(6.4) / 27.0  # above: a factor of 6.4 per 27 mels


def _mel(hertz: np.ndarray) -> np.ndarray:
    return np.where(
        hertz < 1000.0, hertz / _LINEAR, 15.0 + np.log(np.maximum(hertz, 1e-9) / 1000.0) / _STEP
    )


def _hertz(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15.0, mel * _LINEAR, 1000.0 * np.exp(_STEP * (mel - 15.0)))
