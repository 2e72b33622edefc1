"""What tasks on series share: scaled targets, roles of columns in time, and windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from danlu import registry
from danlu.data.examples import Examples
from danlu.data.matrix import as_matrix, feature_names, mean_and_deviation
from danlu.errors import DataError, did_you_mean
from danlu.parts.tasks._base import (
    AnswersFromArrays,
    AnswersOutputs,
    CutsExamples,
    PredictsSteps,
    PreparedInputs,
    Responds,
)
from danlu.recipe import Options
from danlu.series import naive_forecasts
from danlu.series.time_order import series_codes, sort_by_time, time_column
from danlu.series.time_step import TimeStep, infer_step
from danlu.series.windows import contiguous_runs, forward_fill, window_origins
from danlu.terms import Column, InputSpec, Table

if TYPE_CHECKING:
    from torch import Tensor


class SeriesOptions(Options):
    """The options of every task on series."""

    context: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Moments of the past that the model sees; null: three horizons or two seasons.",
    )
    time: str | None = Field(
        None,
        description="The column of the times; null: the one date-time column, else rows are in "
        "order "
        "of time.",
    )
    series: str | None = Field(
        None,
        description="A column that names several series in one table; null: the table is one "
        "series.",
    )
    gaps: Literal["end", "ignore"] = Field(
        "end",
        description="Whether a missing moment ends a window (end), or rows count as consecutive "
        "(ignore: business days).",
    )
    season: int | None = Field(
        None,
        ge=1,
        description="Moments of a season, for the naive forecast; null: by the time step (24 for "
        "hours).",
    )
    known: list[str] = Field(
        [], description="Columns whose future is known when a forecast is made (prices, holidays)."
    )
    calendar: list[Literal["month", "day", "day_of_year", "weekday", "hour", "minute"]] = Field(
        [],
        description="Calendar parts of the times, as inputs for the past and the moments ahead.",
    )


def recast(config: SeriesOptions, table: Table) -> Table:
    """The rows sorted by series and time. DataError for times that are missing, repeated or
    irregular, and for a column that does not exist."""
    for name in config.known:
        if name not in table.columns:
            near = did_you_mean(name, table.columns)
            raise DataError(
                f"task.known names the column {name}, which does not exist.",
                where=table.origin,
                hint=near,
            )
    return sort_by_time(table, config.time, config.series, config.gaps)


@dataclass
class WindowExamples(Examples):
    """Windows, and for each row the first row of its run: a season is looked up no further back."""

    first: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class NamedFeatures:
    """The numbers that the preprocessing made, float32 (N, F), with their names."""

    def __init__(self, values: np.ndarray, names: tuple[str, ...]) -> None:
        self.values = values
        self.names = names
        self._index_of = {name: index for index, name in enumerate(self.names)}

    def take(self, names: Sequence[str]) -> np.ndarray:
        """The features of these names, float32 (N, len(names))."""
        return self.values[:, [self._index_of[name] for name in names]]


@dataclass(frozen=True)
class SeriesArrays:
    """A table as arrays to cut windows from, one row per moment; all float32, NaN only in `values`.

    values        (N, V) the targets on the model's scale
    past          (N, F) what the model sees of the past, targets first
    future        (N, K) what is known of the moments ahead
    static        (N, S) what is constant in a series
    first, last   int64 (N,) the first and last row of each row's run
    """

    values: np.ndarray
    past: np.ndarray
    future: np.ndarray
    static: np.ndarray
    first: np.ndarray
    last: np.ndarray


class SeriesTask(PredictsSteps, CutsExamples, AnswersOutputs, Responds, AnswersFromArrays):
    """The variables predicted, their scale, and what the training rows determine; see
    SeriesOptions."""

    def __init__(
        self,
        config: SeriesOptions,
        horizon: int,
        targets: Sequence[str],
        variables: Sequence[str],
        mean: Sequence[float],
        deviation: Sequence[float],
    ) -> None:
        self.config = config
        self.horizon = horizon
        self.target_names = tuple(targets)
        self.variables = tuple(variables)
        self.mean, self.deviation = np.array(mean), np.array(deviation)
        self.needs = tuple(
            name
            for name in (*targets, config.time, config.series, *config.known)
            if name is not None
        )
        # learnt in the first call of `make_examples`
        self.context = config.context or 0
        self.season = config.season or 1
        self.step = TimeStep()
        self.features: dict[str, list[str]] = {}
        self.naive_errors: list[float] = []

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
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

    def load(self, state: Mapping[str, Any]) -> None:
        """Set what `state()` of such a task holds."""
        self.context, self.season = int(state["context"]), int(state["season"])
        self.step = TimeStep(**state["step"])
        self.features = {
            role: list(map(str, state["features"][role])) for role in ("past", "known", "static")
        }
        self.naive_errors = list(state["naive_errors"])

    # --- scales

    def to_units(self, outputs: Tensor) -> Tensor:
        """Forecasts or encoded targets (..., V) in the units of the data, float64."""
        return outputs.double() * _like(self.deviation, outputs) + _like(self.mean, outputs)

    def in_units(self, differences: Tensor) -> Tensor:
        """Differences (..., V) in the units of the data, float64."""
        return differences.double() * _like(self.deviation, differences)

    def in_deviations(self, differences: Tensor) -> Tensor:
        """Differences (..., V) in standard deviations of the training rows, float64."""
        return differences.double()

    # --- rows to moments

    def lay_out(
        self,
        arrays: PreparedInputs,
        described: Mapping[str, InputSpec],
        table: Table,
        splits: Mapping[str, np.ndarray],
    ) -> tuple[SeriesArrays, list[str]]:
        """The table as SeriesArrays, and sentences for the reader; the first call learns from the
        training rows."""
        first, last = contiguous_runs(table)
        values = self._scaled(table)
        numbers = arrays.get("numbers")
        assert numbers is None or isinstance(numbers, np.ndarray)
        empty = np.zeros((len(table), 0), dtype=np.float32)
        prepared = (
            NamedFeatures(empty, ())
            if numbers is None
            else NamedFeatures(numbers, described["numbers"].names)
        )
        facts = (
            [] if self.features else self._learn(table, values, first, prepared, splits["train"])
        )
        known_ahead, calendar = prepared.take(self.features["known"]), self._calendar(table)
        past = np.concatenate(
            [
                forward_fill(values, first),
                prepared.take(self.features["past"]),
                known_ahead,
                calendar,
            ],
            axis=1,
        )
        future = np.concatenate([known_ahead, calendar], axis=1)
        return SeriesArrays(
            values, past, future, prepared.take(self.features["static"]), first, last
        ), facts

    def input_specs(self) -> dict[str, InputSpec]:
        """The inputs of the model: "series", and where there are such columns "future" and
        "numbers" (the static ones)."""
        features, clock = self.features, self._calendar_names()
        past = (*self.variables, *features["past"], *features["known"], *clock)
        ahead = (*features["known"], *clock)
        result = {"series": InputSpec("series", (self.context, len(past)), names=past)}
        if ahead:
            result["future"] = InputSpec("series", (self.horizon, len(ahead)), names=ahead)
        if features["static"]:
            result["numbers"] = InputSpec(
                "numbers", (len(features["static"]),), names=tuple(features["static"])
            )
        return result

    def _scaled(self, table: Table) -> np.ndarray:
        """The targets on the model's scale, float32 (N, V), NaN where missing."""
        matrices = []
        for name in self.target_names:
            if name not in table.columns:
                raise DataError(
                    f"there is no column {name}, and the model reads the past of what it predicts.",
                    where=table.origin,
                    hint=did_you_mean(name, table.columns),
                )
            matrices.append(_numbers(table.columns[name]))
        values = np.concatenate(matrices, axis=1)
        if values.shape[1] != len(self.variables):
            raise DataError(
                f"the targets hold {values.shape[1]} numbers a row; training had "
                f"{len(self.variables)}.",
                where=table.origin,
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
        self,
        table: Table,
        values: np.ndarray,
        first: np.ndarray,
        prepared: NamedFeatures,
        train: np.ndarray,
    ) -> list[str]:
        """Learn context, season, step, features and the error of the naive forecast from the
        training rows; returns sentences for the reader."""
        config = self.config
        time = time_column(table, config.time)
        group = series_codes(table, config.series)
        if config.gaps == "end":
            self.step = infer_step(time, np.append(group[1:] == group[:-1], False)) or TimeStep()
        self.season = config.season or self.step.season
        twice = [name for name in config.known if name in self.target_names]
        if twice:
            raise DataError(
                f"task.known names {twice[0]}, which is a target, whose future is to be predicted.",
                where=table.origin,
            )
        self.features, facts = self._roles(table, values, prepared, group, time)
        self.naive_errors = naive_forecasts.seasonal_differences(
            values, first, train, self.season
        ).tolist()
        if config.context is None:
            longest = int(np.bincount(first[train]).max())
            self.context = max(
                1, min(max(3 * self.horizon, 2 * self.season), (longest - self.horizon) // 2)
            )
            facts.append(f"the model looks at the last {self.context:,} moments (task.context).")
        if config.calendar and self.step.unit not in ("microseconds", "months"):
            raise DataError(
                "task.calendar needs a date-time column.",
                where=table.origin,
                hint="name it in task.time, or leave calendar out",
            )
        return facts

    def _roles(
        self,
        table: Table,
        values: np.ndarray,
        prepared: NamedFeatures,
        group: np.ndarray,
        time: Column | None,
    ) -> tuple[dict[str, list[str]], list[str]]:
        """Which prepared features are past, known or static. The time and the targets themselves
        are left out."""
        config = self.config
        same = group[1:] == group[:-1]
        places = {name: index for index, name in enumerate(self.variables)}
        roles: dict[str, list[str]] = {"past": [], "known": [], "static": []}
        for feature in prepared.names:
            column = _column_of(feature, table)
            numbers = prepared.take([feature])[:, 0]
            if time is not None and column == time.name:
                continue
            if feature in places:
                here = values[:, places[feature]]
                present = ~np.isnan(here)
                if np.allclose(numbers[present], here[present], rtol=1e-3, atol=1e-3):
                    continue
            constant = config.series is not None and bool((numbers[1:] == numbers[:-1])[same].all())
            roles[
                "static"
                if constant or column == config.series
                else "known"
                if column in config.known
                else "past"
            ].append(feature)
        lost = [
            name
            for name in config.known
            if name not in {_column_of(prepared_name, table) for prepared_name in prepared.names}
        ]
        facts = [
            f"column {name} is left out though task.known names it: it has nothing to teach."
            for name in lost
        ]
        return roles, facts

    def _calendar_names(self) -> tuple[str, ...]:
        if not self.config.calendar:
            return ()
        return feature_names(
            self.parts(Column(self.step.column, "datetime", np.zeros(1, dtype=np.int64)))
        )

    def _calendar(self, table: Table) -> np.ndarray:
        """The calendar parts of each row's time, float32 (N, parts)."""
        if not self.config.calendar:
            return np.zeros((len(table), 0), dtype=np.float32)
        return as_matrix(self.parts(table.columns[self.step.column])).astype(np.float32)

    def parts(self, times: Column) -> Column:
        """The calendar parts of a column of times, float64 (N, parts)."""
        part = registry.take("transforms", "date_parts")
        return part.apply(
            part.Config(parts=list(self.config.calendar)),
            {"parts": list(dict.fromkeys(self.config.calendar))},
            times,
        )

    def windows(
        self,
        split: str,
        laid: SeriesArrays,
        owned: np.ndarray,
        rows: int,
        table: Table,
        context: int | None = None,
    ) -> np.ndarray:
        """The last known row of each window of a split, int64, ascending; windows whose target is
        all NaN are left out.

        `context` moments of the past (None: the task's). DataError where a split of `rows` rows has
        no window."""
        horizon, context = self.horizon, self.context if context is None else context
        origins = window_origins(
            (laid.first, laid.last), owned, context, horizon, inside=split == "train"
        )
        present_before = np.concatenate([[0], np.cumsum(~np.isnan(laid.values).all(axis=1))])
        origins = origins[present_before[origins + 1 + horizon] > present_before[origins + 1]]
        if len(origins) or not rows:
            return origins
        lies = "all in it" if split == "train" else f"{horizon:,} of them in it"
        raise DataError(
            f"the {split} split ({rows:,} rows) has no window of {context:,} + {horizon:,} "
            f"moments in a row, {lies}.",
            where=table.origin,
            hint="lower task.context, look less far ahead, or give the split more rows"
            + ("" if self.config.gaps == "ignore" else "; task.gaps: ignore goes on across gaps"),
        )


def _like(numbers: np.ndarray, tensor: Tensor) -> Tensor:
    """The numbers as a float64 tensor on the tensor's device."""
    import torch

    return torch.tensor(numbers, dtype=torch.float64, device=tensor.device)


def fit_scales(targets: Mapping[str, Column]) -> tuple[list[str], list[float], list[float]]:
    """(names, means, deviations) of the numbers in target columns of training rows. DataError for a
    constant or empty target."""
    variables: list[str] = []
    means: list[float] = []
    deviations: list[float] = []
    for name, column in targets.items():
        for variable, values in zip(_names(column), _numbers(column).T, strict=True):
            present = np.ascontiguousarray(values[~np.isnan(values)])
            mean, deviation = mean_and_deviation(present)
            if not deviation:
                raise DataError(
                    f"the target {name} is {f'{mean:g}' if len(present) else 'missing'} in all "
                    f"{len(values):,} training rows: "
                    "there is nothing to learn.",
                    hint="look at data.target and at the split",
                )
            variables.append(variable)
            means.append(mean)
            deviations.append(deviation)
    return variables, means, deviations


def _names(column: Column) -> tuple[str, ...]:
    return (column.name,) if column.values.ndim == 1 else feature_names(column)


def _numbers(column: Column) -> np.ndarray:
    """A number column as float64 (N, D), NaN where missing; DataError for another kind and for
    infinities."""
    if column.kind != "number":
        raise DataError(
            f"the target {column.name} holds {column.kind}; only numbers can be forecast.",
            hint=f"set data.columns.{column.name}.kind: number, or choose another target",
        )
    values = as_matrix(column).astype(np.float64)
    infinite = int(np.isinf(values).any(axis=1).sum())
    if infinite:
        raise DataError(
            f"the target {column.name} is infinite in {infinite:,} of {len(values):,} rows.",
            hint="mend those rows",
        )
    return values


def _column_of(feature: str, table: Table) -> str:
    """The column that a feature was made of: the longest column name that the feature's name begins
    with."""
    fitting = [
        name
        for name in table.columns
        if feature == name or feature.startswith((f"{name} ", f"{name}_", f"{name}.", f"{name}="))
    ]
    return max(fitting, key=len, default="")


def utf8_matrix(texts: Sequence[str]) -> np.ndarray:
    """Texts as UTF-8 bytes with zeros after their ends, uint8 (M, longest).

    >>> utf8_matrix(["ab", "c"]).tolist()
    [[97, 98], [99, 0]]
    """
    coded = [text.encode("utf-8") for text in texts]
    result = np.zeros((len(coded), max(map(len, coded), default=0) or 1), dtype=np.uint8)
    for row, text in zip(result, coded, strict=True):
        row[: len(text)] = np.frombuffer(text, dtype=np.uint8)
    return result


def iso_times(times: np.ndarray) -> list[str]:
    """Times (microseconds since 1970) in ISO form, with fractions of a second only where there are
    any.

    >>> iso_times(np.array([1_000_000]))
    ['1970-01-01T00:00:01']
    """
    unit: Literal["s", "us"] = "s" if (times % 1_000_000 == 0).all() else "us"
    return np.datetime_as_string(times.astype("M8[us]").astype(f"M8[{unit}]")).tolist()
