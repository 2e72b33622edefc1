"""Forecasts of one or several number columns, from their past and from other columns.

Rows are moments. A window is `context` moments of the past and `horizon` moments ahead; it lies in
one series and crosses no gap. A training window lies within the training rows; a window of
validation or test has all its moments ahead in its split, and its past may reach back into the
split before. Every such window is scored. Targets are standardised with the training rows' mean and
deviation: the metrics mse and mae are on that scale, as in the literature; mae_in_units and the
answers are in the units of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, model_validator

from danlu.data.examples import Examples, Windows
from danlu.data.examples import Field as ExampleField
from danlu.data.matrix import as_matrix
from danlu.errors import DataError
from danlu.parts.tasks._base import Answer, PreparedInputs, ScalesDifferences, ScoreOrder
from danlu.parts.tasks._series import (
    SeriesArrays,
    SeriesOptions,
    SeriesTask,
    WindowExamples,
    fit_scales,
    iso_times,
    recast,
    utf8_matrix,
)
from danlu.parts.tasks._targets import comma_list, refuse_empty
from danlu.series import naive_forecasts
from danlu.series.time_order import series_codes
from danlu.series.windows import split_masks
from danlu.terms import Column, InputSpec, OutputSpec, Table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.terms import Batch

__all__ = ["Config", "Forecasting", "build", "recast", "restore"]

ASKS = "steps"
TARGETS = (1, None)
INPUTS_TOO = True
READS = ("numbers",)  # all other columns as numbers, whatever kinds the model takes
DEFAULTS = {
    "model": "linear_forecaster",
    "loss": "mse",
    "metrics": ["mse", "mae", {"name": "mae", "units": "data"}, "mase", "by_step"],
    "data.split": "in_order",
}


class Config(SeriesOptions):
    """How far ahead, from how much of the past, and what else is known."""

    horizon: int = Field(24, ge=1, le=100_000, description="How many moments ahead are forecast.")
    quantiles: list[float] = Field(
        [],
        description="Quantiles to forecast, with loss: quantile; they include 0.5, the answer.",
    )
    stride: int = Field(
        1,
        ge=1,
        description="Moments between the starts of training windows, which are moved in each "
        "epoch.",
    )

    @model_validator(mode="after")
    def _quantiles_in_order(self) -> Config:
        if self.quantiles and (
            sorted(set(self.quantiles)) != self.quantiles
            or self.quantiles[0] <= 0
            or self.quantiles[-1] >= 1
            or 0.5 not in self.quantiles
        ):
            raise ValueError("quantiles must rise from above 0 to below 1, with 0.5 among them")
        if self.calendar and self.gaps == "ignore":
            raise ValueError(
                "calendar needs the times ahead, which gaps: ignore leaves unknown; give such "
                "columns as known instead"
            )
        return self


class Forecasting(SeriesTask, ScalesDifferences):
    """The variables, and how outputs (B, horizon, variables * quantiles) become answers."""

    score_order: ScoreOrder = ("loss", "lower")
    rows_are_independent = False
    baseline_description = "forecasts that need no learning (mse and mae as above)"

    def __init__(
        self,
        config: Config,
        targets: Sequence[str],
        variables: Sequence[str],
        *scale: Sequence[float],
    ) -> None:
        super().__init__(config, config.horizon, targets, variables, *scale)
        self.stride = config.stride
        self.quantiles = tuple(config.quantiles)
        columns = [(name, quantile) for name in variables for quantile in self.quantiles or (None,)]
        self.output = OutputSpec(
            len(columns),
            tuple(
                name if quantile is None else f"{name} q{quantile:g}" for name, quantile in columns
            ),
            per="step",
            steps=config.horizon,
            of=tuple(name for name, _ in columns),
        )

    # --- outputs to numbers

    def point_forecast(self, outputs: Tensor) -> Tensor:
        """The forecast itself (B, H, V): the median where there are quantiles."""
        if not self.quantiles:
            return outputs
        return outputs[..., self.quantiles.index(0.5) :: len(self.quantiles)]

    def answers(self, outputs: Tensor) -> list[Answer]:
        """{"prediction": {variable: [H numbers]}} per window, just the list for one variable; with
        quantiles also {"quantiles": {"0.1": ...}}."""
        return self._in_words(
            {name: tensor.numpy() for name, tensor in self.finish(None, {}, outputs).items()}
        )

    def finish(
        self, module: nn.Module | None, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """{"forecast": float64 (N, H, V)} in units of the data, and with quantiles {"quantile 0.1":
        (N, H, V)} and so on."""
        count = len(self.quantiles)
        by_quantile = {
            f"quantile {quantile:g}": self.to_units(outputs[..., number::count])
            for number, quantile in enumerate(self.quantiles)
        }
        return {"forecast": self.to_units(self.point_forecast(outputs)), **by_quantile}

    def difference_scales(self) -> dict[str, np.ndarray]:
        """The deviations of the training rows, for each finished array."""
        return dict.fromkeys(
            ("forecast", *(f"quantile {quantile:g}" for quantile in self.quantiles)), self.deviation
        )

    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """The answers, as `respond` gives them, from the arrays of `finish`."""
        return self._placed(self._in_words(arrays), beside)

    def _in_words(self, arrays: Mapping[str, np.ndarray]) -> list[Answer]:
        answers: list[Answer] = [
            {"prediction": self._by_variable(window)} for window in arrays["forecast"]
        ]
        for quantile in self.quantiles:
            for answer, window in zip(answers, arrays[f"quantile {quantile:g}"], strict=True):
                by_quantile = answer.setdefault("quantiles", {})
                assert isinstance(by_quantile, dict)
                by_quantile[f"{quantile:g}"] = self._by_variable(window)
        return answers

    def _by_variable(self, window: np.ndarray) -> object:
        if len(self.variables) == 1:
            return window[:, 0].tolist()
        return dict(zip(self.variables, window.T.tolist(), strict=True))

    def respond(self, module: nn.Module, batch: Batch) -> list[Answer]:
        """The answers, with the "times" ahead where they are known and, where there are several
        series, the "series"."""
        beside = {
            name: batch.inputs[name].cpu().numpy()
            for name in ("moment", "series_name")
            if name in batch.inputs
        }
        return self._placed(self.answers(module(batch.inputs).float().cpu()), beside)

    def _placed(self, answers: list[Answer], beside: Mapping[str, np.ndarray]) -> list[Answer]:
        if "moment" in beside:
            ahead = self.step.after(beside["moment"], self.horizon)
            for answer, times in zip(answers, ahead, strict=True):
                answer["times"] = times.tolist() if self.step.unit == "number" else iso_times(times)
        if "series_name" in beside:
            for answer, name_bytes in zip(answers, beside["series_name"], strict=True):
                answer["series"] = bytes(name_bytes[name_bytes > 0]).decode("utf-8")
        return answers

    # --- rows to windows

    def make_examples(
        self,
        arrays: PreparedInputs,
        specs: Mapping[str, InputSpec],
        targets: Mapping[str, Column],
        splits: dict[str, np.ndarray],
        table: Table,
        answering: bool = False,
    ) -> Examples:
        """The windows of a table, each named by its last row of the past; with `answering` the last
        window of every series."""
        laid, facts = self.lay_out(arrays, specs, table, splits)
        inputs = self.input_specs()
        if answering:
            return self._to_answer(table, laid, inputs)
        context = self.context
        fields: dict[str, ExampleField] = {"series": Windows(laid.past, context, 1 - context)}
        if "future" in inputs:
            fields["future"] = Windows(laid.future, self.horizon, 1)
        if "numbers" in inputs:
            fields["numbers"] = laid.static
        target = Windows(laid.values, self.horizon, 1, fill=float("nan"))
        owned = split_masks(splits, np.asarray(np.isnan(laid.values).any(axis=1)))
        ids = {
            name: self.windows(name, laid, owned[name], len(rows), table)
            for name, rows in splits.items()
        }
        if "train" in ids:
            ids["train"] = _strided(ids["train"], self.stride)
        facts += _untaught(series_codes(table, self.config.series), splits)
        phase = self.stride if "train" in ids else 1
        return WindowExamples(
            fields, inputs, target, ids, phase=phase, facts=facts, first=laid.first
        )

    # --- rows to answer

    def _to_answer(
        self, table: Table, laid: SeriesArrays, inputs: dict[str, InputSpec]
    ) -> Examples:
        """The last window of every series. It ends at the last row with a target; the rows after it
        hold what is known ahead."""
        group = series_codes(table, self.config.series)
        with_target = np.flatnonzero(~np.isnan(laid.values).all(axis=1))
        last = (
            with_target[np.append(group[with_target][1:] != group[with_target][:-1], True)]
            if len(with_target)
            else with_target
        )
        self._refuse_short(table, last, laid.first)
        fields: dict[str, ExampleField] = {
            "series": Windows(laid.past, self.context, 1 - self.context).at(last)
        }
        moments = None
        if self.step.column:
            moments = np.ascontiguousarray(table.columns[self.step.column].values[last])
            fields["moment"] = moments
        if "future" in inputs:
            fields["future"] = self._ahead(table, last, laid, moments)
        if "numbers" in inputs:
            fields["numbers"] = laid.static[last]
        if self.config.series is not None:
            fields["series_name"] = utf8_matrix(
                [str(table.columns[self.config.series].python_value(int(row))) for row in last]
            )
        return Examples(
            fields, inputs, None, {"data": np.arange(len(last))}, row_of=lambda ids: last[ids]
        )

    def _refuse_short(self, table: Table, last: np.ndarray, first: np.ndarray) -> None:
        short = np.flatnonzero(last - first[last] + 1 < self.context)
        if len(last) and not len(short):
            return
        have = f"{int(last[short[0]] - first[last[short[0]]]) + 1:,}" if len(short) else "none"
        raise DataError(
            f"a forecast needs {self.context:,} moments in a row, and there are {have} up to the "
            "last one with a target.",
            where=table.where(int(last[short[0]])) if len(short) else table.origin,
            hint="add rows of the past (task.context is the number of moments that the model "
            "reads)",
        )

    def _ahead(
        self, table: Table, last: np.ndarray, laid: SeriesArrays, moments: np.ndarray | None
    ) -> np.ndarray:
        """The known features of the moments ahead, float32 (M, H, K): from the rows after the last
        target, and from the calendar."""
        horizon, width = self.horizon, len(self.features["known"])
        pieces = []
        if width:
            short = np.flatnonzero(laid.last[last] - last < horizon)
            if len(short):
                row = int(last[short[0]])
                raise DataError(
                    f"{', '.join(self.config.known)} must be in the rows of the {horizon:,} "
                    "moments ahead, and "
                    f"{int(laid.last[row] - row):,} rows follow the last one with a target.",
                    where=table.where(row),
                    hint="add rows for the moments ahead, with the targets left empty",
                )
            pieces.append(Windows(laid.future[:, :width], horizon, 1).at(last))
        if self.config.calendar:
            assert moments is not None  # a calendar needs times
            times = self.step.after(moments, horizon)
            parts = as_matrix(self.parts(Column(self.step.column, "datetime", times.reshape(-1))))
            pieces.append(parts.reshape(len(last), horizon, -1).astype(np.float32))
        return np.concatenate(pieces, axis=2)

    # --- baseline and description

    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """{"seasonal_naive/mse", "seasonal_naive/mae", "repeat_last/mse", ...} over the windows of
        a split."""
        series, target = examples.inputs["series"], examples.target
        if not isinstance(series, Windows) or not isinstance(target, Windows):
            return {}
        past = series.values[:, : len(self.variables)]
        first = examples.first if isinstance(examples, WindowExamples) else np.arange(len(past))
        guesses = naive_forecasts.naive_forecasts(
            past, first, self.season, self.horizon, np.zeros(len(self.variables), dtype=np.float32)
        )
        errors = {
            name: naive_forecasts.forecast_errors(guess, target.at, examples.splits[split])
            for name, guess in guesses.items()
        }
        return {
            f"{name}/{metric}": value
            for name, scores in errors.items()
            for metric, value in scores.items()
        }

    def describe(self) -> str:
        """'forecasting of load and price: 24 steps of 1 hour ahead, from the last 72'."""
        step = "" if self.step.unit == "rows" else f" of {self.step.describe()}"
        return (
            f"forecasting of {comma_list(self.variables)}: {self.horizon:,} steps{step} ahead, "
            f"from the last {self.context:,}"
        )


def build(config: Config, targets: Mapping[str, Column]) -> Forecasting:
    """The task, mean and deviation of each variable taken from the training rows."""
    for column in targets.values():
        refuse_empty(column)
    return Forecasting(config, list(targets), *fit_scales(targets))


def restore(config: Config, state: Mapping[str, Any]) -> Forecasting:
    """The task whose `state()` this is."""
    task = Forecasting(
        config, state["targets"], state["variables"], state["mean"], state["deviation"]
    )
    task.load(state)
    return task


def _strided(windows: np.ndarray, stride: int) -> np.ndarray:
    """Every `stride`-th window, of those whose next stride - 1 windows exist, so that it may be
    moved by as many."""
    if stride == 1 or not len(windows):
        return windows
    starts = np.append(True, np.diff(windows) > 1)
    begin = np.maximum.accumulate(np.where(starts, np.arange(len(windows)), 0))
    position = np.arange(len(windows)) - begin
    movable = np.append(
        windows[stride - 1 :] - windows[: len(windows) - stride + 1] == stride - 1,
        np.zeros(stride - 1, dtype=bool),
    )
    return windows[(position % stride == 0) & movable[: len(windows)]]


def _untaught(group: np.ndarray, splits: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence where validation or test have series that are not in the training rows."""
    if "train" not in splits or not group.any():
        return []
    taught = np.unique(group[splits["train"]])
    sentences = []
    for split in ("validation", "test"):
        new = np.setdiff1d(group[splits.get(split, np.zeros(0, dtype=np.int64))], taught)
        if len(new):
            sentences.append(
                f"{len(new):,} series of the {split} split stand in no training row (data.split: "
                "{name: in_order, within: COLUMN} cuts each "
                "series by itself, by_time all of them at one moment)."
            )
    return sentences
