"""Naive forecasts, the baselines of every forecast: the last season, the last value, the mean.

Shapes: N rows, V variables, M windows, H steps ahead. `values` (N, V) has no NaN; `origins` (M,)
are the last rows before each forecast; `first` (N,) is the first row of each row's run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_TOGETHER = 4096  # windows per block

Forecast = Callable[[np.ndarray], np.ndarray]  # origins (M,) -> (M, H, V)


def naive_forecasts(
    values: np.ndarray, first: np.ndarray, season: int, horizon: int, mean: np.ndarray
) -> dict[str, Forecast]:
    """The naive forecasts by name: "seasonal_naive" (where season > 1), "repeat_last" and "mean".

    season    steps of one season
    horizon   H, the steps ahead
    mean      (V,), the mean of the training rows

    >>> values = np.arange(4.0)[:, None]
    >>> forecasts = naive_forecasts(values, np.zeros(4, dtype=int), 2, 3, values.mean(axis=0))
    >>> {name: forecast(np.array([3])).ravel().tolist() for name, forecast in forecasts.items()}
    {'seasonal_naive': [2.0, 3.0, 2.0], 'repeat_last': [3.0, 3.0, 3.0], 'mean': [1.5, 1.5, 1.5]}
    """

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
    """{"mse": ..., "mae": ...} of a forecast: for each variable the mean over all values of `truth`
    that are not NaN, then the mean over variables. {} where every value is NaN.

    >>> truth = lambda origins: np.zeros((len(origins), 2, 1))
    >>> forecast_errors(lambda origins: truth(origins) + 1, truth, np.arange(3))
    {'mse': 1.0, 'mae': 1.0}
    """
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
    """The mean absolute difference between each of `rows` and the row one season before it, where
    that is among `rows` and in the same run; float64 (V,), 0 where there is no such pair.

    >>> values, rows = np.array([[0.0], [5.0], [1.0], [6.0]]), np.arange(4)
    >>> seasonal_differences(values, np.zeros(4, dtype=int), rows, 2).tolist()
    [1.0]
    """
    owned = np.zeros(len(values), dtype=bool)
    owned[rows] = True
    positions = rows[rows - season >= first[rows]]
    positions = positions[owned[positions - season]]
    differences = np.abs(values[positions].astype(np.float64) - values[positions - season])
    present = ~np.isnan(differences)
    return np.where(present, differences, 0.0).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
