"""The next values of one or several number columns in time, from their past, from other columns and from what is known ahead.

Rows are moments. A window is `context` moments of the past and `horizon` moments ahead; windows lie in one series and cross no gap. A
training window lies within the training rows; one of validation or test has all its moments ahead in its split, and its past may reach
back before the border, as on any real day. Every such window is scored. Targets are standardised with the training rows' mean and
deviation: the metrics mse and mae are on that scale, as the literature has them; mae_in_units and the answers are in units of the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from danlu import naive, shelf
from danlu.errors import DataError, did_you_mean
from danlu.features import matrix, mean_and_deviation, names
from danlu.framing import Examples, Windows
from danlu.recipe import Options
from danlu.series import Step, carried, in_time, origins, owners, runs, series_codes, step_of, time_of
from danlu.targets import fitting, listed, refuse_empty
from danlu.terms import Column, Input, Output, Table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.terms import Batch

ASKS = "steps"
TARGETS = (1, None)
INPUTS_TOO = True
READS = ("numbers",)  # every other column as numbers, whatever the model takes
DEFAULTS = {
    "loss": "mse",
    "metrics": ["mse", "mae", {"name": "mae", "units": "data"}, "mase", "by_step"],
    "data.split": "in_order",
}


def __getattr__(name: str) -> Any:
    if name in ("LOSSES", "METRICS"):
        return fitting(name.lower(), ASKS)
    raise AttributeError(name)


class Config(Options):
    """How far ahead, from what, and what else is known."""

    horizon: int = Field(24, ge=1, le=100_000, description="How many moments ahead are forecast.")
    context: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="How many moments of the past a forecast looks at; null: three horizons or two seasons.",
    )
    time: str | None = Field(
        None, description="The column of the times; null: the one date-time column, else the order of the rows is the time."
    )
    series: str | None = Field(None, description="A column that names several series in one table; null: the table is one series.")
    gaps: Literal["end", "ignore"] = Field(
        "end",
        description="A missing moment ends a window (end), or rows follow each other whatever has passed (ignore: business days).",
    )
    known: list[str] = Field([], description="Columns whose future is known when a forecast is made (prices, holidays).")
    calendar: list[Literal["month", "day", "day_of_year", "weekday", "hour", "minute"]] = Field(
        [], description="Parts of the times, given to the model for the past and for the moments ahead."
    )
    quantiles: list[float] = Field(
        [], description="Quantiles to forecast, with loss: quantile; 0.5 among them, which is the answer."
    )
    season: int | None = Field(
        None, ge=1, description="Moments of a season, for the naive forecast beside the model; null: from the step (24 for hours)."
    )
    stride: int = Field(1, ge=1, description="Training begins a window at every so many moments, elsewhere in each epoch.")

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
                "calendar needs the times ahead, which gaps: ignore leaves unknown; give such columns as known instead"
            )
        return self


def recast(config: Config, table: Table) -> Table:
    """The rows by series and time; DataError for times that are missing, stand twice or have no step."""
    return in_time(table, config.time, config.series, config.gaps)


class Forecasting:
    """The variables asked for, and how outputs (B, horizon, variables * quantiles) become answers."""

    score_order = ("loss", "lower")
    guess = "forecasts that need no learning (mse and mae as above)"

    def __init__(
        self, config: Config, targets: Sequence[str], variables: Sequence[str], mean: Sequence[float], deviation: Sequence[float]
    ):
        import torch

        self.config = config
        self.target_names = tuple(targets)
        self.variables = tuple(variables)
        self.mean, self.deviation = np.array(mean), np.array(deviation)
        self.quantiles = tuple(config.quantiles)
        many = self.quantiles or (None,)
        columns = [(name, quantile) for name in variables for quantile in many]
        self.output = Output(
            len(columns),
            tuple(name if quantile is None else f"{name} q{quantile:g}" for name, quantile in columns),
            each="step",
            steps=config.horizon,
            of=tuple(name for name, _ in columns),
        )
        self.needs = tuple(name for name in (*targets, config.time, config.series, *config.known) if name is not None)
        self._mean, self._deviation = torch.tensor(self.mean), torch.tensor(self.deviation)
        # what the training rows say further, see _learn
        self.context = config.context or 0
        self.season = config.season or 1
        self.step = Step()
        self.features: dict[str, list[str]] = {}
        self.naive_errors: list[float] = []

    def state(self) -> dict[str, Any]:
        """What an artifact keeps."""
        return {
            "targets": list(self.target_names),
            "variables": list(self.variables),
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
            "context": self.context,
            "season": self.season,
            "step": self.step.state(),
            "features": self.features,
            "naive_errors": self.naive_errors,
        }

    # --- outputs to numbers

    def point(self, outputs: Tensor) -> Tensor:
        """The forecast itself (B, H, V): the median where there are quantiles."""
        if not self.quantiles:
            return outputs
        return outputs[..., self.quantiles.index(0.5) :: len(self.quantiles)]

    def to_units(self, numbers: Tensor) -> Tensor:
        """Forecasts or encoded targets (..., V) in the units of the data, float64."""
        return numbers.double() * self._deviation.to(numbers.device) + self._mean.to(numbers.device)

    def in_units(self, differences: Tensor) -> Tensor:
        """Differences (..., V) in the units of the data, float64."""
        return differences.double() * self._deviation.to(differences.device)

    def in_deviations(self, differences: Tensor) -> Tensor:
        """Differences (..., V) in standard deviations of the training rows, float64."""
        return differences.double()

    def answers(self, outputs: Tensor) -> list[dict[str, Any]]:
        """{"prediction": {variable: [H numbers]}} a window, a list alone for one variable; with quantiles {"quantiles": {"0.1": ...}}."""
        told = [{"prediction": self._by_variable(window)} for window in self.to_units(self.point(outputs)).numpy()]
        for number, quantile in enumerate(self.quantiles):
            windows = self.to_units(outputs[..., number :: len(self.quantiles)]).numpy()
            for answer, window in zip(told, windows, strict=True):
                answer.setdefault("quantiles", {})[f"{quantile:g}"] = self._by_variable(window)
        return told

    def _by_variable(self, window: np.ndarray) -> Any:
        if len(self.variables) == 1:
            return window[:, 0].tolist()
        return dict(zip(self.variables, window.T.tolist(), strict=True))

    def respond(self, module: nn.Module, batch: Batch) -> list[dict[str, Any]]:
        """The answers, each with the "times" ahead where they are known and, where there are several, the "series" it goes on with."""
        told = self.answers(module(batch.inputs).float().cpu())
        if "moment" in batch.inputs:
            ahead = self.step.after(batch.inputs["moment"].cpu().numpy(), self.config.horizon)
            for answer, times in zip(told, ahead, strict=True):
                answer["times"] = times.tolist() if self.step.unit == "number" else _iso(times)
        if "series_name" in batch.inputs:
            for answer, letters in zip(told, batch.inputs["series_name"].cpu().numpy(), strict=True):
                answer["series"] = bytes(letters[letters > 0]).decode("utf-8")
        return told

    # --- rows to windows

    def frame(
        self,
        arrays: Mapping[str, Any],
        described: Mapping[str, Input],
        targets: Mapping[str, Column],
        splits: dict[str, np.ndarray],
        table: Table,
        answering: bool = False,
    ) -> Examples:
        """The windows of a table, each named by its last known row; with `answering` the last window of every series."""
        extent = runs(table)
        values = self._scaled(table)
        prepared = Prepared(arrays.get("numbers"), described["numbers"].names if "numbers" in described else ())
        owned = owners(splits, np.asarray(np.isnan(values).any(axis=1)))
        facts = [] if self.features else self._learn(table, values, extent, prepared, owned["train"])
        calendar = self._calendar(table)
        past = np.concatenate(
            [carried(values, extent[0]), prepared.take(self.features["past"]), prepared.take(self.features["known"]), calendar],
            axis=1,
        )
        future = np.concatenate([prepared.take(self.features["known"]), calendar], axis=1)
        static = prepared.take(self.features["static"])
        inputs = self._described()
        if answering:
            return self._to_answer(table, values, extent, past, future, static, inputs)
        context, horizon = self.context, self.config.horizon
        fields: dict[str, Any] = {"series": Windows(past, context, 1 - context)}
        if "future" in inputs:
            fields["future"] = Windows(future, horizon, 1)
        if "numbers" in inputs:
            fields["numbers"] = static
        target = Windows(values, horizon, 1, fill=float("nan"))
        ids = {name: self._windows(name, extent, owned[name], values, table, len(rows)) for name, rows in splits.items()}
        facts += _untaught(series_codes(table, self.config.series), splits)
        phase = self.config.stride if "train" in ids else 1
        return Cut(fields, inputs, target, ids, phase=phase, facts=facts, first=extent[0])

    def _scaled(self, table: Table) -> np.ndarray:
        """The targets on the model's scale, float32 (N, V), NaN where missing."""
        found = []
        for name in self.target_names:
            if name not in table.columns:
                raise DataError(
                    f"the column {name} is not there: a forecast needs the past of what it forecasts.",
                    where=table.origin,
                    hint=did_you_mean(name, table.columns),
                )
            found.append(_numbers(table.columns[name]))
        values = np.concatenate(found, axis=1)
        if values.shape[1] != len(self.variables):
            raise DataError(
                f"the targets hold {values.shape[1]} numbers a row; training had {len(self.variables)}.", where=table.origin
            )
        with np.errstate(over="ignore"):
            scaled = ((values - self.mean) / self.deviation).astype(np.float32)
        bad = np.argwhere(np.isinf(scaled))
        if len(bad):
            row, column = bad[0]
            raise DataError(
                f"{self.variables[column]} is {values[row, column]:g}, too large for float32.",
                where=table.where(int(row)),
                hint="mend the row, or write it as a missing value",
            )
        return scaled

    def _learn(
        self, table: Table, values: np.ndarray, extent: tuple[np.ndarray, np.ndarray], prepared: Prepared, owned: np.ndarray
    ) -> list[str]:
        """Context, season, step, features and the error of the naive guess, from the training rows; sentences for the reader."""
        config = self.config
        time = time_of(table, config.time)
        group = series_codes(table, config.series)
        if config.gaps == "end":
            self.step = step_of(time, np.append(group[1:] == group[:-1], False)) or Step()
        self.season = config.season or self.step.season
        self._refuse_unknown(table)
        self.features, facts = self._roles(table, values, prepared, group, time)
        self.naive_errors = naive.seasonal_differences(values, extent[0], owned, self.season).tolist()
        if config.context is None:
            longest = int(np.bincount(extent[0][owned]).max())
            self.context = max(1, min(max(3 * config.horizon, 2 * self.season), (longest - config.horizon) // 2))
            facts.append(f"a forecast looks at the last {self.context:,} moments (task.context).")
        if config.calendar and self.step.unit not in ("microseconds", "months"):
            raise DataError(
                "task.calendar needs a date-time column.", where=table.origin, hint="name it in task.time, or leave calendar out"
            )
        return facts

    def _refuse_unknown(self, table: Table) -> None:
        for name in self.config.known:
            if name not in table.columns or name in self.target_names:
                raise DataError(
                    f"task.known names {name}, which is {'a target' if name in self.target_names else 'no column'}.",
                    where=table.origin,
                    hint=did_you_mean(name, [each for each in table.columns if each not in self.target_names]),
                )

    def _roles(
        self, table: Table, values: np.ndarray, prepared: Prepared, group: np.ndarray, time: Column | None
    ) -> tuple[dict[str, list[str]], list[str]]:
        """Which prepared features are past, known or static; those of the time and of the targets as they are here are none."""
        config = self.config
        same = group[1:] == group[:-1]
        places = {name: place for place, name in enumerate(self.variables)}
        roles: dict[str, list[str]] = {"past": [], "known": [], "static": []}
        for feature in prepared.names:
            column = _column_of(feature, table)
            numbers = prepared.take([feature])[:, 0]
            if time is not None and column == time.name:
                continue
            if feature in places:
                here = values[:, places[feature]]
                known = ~np.isnan(here)
                if np.allclose(numbers[known], here[known], rtol=1e-3, atol=1e-3):
                    continue
            constant = config.series is not None and bool((numbers[1:] == numbers[:-1])[same].all())
            roles["static" if constant or column == config.series else "known" if column in config.known else "past"].append(
                feature
            )
        lost = [name for name in config.known if name not in {_column_of(each, table) for each in prepared.names}]
        facts = [f"column {name} is left out though task.known names it: it has nothing to teach." for name in lost]
        return roles, facts

    def _described(self) -> dict[str, Input]:
        features, clock = self.features, self._calendar_names()
        past = (*self.variables, *features["past"], *features["known"], *clock)
        ahead = (*features["known"], *clock)
        result = {"series": Input("series", (self.context, len(past)), names=past)}
        if ahead:
            result["future"] = Input("series", (self.config.horizon, len(ahead)), names=ahead)
        if features["static"]:
            result["numbers"] = Input("numbers", (len(features["static"]),), names=tuple(features["static"]))
        return result

    def _windows(
        self, split: str, extent: tuple[np.ndarray, np.ndarray], owned: np.ndarray, values: np.ndarray, table: Table, rows: int
    ) -> np.ndarray:
        """The last known rows of a split's windows; none without a single number to compare with."""
        horizon = self.config.horizon
        found = origins(extent, owned, self.context, horizon, inside=split == "train")
        told = np.concatenate([[0], np.cumsum(~np.isnan(values).all(axis=1))])
        found = found[told[found + 1 + horizon] > told[found + 1]]
        if split == "train":
            found = _strided(found, self.config.stride)
        if len(found) or not rows:
            return found
        lies = "all in it" if split == "train" else f"{horizon:,} of them in it"
        raise DataError(
            f"the {split} split ({rows:,} rows) has no window of {self.context:,} + {horizon:,} moments in a row, {lies}.",
            where=table.origin,
            hint="lower task.context or task.horizon, or give the split more rows"
            + ("" if self.config.gaps == "ignore" else "; task.gaps: ignore goes on across gaps"),
        )

    def _calendar_names(self) -> tuple[str, ...]:
        if not self.config.calendar:
            return ()
        return names(self._parts(Column(self.step.column, "datetime", np.zeros(1, dtype=np.int64))))

    def _calendar(self, table: Table) -> np.ndarray:
        """The parts of each row's time, float32 (N, parts)."""
        if not self.config.calendar:
            return np.zeros((len(table), 0), dtype=np.float32)
        return matrix(self._parts(table.columns[self.step.column])).astype(np.float32)

    def _parts(self, times: Column) -> Column:
        part = shelf.take("transforms", "date_parts")
        return part.apply(
            part.Config(parts=list(self.config.calendar)), {"parts": list(dict.fromkeys(self.config.calendar))}, times
        )

    # --- rows to answer

    def _to_answer(
        self,
        table: Table,
        values: np.ndarray,
        extent: tuple[np.ndarray, np.ndarray],
        past: np.ndarray,
        future: np.ndarray,
        static: np.ndarray,
        inputs: dict[str, Input],
    ) -> Examples:
        """The last window of every series: it ends at the last row that holds a target; rows after it tell what is known ahead."""
        group = series_codes(table, self.config.series)
        told = np.flatnonzero(~np.isnan(values).all(axis=1))
        last = told[np.append(group[told][1:] != group[told][:-1], True)] if len(told) else told
        self._refuse_short(table, last, extent[0])
        fields: dict[str, Any] = {"series": Windows(past, self.context, 1 - self.context).at(last)}
        if self.step.column:
            fields["moment"] = np.ascontiguousarray(table.columns[self.step.column].values[last])
        if "future" in inputs:
            fields["future"] = self._ahead(table, last, extent[1], future, fields.get("moment"))
        if "numbers" in inputs:
            fields["numbers"] = static[last]
        if self.config.series is not None:
            fields["series_name"] = _letters([str(table.columns[self.config.series].answer(int(row))) for row in last])
        return Examples(fields, inputs, None, {"data": np.arange(len(last))}, row_of=lambda ids: last[ids])

    def _refuse_short(self, table: Table, last: np.ndarray, first: np.ndarray) -> None:
        short = np.flatnonzero(last - first[last] + 1 < self.context)
        if len(last) and not len(short):
            return
        have = f"{int(last[short[0]] - first[last[short[0]]]) + 1:,}" if len(short) else "none"
        raise DataError(
            f"a forecast looks at {self.context:,} moments in a row, and there are {have} up to the last known one.",
            where=table.where(int(last[short[0]])) if len(short) else table.origin,
            hint="give more of the past (task.context says how much a model is trained to look at)",
        )

    def _ahead(self, table: Table, last: np.ndarray, ends: np.ndarray, future: np.ndarray, moments: Any) -> np.ndarray:
        """What is known of the moments ahead, float32 (M, H, K): from the rows after the last target, and from the calendar."""
        horizon, known = self.config.horizon, len(self.features["known"])
        pieces = []
        if known:
            short = np.flatnonzero(ends[last] - last < horizon)
            if len(short):
                row = int(last[short[0]])
                raise DataError(
                    f"{', '.join(self.config.known)} must be told for the {horizon:,} moments ahead, and {int(ends[row] - row):,} rows "
                    "follow the last one with a target.",
                    where=table.where(row),
                    hint="add rows for the moments ahead, with the targets left empty",
                )
            pieces.append(Windows(future[:, :known], horizon, 1).at(last))
        if self.config.calendar:
            times = self.step.after(moments, horizon)
            parts = matrix(self._parts(Column(self.step.column, "datetime", times.reshape(-1))))
            pieces.append(parts.reshape(len(last), horizon, -1).astype(np.float32))
        return np.concatenate(pieces, axis=2)

    # --- scores without learning, and words

    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """{"seasonal_naive/mse", "seasonal_naive/mae", "repeat_last/mse", ...} over the windows of a split."""
        series, target = examples.inputs["series"], examples.target
        if not isinstance(series, Windows) or not isinstance(target, Windows):
            return {}
        past = series.values[:, : len(self.variables)]
        first = examples.first if isinstance(examples, Cut) else np.arange(len(past))
        guesses = naive.guesses(past, first, self.season, self.config.horizon, np.zeros(len(self.variables), dtype=np.float32))
        found = {name: naive.errors(guess, target.at, examples.splits[split]) for name, guess in guesses.items()}
        return {f"{name}/{metric}": value for name, scores in found.items() for metric, value in scores.items()}

    def describe(self) -> str:
        """'forecasting of load and price: 24 steps of 1 hour ahead, from the last 72'."""
        step = "" if self.step.unit == "rows" else f" of {self.step.describe()}"
        return f"forecasting of {listed(self.variables)}: {self.config.horizon:,} steps{step} ahead, from the last {self.context:,}"


@dataclass
class Cut(Examples):
    """Windows, and the first row of each row's run: how far back a season may be looked up."""

    first: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class Prepared:
    """The features that the preprocessing made, float32 (N, F), by name."""

    def __init__(self, values: np.ndarray | None, names: tuple[str, ...]) -> None:
        self.values = values
        self.names = names if values is not None else ()
        self._place = {name: place for place, name in enumerate(self.names)}

    def take(self, names: Sequence[str]) -> np.ndarray:
        """The features called `names`, side by side."""
        if self.values is None:
            raise DataError("there is no column that preprocessing made numbers of.", hint="look at data.columns")
        return self.values[:, [self._place[name] for name in names]]


def build(config: Config, targets: Mapping[str, Column]) -> Forecasting:
    """The task, mean and deviation of each variable taken from the training rows."""
    variables, means, deviations = [], [], []
    for name, column in targets.items():
        refuse_empty(column)
        for variable, values in zip(_names(column), _numbers(column).T, strict=True):
            known = np.ascontiguousarray(values[~np.isnan(values)])
            mean, deviation = mean_and_deviation(known)
            if not deviation:
                raise DataError(
                    f"the target {name} is {f'{mean:g}' if len(known) else 'missing'} in all {len(values):,} training rows: "
                    "there is nothing to learn.",
                    hint="look at data.target and at the split",
                )
            variables.append(variable)
            means.append(mean)
            deviations.append(deviation)
    return Forecasting(config, list(targets), variables, means, deviations)


def restore(config: Config, state: Mapping[str, Any]) -> Forecasting:
    """The task as `state()` wrote it."""
    task = Forecasting(config, state["targets"], state["variables"], state["mean"], state["deviation"])
    task.context, task.season = int(state["context"]), int(state["season"])
    task.step = Step(**state["step"])
    task.features = {role: list(map(str, state["features"][role])) for role in ("past", "known", "static")}
    task.naive_errors = list(state["naive_errors"])
    return task


def _names(column: Column) -> tuple[str, ...]:
    return (column.name,) if column.values.ndim == 1 else names(column)


def _numbers(column: Column) -> np.ndarray:
    """A number column as float64 (N, D), NaN where missing; DataError for another kind and for infinities."""
    if column.kind != "number":
        raise DataError(
            f"the target {column.name} holds {column.kind}; what is forecast are numbers.",
            hint=f"set data.columns.{column.name}.kind: number, or choose another target",
        )
    values = matrix(column).astype(np.float64)
    infinite = int(np.isinf(values).any(axis=1).sum())
    if infinite:
        raise DataError(f"the target {column.name} is infinite in {infinite:,} of {len(values):,} rows.", hint="mend those rows")
    return values


def _column_of(feature: str, table: Table) -> str:
    """The column that a feature was made of: the longest name of a column that the feature's name begins with."""
    fitting = [
        name for name in table.columns if feature == name or feature.startswith((f"{name} ", f"{name}_", f"{name}.", f"{name}="))
    ]
    return max(fitting, key=len, default="")


def _strided(found: np.ndarray, stride: int) -> np.ndarray:
    """Every `stride`-th of the windows, each followed by those it may move to: the stride - 1 places after it."""
    if stride == 1 or not len(found):
        return found
    starts = np.append(True, np.diff(found) > 1)
    begin = np.maximum.accumulate(np.where(starts, np.arange(len(found)), 0))
    place = np.arange(len(found)) - begin
    movable = np.append(found[stride - 1 :] - found[: len(found) - stride + 1] == stride - 1, np.zeros(stride - 1, dtype=bool))
    return found[(place % stride == 0) & movable[: len(found)]]


def _untaught(group: np.ndarray, splits: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence where series stand in validation or test that no training row shows."""
    if "train" not in splits or not group.any():
        return []
    taught = np.unique(group[splits["train"]])
    said = []
    for split in ("validation", "test"):
        new = np.setdiff1d(group[splits.get(split, np.zeros(0, dtype=np.int64))], taught)
        if len(new):
            said.append(
                f"{len(new):,} series of the {split} split stand in no training row (data.split: {{name: in_order, within: COLUMN}} cuts each "
                "series by itself, by_time all of them at one moment)."
            )
    return said


def _letters(said: Sequence[str]) -> np.ndarray:
    """Texts as UTF-8 bytes with zeros after their ends, uint8 (M, longest)."""
    coded = [text.encode("utf-8") for text in said]
    result = np.zeros((len(coded), max(map(len, coded), default=0) or 1), dtype=np.uint8)
    for row, text in zip(result, coded, strict=True):
        row[: len(text)] = np.frombuffer(text, dtype=np.uint8)
    return result


def _iso(times: np.ndarray) -> list[str]:
    """Times (microseconds since 1970) in ISO form, no finer than they are."""
    unit: Any = "s" if (times % 1_000_000 == 0).all() else "us"
    return np.datetime_as_string(times.astype("M8[us]").astype(f"M8[{unit}]")).tolist()
