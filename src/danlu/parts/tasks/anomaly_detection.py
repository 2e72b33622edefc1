"""Anomalies in a series: a score for each row, and the variable that is furthest off.

by               the model learns to                            the score of a row is its error
forecast         predict a row from those before it             in that prediction
reconstruction   encode a window in a few numbers and decode    in the window's last row
                 it again

Errors are divided by the model's usual error in each variable; the largest over the variables
counts. A row is flagged where the score passes a threshold, which `expected` of the rows pass that
it is learnt from: the validation rows, which the model was not fitted to, or the training rows
where there are none. Neither way needs anything that comes after a row.

Forecasting is the default: no width decides what counts as normal, and every family of forecasters
can be used. Reconstruction sees the row itself, so what no past can predict (a drifting level, a
burst of ordinary noise) does not count as an anomaly; how much of it, depends on how few numbers
the code has. Either way the rows after an anomaly are judged with it in their window, and are at
times flagged too. Rows that `labels` calls anomalies are not trained on; precision, recall and F1
compare with them. Sources: Malhotra et al., 2015 (ESANN); Hundman et al., 2018, arXiv:1802.04431;
Malhotra et al., 2016, arXiv:1607.00148 (reconstruction)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from danlu.data.examples import Examples, Windows
from danlu.data.examples import Field as ExampleField
from danlu.errors import DataError
from danlu.parts.tasks._base import Answer, Calibrates, PreparedInputs, ScoreOrder, ScoresAnomalies
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
from danlu.recipe import ColumnOptions, Data
from danlu.series import naive_forecasts
from danlu.series.windows import split_masks
from danlu.terms import Column, InputSpec, OutputSpec, Table

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.terms import Batch

__all__ = ["AnomalyDetection", "Config", "adapt", "build", "recast", "restore"]

ASKS = "steps"
TARGETS = (1, None)
INPUTS_TOO = True
READS = ("numbers",)  # all other columns as numbers, whatever kinds the model takes
DEFAULTS = {
    "model": "linear_forecaster",
    "loss": "huber",  # outliers in the training rows pull less
    "metrics": ["mae", "anomalies"],
    "data.split": "in_order",
}
_LEAST_SPREAD = (
    1e-6  # in deviations of the training rows, for a variable predicted without any error
)


def adapt(config: Config, data: Data) -> Data:
    """The data section without the column of labels among the inputs."""
    if config.labels is None:
        return data
    options = data.columns.get(config.labels, ColumnOptions()).model_copy(update={"use": False})
    return data.model_copy(update={"columns": {**data.columns, config.labels: options}})


def recommends(config: Config) -> dict[str, object]:
    """The default model of these options: a network with a bottleneck for reconstruction."""
    return {"model": "autoencoder"} if config.by == "reconstruction" else {}


class Config(SeriesOptions):
    """The variables, and the share of rows that may be flagged."""

    by: Literal["forecast", "reconstruction"] = Field(
        "forecast",
        description="Compare a row with a forecast from its past, or with the reconstruction of "
        "the "
        "window that ends with it.",
    )
    expected: float = Field(
        0.005,
        gt=0,
        lt=0.5,
        description="Share of ordinary rows that may be flagged; it sets the threshold.",
    )
    labels: str | None = Field(
        None,
        description="A column that labels anomalies (true, 1 or anomaly); it is not an input of "
        "the "
        "model.",
    )


class AnomalyDetection(SeriesTask, ScoresAnomalies, Calibrates):
    """The variables, and how the errors of a model become scores."""

    score_order: ScoreOrder = ("loss", "lower")
    baseline_description = "predicting each row by the one before it, or a season before it"

    def __init__(
        self,
        config: Config,
        targets: Sequence[str],
        variables: Sequence[str],
        *scale: Sequence[float],
    ) -> None:
        super().__init__(config, 1, targets, variables, *scale)
        self.labels, self.expected = config.labels, config.expected
        self.reconstructs = config.by == "reconstruction"
        per: Literal["moment", "step"] = "moment" if self.reconstructs else "step"
        self.output = OutputSpec(
            len(variables),
            tuple(variables),
            per=per,
            steps=0 if self.reconstructs else 1,
            of=tuple(variables),
        )
        self.spread: list[float] = []  # the usual error of each variable, see `calibrate`
        self.threshold: float | None = None

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
        return {**super().state(), "spread": self.spread, "threshold": self.threshold}

    def point_forecast(self, outputs: Tensor) -> Tensor:
        """The outputs: the predicted row, (B, 1, V), or the window, (B, L, V)."""
        return outputs

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
        """A window for each row: the rows before it, and itself as the target; for reconstruction
        the window that ends with it, as input and target.

        With `answering` every row, else those with enough rows before."""
        laid, facts = self.lay_out(arrays, specs, table, splits)
        inputs = self.input_specs()
        if self.reconstructs:
            inputs.pop("future", None)  # a window has the known columns of its own moments
        fields: dict[str, ExampleField] = {
            "series": Windows(laid.past, self.context, self.reconstructs - self.context)
        }
        if "future" in inputs:
            fields["future"] = Windows(laid.future, 1)
        if "numbers" in inputs:
            fields["numbers"] = laid.static
        if answering:
            return self._to_answer(table, laid, fields, inputs)
        marks = self._marks(table)
        fields["anomaly"] = marks
        owned = split_masks(splits, np.asarray(np.isnan(laid.values).any(axis=1)))
        before = self.context - self.reconstructs
        ids = {
            name: self.windows(name, laid, owned[name], len(rows), table, before) + 1
            for name, rows in splits.items()
        }
        length = self.context if self.reconstructs else 1
        if "train" in ids:
            bad = np.concatenate([[0], np.cumsum(marks == 1)])
            ids["train"] = ids["train"][bad[ids["train"] + 1] == bad[ids["train"] + 1 - length]]
        target = Windows(laid.values, length, 1 - length, fill=float("nan"))
        return WindowExamples(fields, inputs, target, ids, facts=facts, first=laid.first)

    def _to_answer(
        self,
        table: Table,
        laid: SeriesArrays,
        fields: dict[str, ExampleField],
        inputs: dict[str, InputSpec],
    ) -> Examples:
        row_numbers = np.arange(len(table))
        fields["actual"] = laid.values
        fields["judged"] = (
            row_numbers - laid.first >= self.context - self.reconstructs
        ) & ~np.isnan(laid.values).all(axis=1)
        if self.step.column:
            fields["moment"] = np.ascontiguousarray(table.columns[self.step.column].values)
        if self.config.series is not None:
            column = table.columns[self.config.series]
            fields["series_name"] = utf8_matrix(
                [str(column.python_value(row)) for row in range(len(table))]
            )
        return Examples(fields, inputs, None, {"data": row_numbers})

    def _marks(self, table: Table) -> np.ndarray:
        """1 for a labelled anomaly, 0 for a row labelled ordinary, -1 without a label; int64
        (N,)."""
        if (
            self.labels is None or self.labels not in table.columns
        ):  # training has checked that it exists
            return np.full(len(table), -1, dtype=np.int64)
        column = table.columns[self.labels]
        return np.where(column.is_missing(), -1, _truths(column, table))

    # --- errors and scores

    def calibrate(self, pairs: Iterable[tuple[Tensor, Batch]]) -> None:
        """Learn the usual error of each variable and the threshold, from (outputs, batch) of rows
        that the model was not fitted to."""
        import torch

        wrong = []
        for outputs, batch in pairs:
            ordinary = batch.inputs["anomaly"] != 1
            wrong.append((outputs.double() - batch.target.double())[ordinary][:, -1].abs().cpu())
        errors = torch.cat(wrong).numpy()
        if not len(errors):
            raise DataError(
                "there is no ordinary row to learn a threshold from.",
                hint="look at task.labels and at the split",
            )
        present = ~np.isnan(errors)
        squares = np.square(np.where(present, errors, 0.0)).sum(axis=0) / np.maximum(
            present.sum(axis=0), 1
        )
        self.spread = np.maximum(np.sqrt(squares), _LEAST_SPREAD).tolist()
        self.threshold = float(np.quantile(self._worst(errors), 1 - self.expected))

    def _worst(self, errors: np.ndarray) -> np.ndarray:
        """The largest error of each row, in usual errors of its variable, float64 (N,)."""
        return np.nanmax(errors / np.array(self.spread or 1.0), axis=1)

    def anomaly_scores(self, outputs: Tensor, target: Tensor) -> Tensor:
        """The score of each row, float64 (B,): 1 is the usual error of its worst variable."""
        spread = outputs.new_tensor(self.spread or [1.0], dtype=outputs.double().dtype)
        wrong = (outputs.double() - target.double())[:, -1].abs() / spread
        return wrong.nan_to_num(nan=0.0).amax(dim=1)

    def answers(self, outputs: Tensor) -> list[Answer]:
        """{"prediction": None, "expected": {variable: number}} per row: outputs alone do not say
        what the row was."""
        expected = self.to_units(outputs)[:, -1].tolist()
        return [
            {"prediction": None, "expected": dict(zip(self.variables, row, strict=True))}
            for row in expected
        ]

    def respond(self, module: nn.Module, batch: Batch) -> list[Answer]:
        """{"prediction": whether the row is an anomaly, "score", "variable", "expected"} per row,
        None for a row without enough rows before.

        With "time" and "series" where the table has them; "variable" is the one furthest off; the
        score of a flagged row is above 1."""
        finished = self.finish(module, batch.inputs, module(batch.inputs).float())
        beside = {name: tensor.cpu().numpy() for name, tensor in batch.inputs.items()}
        return self.answers_from_arrays(
            {name: tensor.cpu().numpy() for name, tensor in finished.items()}, beside
        )

    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """{"expected": float32 (N, V)}: the predicted rows, in deviations of the training rows."""
        return {"expected": outputs[:, -1]}

    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """The answers, as `respond` gives them; `beside` holds "actual", "judged", and the time and
        series of each row."""
        expected, actual = arrays["expected"], beside["actual"]
        spread = np.array(self.spread or [1.0])
        wrong = np.abs(expected.astype(np.float64) - actual.astype(np.float64)) / spread
        scores = np.nan_to_num(wrong, nan=0.0).max(axis=1) / (self.threshold or 1.0)
        worst = (
            np.nan_to_num(np.abs(expected - actual) / spread.astype(np.float32), nan=-1.0)
            .argmax(axis=1)
            .tolist()
        )
        units = (expected.astype(np.float64) * self.deviation + self.mean).tolist()
        answers: list[Answer] = [
            {"prediction": None, "expected": dict(zip(self.variables, row, strict=True))}
            for row in units
        ]
        judged = beside["judged"].tolist()
        for answer, score, variable, is_judged in zip(
            answers, scores.tolist(), worst, judged, strict=True
        ):
            answer["prediction"] = score > 1 if is_judged else None
            answer["score"] = score if is_judged else None
            answer["variable"] = self.variables[variable] if is_judged else None
            answer["expected"] = answer["expected"] if is_judged else None
        return self._placed(answers, beside)

    def _placed(self, answers: list[Answer], beside: Mapping[str, np.ndarray]) -> list[Answer]:
        if "moment" in beside:
            moments = beside["moment"]
            for answer, time in zip(
                answers,
                moments.tolist() if self.step.unit == "number" else iso_times(moments),
                strict=True,
            ):
                answer["time"] = time
        if "series_name" in beside:
            for answer, name_bytes in zip(answers, beside["series_name"], strict=True):
                answer["series"] = bytes(name_bytes[name_bytes > 0]).decode("utf-8")
        return answers

    # --- baseline and description

    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """{"repeat_last/mae", "seasonal_naive/mae", "mean/mae"}: the errors of forecasts that need
        no learning."""
        series, target = examples.inputs["series"], examples.target
        if not isinstance(series, Windows) or not isinstance(target, Windows):
            return {}
        past = series.values[:, : len(self.variables)]
        first = examples.first if isinstance(examples, WindowExamples) else np.arange(len(past))
        guesses = naive_forecasts.naive_forecasts(
            past, first, self.season, 1, np.zeros(len(self.variables), dtype=np.float32)
        )
        if self.reconstructs:  # the other forecasts would be the row itself, which the window has
            guesses = {"mean": guesses["mean"]}

        def truth(origins: np.ndarray) -> np.ndarray:
            return target.at(origins + 1)[:, -1:]

        errors = {
            name: naive_forecasts.forecast_errors(guess, truth, examples.splits[split] - 1)
            for name, guess in guesses.items()
        }
        return {f"{name}/mae": scores["mae"] for name, scores in errors.items() if scores}

    def describe(self) -> str:
        """'anomaly detection in flow and pressure: each row from the 72 before it'."""
        if self.reconstructs:
            return (
                f"anomaly detection in {comma_list(self.variables)}: each window of "
                f"{self.context:,} made again of its code"
            )
        return (
            f"anomaly detection in {comma_list(self.variables)}: each row from the "
            f"{self.context:,} before it"
        )


def build(config: Config, targets: Mapping[str, Column]) -> AnomalyDetection:
    """The task, mean and deviation of each variable taken from the training rows."""
    for column in targets.values():
        refuse_empty(column)
    return AnomalyDetection(config, list(targets), *fit_scales(targets))


def restore(config: Config, state: Mapping[str, Any]) -> AnomalyDetection:
    """The task whose `state()` this is."""
    task = AnomalyDetection(
        config, state["targets"], state["variables"], state["mean"], state["deviation"]
    )
    task.load(state)
    task.spread, task.threshold = list(state["spread"]), state["threshold"]
    return task


_YES = ("anomaly", "anomalous", "outlier", "true", "yes", "1")
_NO = ("normal", "ordinary", "inlier", "false", "no", "0", "")
_WORDS: dict[str, int] = {**dict.fromkeys(_YES, 1), **dict.fromkeys(_NO, 0)}


def _truths(column: Column, table: Table) -> np.ndarray:
    """1 where a label says anomaly, 0 where it says none. DataError for any other value."""
    if column.kind == "boolean":
        return column.values.astype(np.int64)
    if column.kind == "number" and column.values.ndim == 1:
        present = column.values[~column.is_missing()]
        if not np.isin(present, (0, 1)).all():
            raise DataError(
                f"the labels hold {present[~np.isin(present, (0, 1))][0]:g}, and only 1 (anomaly) "
                "and 0 (none) are labels.",
                where=f"{table.origin}, column {column.name}",
            )
        return np.nan_to_num(column.values).astype(np.int64)
    if column.kind == "category":
        strange = [text for text in column.categories if text.strip().casefold() not in _WORDS]
        if not strange:
            meaning = np.array(
                [*(_WORDS[text.strip().casefold()] for text in column.categories), 0],
                dtype=np.int64,
            )
            return meaning[column.values]
        raise DataError(
            f"{strange[0]!r} is neither a label of an anomaly nor of none.",
            where=f"{table.origin}, column {column.name}",
            hint=f"write labels as one of {', '.join(word for word in _WORDS if word)}",
        )
    raise DataError(
        f"the labels are {column.kind}; they must be true or false.",
        where=f"{table.origin}, column {column.name}",
    )
