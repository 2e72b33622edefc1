"""Forecasts that need no learning, beside which every forecast is told: repeat the last season, the last value, the mean.

N rows, V variables, M windows, H steps ahead. `values` (N, V) hold no gap; `origins` (M,) are the
last known rows; `first` (N,) is the first row of each row's run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_TOGETHER = 4096  # windows looked at together

Forecast = Callable[[np.ndarray], np.ndarray]  # origins (M,) -> (M, H, V)


def naive_forecasts(
    values: np.ndarray, first: np.ndarray, season: int, horizon: int, mean: np.ndarray
) -> dict[str, Forecast]:
    """The naive forecasts by name; without a season (1) there is no seasonal one. `mean` (V,) is
    that of the training rows."""

    def seasonal_naive(origins: np.ndarray) -> np.ndarray:
        ahead = np.arange(1, horizon + 1)
        source = origins[:, None] + ahead - season * -(-ahead // season)
        return values[np.where(source >= first[origins][:, None], source, origins[:, None])]

    def repeat_last(origins: np.ndarray) -> np.ndarray:
        return np.repeat(values[origins][:, None], horizon, axis=1)

    def always_mean(origins: np.ndarray) -> np.ndarray:
        return np.broadcast_to(mean, (len(origins), horizon, values.shape[1]))

    forecasts: dict[str, Forecast] = {"seasonal_naive": seasonal_naive} if season > 1 else {}
    return {**forecasts, "repeat_last": repeat_last, "mean": always_mean}


def forecast_errors(guess: Forecast, truth: Forecast, origins: np.ndarray) -> dict[str, float]:
    """{"mse", "mae"} of a guess: the mean over variables of each one's mean over the places that
    are known (not NaN)."""
    squared, absolute, counted = np.zeros(0), np.zeros(0), np.zeros(0)
    for start in range(0, len(origins), _TOGETHER):
        piece = origins[start : start + _TOGETHER]
        wrong = guess(piece).astype(np.float64) - truth(piece)
        present = ~np.isnan(wrong)
        wrong = np.where(present, wrong, 0.0)
        sums = [
            np.square(wrong).sum(axis=(0, 1)),
            np.abs(wrong).sum(axis=(0, 1)),
            present.sum(axis=(0, 1)).astype(np.float64),
        ]
        squared, absolute, counted = (
            old + new if len(old) else new for old, new in zip((squared, absolute, counted), sums)
        )
    scored = counted > 0
    if not scored.any():
        return {}
    return {
        "mse": float((squared[scored] / counted[scored]).mean()),
        "mae": float((absolute[scored] / counted[scored]).mean()),
    }


def seasonal_differences(
    values: np.ndarray, first: np.ndarray, rows: np.ndarray, season: int
) -> np.ndarray:
    """The mean absolute difference between one of `rows` and that of them a season before it in its
    run, float64 (V,); 0 for none."""
    owned = np.zeros(len(values), dtype=bool)
    owned[rows] = True
    positions = rows[rows - season >= first[rows]]
    positions = positions[owned[positions - season]]
    differences = np.abs(values[positions].astype(np.float64) - values[positions - season])
    present = ~np.isnan(differences)
    return np.where(present, differences, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
