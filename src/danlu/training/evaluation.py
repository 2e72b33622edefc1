"""Scores over a split, every row counted exactly once. Nothing else in danlu computes a score."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from torch import Tensor, nn

from danlu import registry
from danlu.artifact import artifact as artifacts
from danlu.artifact.artifact import Contents
from danlu.artifact.own_data import source_like_training
from danlu.data import cache
from danlu.data.batches import FORWARD_BYTES, Rows, row_pieces, rows_at_once
from danlu.data.dataset import (
    effective_data,
    make_examples,
    split_rows,
    targets_are_inputs,
    task_table,
    used_rows,
)
from danlu.errors import DataError, nearest
from danlu.layers.vision.test_time_augmentation import AveragedViews
from danlu.parts.losses._base import Loss
from danlu.parts.metrics._base import ComparesFeatures, Metric, TextMetric
from danlu.parts.metrics._image_features import ImageFeatures
from danlu.parts.tasks._base import (
    AnswersOutputs,
    DrawsSamples,
    HasReferences,
    HidesInputs,
    Responds,
    Task,
)
from danlu.recipe import Part, Train
from danlu.system.placement import EVALUATION, Placement, draw_seed, placement_for
from danlu.terms import Batch, Scores, Table

_MOST_TEXTS = 64  # rows generated together


class Evaluator:
    """Scores a module on rows. `better` and `metric` name the score that decides what is best."""

    def __init__(
        self,
        rows: Rows,
        task: Task,
        loss: Part,
        metrics: Sequence[Part],
        placement: Placement,
        seed: int = 0,
        views: AveragedViews | None = None,
    ) -> None:
        self.rows = rows
        self.task = task
        # an adversarial loss of one side's outputs is no score
        self.loss = (
            registry.build_loss(loss, task) if registry.loss_facts(loss.name).scored else None
        )
        self.metrics: list[tuple[str, Metric]] = []
        self.readers: list[tuple[str, TextMetric]] = []
        self.seed = draw_seed(seed, EVALUATION, 0)
        self.views = views
        self.placement = placement
        self.autocast = placement.autocast()
        for part in metrics:
            built = registry.build_metric(part, task)
            if isinstance(built, ComparesFeatures):
                _load_observer(built.observer)
            taken = {name for name, _ in [*self.metrics, *self.readers]}
            name = built.label or part.name
            name = name if name not in taken else f"{name}_{len(taken)}"
            if isinstance(built, TextMetric):
                self.readers.append((name, built))
            else:
                self.metrics.append((name, built))
        self.metric: str
        self.better: Literal["higher", "lower"]
        self.metric, self.better = self._score_order(metrics)

    def _score_order(self, metrics: Sequence[Part]) -> tuple[str, Literal["higher", "lower"]]:
        """(the score that decides what is best, which way it improves): the task's choice where the
        recipe measures it, else the loss."""
        name, better = self.task.score_order
        texts = {part.name for part in metrics if registry.metric_facts(part.name).reads_text}
        measured = (
            {part.name for part in metrics if part.name not in texts}
            | {label for label, _ in self.metrics}
            | {"loss"}
        )
        return (name, better) if name in measured else ("loss", "lower")

    def score(
        self,
        module: nn.Module,
        split: str,
        which: np.ndarray,
        forward: Callable[..., Tensor] | None = None,
        *,
        final: bool = True,
    ) -> Scores:
        """The Scores of `module` over examples `which` (int64), in evaluation mode; the module's
        mode is restored.

        `final` scores are those of the model as it is served, in float32. During training, its
        number format is used, and metrics that read generated text are left out: they take as long
        as an epoch. Raises DataError where there is no example."""
        if len(which) == 0:
            raise DataError(
                f"the {split} split has no row.", hint=f"give data.split a share for {split}"
            )
        was_training = module.training
        module.eval()
        self.autocast = None if final else self.placement.autocast()
        tally = _Tally(self.loss, self.metrics)
        order = self._order(which)
        try:
            with torch.inference_mode():
                for piece in row_pieces(order, rows_at_once(self.rows, self.task.output)):
                    batch = self._hidden(self.rows.gather(piece))
                    tally.add(
                        self._outputs(module if forward is None else forward, batch.inputs), batch
                    )
                read = self._read(module, order) if final and self.readers else {}
                samples = (
                    self.task.samples(module, self.seed)
                    if isinstance(self.task, DrawsSamples)
                    else ()
                )
        finally:
            module.train(was_training)
        values, tables = tally.scores(read)
        return Scores(split, len(which), values, tables, samples)

    def score_many(
        self, forward: Callable[..., Tensor], losses: Sequence[Part], split: str, which: np.ndarray
    ) -> list[Scores]:
        """The Scores of K models over examples `which`, during training; `forward(inputs)` returns
        (K, B, ...).

        `losses` are those of the models' own recipes, which may smooth labels differently.
        """
        if len(which) == 0:
            raise DataError(
                f"the {split} split has no row.", hint=f"give data.split a share for {split}"
            )
        self.autocast = self.placement.autocast()
        built = (
            {}
            if self.loss is None
            else {repr(part): registry.build_loss(part, self.task) for part in losses}
        )
        tallies = [_Tally(built.get(repr(part)), self.metrics) for part in losses]
        order = self._order(which)
        rows = rows_at_once(self.rows, self.task.output)
        at_once = max(1, rows // max(len(losses) // 4, 1))
        alike = (
            self.task.output.per == "row"
            and len(losses) * rows * self.task.output.size * 4 <= FORWARD_BYTES
        )
        with torch.no_grad():
            # forward passes in small pieces, scores in large ones where outputs have one shape
            for piece in row_pieces(order, rows if alike else at_once):
                batch = self._hidden(self.rows.gather(piece))
                parts = row_pieces(piece, at_once)
                shown = (
                    [batch]
                    if len(parts) == 1
                    else [self._hidden(self.rows.gather(small)) for small in parts]
                )
                read = [self._outputs(forward, small.inputs) for small in shown]
                for tally, outputs in zip(
                    tallies, (read[0] if len(read) == 1 else torch.cat(read, dim=1)).unbind(0)
                ):
                    tally.add(outputs, batch)
        return [Scores(split, len(which), *tally.scores({})) for tally in tallies]

    def pairs(self, module: nn.Module, which: np.ndarray) -> Iterator[tuple[Tensor, Batch]]:
        """(outputs, batch) of examples `which`, piece by piece, in evaluation mode; the module's
        mode is restored."""
        was_training = module.training
        module.eval()
        self.autocast = None  # as the model is served
        order = self._order(which)
        try:
            with torch.inference_mode():
                for piece in row_pieces(order, rows_at_once(self.rows, self.task.output)):
                    batch = self._hidden(self.rows.gather(piece))
                    yield self._outputs(module, batch.inputs), batch
        finally:
            module.train(was_training)

    def _order(self, which: np.ndarray) -> Tensor:
        """The row numbers on the device."""
        (rows,) = row_pieces(which, len(which))
        return self.rows.placement.put(rows)

    def _hidden(self, batch: Batch) -> Batch:
        """The batch as the task shows it to a model."""
        return self.task.corrupt(batch, self.seed) if isinstance(self.task, HidesInputs) else batch

    def _read(self, module: nn.Module, order: Tensor) -> dict[str, Any]:
        """The scores of metrics that compare texts."""
        predictions: list[str] = []
        references: list[str] = []
        assert isinstance(self.task, HasReferences)  # a TextMetric refuses any other task
        for piece in row_pieces(order, min(rows_at_once(self.rows, self.task.output), _MOST_TEXTS)):
            batch = self.rows.gather(piece)
            if isinstance(self.task, Responds):
                answers = self.task.respond(module, batch)
            else:
                assert isinstance(self.task, AnswersOutputs)
                answers = self.task.answers(self._outputs(module, batch.inputs).cpu())
            predictions += [str(answer["prediction"]) for answer in answers]
            references += self.task.references(batch)
        scores: dict[str, Any] = {}
        for name, metric in self.readers:
            score = metric.compare(predictions, references)
            scores |= score if isinstance(score, dict) else {name: score}
        return scores

    def _outputs(self, forward: Callable[..., Tensor], inputs: dict[str, Tensor]) -> Tensor:
        answer = functools.partial(self._one_view, forward)
        return answer(inputs) if self.views is None else self.views(answer, inputs)

    def _one_view(self, forward: Callable[..., Tensor], inputs: dict[str, Tensor]) -> Tensor:
        if self.autocast is None:
            return forward(inputs)
        with self.autocast:
            return forward(inputs).float()


class _Tally:
    """Loss and metrics of one model, added up batch by batch."""

    def __init__(self, loss: Loss | None, metrics: Sequence[tuple[str, Metric]]) -> None:
        self.loss, self.metrics = loss, metrics
        self.loss_sum: Any = 0.0
        self.loss_count: Any = 0.0
        self.totals: list[dict[str, list[Tensor]]] = [{} for _ in metrics]

    def add(self, outputs: Tensor, batch: Batch) -> None:
        if self.loss is not None:
            total, count = self.loss(outputs, batch)
            self.loss_sum, self.loss_count = self.loss_sum + total.double(), self.loss_count + count
        for (_, metric), batches in zip(self.metrics, self.totals):
            for name, value in metric.count(outputs, batch).items():
                batches.setdefault(name, []).append(value)

    def scores(self, read: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(values, tables); `read` are those of metrics that compare texts."""
        values: dict[str, Any] = {}
        tables: dict[str, Any] = {}
        if self.loss is not None:
            values["loss"] = float((self.loss_sum / self.loss_count).sum())
        for label, value in read.items():
            (values if isinstance(value, int | float) or value is None else tables)[label] = value
        for (name, metric), batches in zip(self.metrics, self.totals):
            merged = {
                key: torch.cat(pieces) if metric.joined else torch.stack(pieces).sum(0)
                for key, pieces in batches.items()
            }
            score = metric.score(merged)
            for label, value in score.items() if isinstance(score, dict) else [(name, score)]:
                (tables if isinstance(value, list | dict) else values)[label] = value
        return values, tables


def _load_observer(observer: ImageFeatures) -> None:
    """Hand a metric that looks through another run's model that model."""
    if observer.classifier is not None:
        classifier = artifacts.read(observer.classifier)
        observer.use_classifier(
            classifier.module,
            classifier.described or classifier.preprocessor.inputs,
            classifier.task.output.names,
        )


def evaluate(artifact: Contents, data: str | None = None, split: str = "test") -> Scores:
    """The Scores of an artifact on its own split, or on every row of a data file with the same
    columns.

    Raises DataError where the file lacks a column or its own data is no longer the same.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> artifact = danlu.train(recipe, "runs/iris")
    >>> danlu.evaluate(artifact).rows
    15
    """
    recipe, placement = artifact.recipe, placement_for(Train())
    reading = effective_data(recipe)  # what was read in training
    if data is None:
        table, digest = cache.load_table(reading.source, reading.columns, recipe.data.cache)
        if digest != artifact.provenance["data"]["digest"]:
            raise DataError(
                f"{table.origin} has changed since training, so its {split} split is no longer "
                "the one that was held out.",
                hint="name a data file to score every row of it",
            )
        table = task_table(recipe, table)
        alive = used_rows(table, recipe)
        splits = split_rows(table, alive, recipe)
    else:
        table, _ = cache.load_table(
            source_like_training(data, artifact), reading.columns, recipe.data.cache
        )
        missing = [name for name in recipe.data.targets if name not in table.columns]
        if missing:
            near = nearest(missing[0], table.columns)
            raise DataError(
                f"{table.origin} has no column {missing[0]!r}, the target, so there is nothing to "
                "compare answers with.",
                hint=f"did you mean {near[0]}?"
                if near
                else "danlu predict answers without a target",
            )
        table = task_table(recipe, table)
        which = np.arange(len(table))
        lost = _missing(table, () if targets_are_inputs(recipe) else recipe.data.targets)
        if lost.any():
            if recipe.data.missing_target == "error":
                first = table.where(int(np.flatnonzero(lost)[0]))
                raise DataError(
                    f"the target is missing in {int(lost.sum()):,} rows (first: {first}).",
                    hint="leave these rows out",
                )
            which = np.flatnonzero(~lost)
        alive, split = which, "data"
        splits = {split: which}
    targets = {name: table.columns[name] for name in recipe.data.targets}
    examples = make_examples(artifact.task, artifact.preprocessor, table, targets, splits, alive)
    rows = Rows(examples.inputs, artifact.preprocessor.pixels, examples.target, placement)
    module = artifact.module.to(placement.device)
    views = AveragedViews(
        recipe.data.test_time_augmentation, examples.input_specs, artifact.task.output
    )
    evaluator = Evaluator(
        rows, artifact.task, recipe.loss, recipe.metrics, placement, recipe.train.seed, views
    )
    return evaluator.score(module, split, examples.splits[split])


def _missing(table: Table, targets: Sequence[str]) -> np.ndarray:
    lost = np.zeros(len(table), dtype=bool)
    for name in targets:
        lost |= table.columns[name].is_missing()
    return lost


def as_plain_scores(scores: Scores) -> dict[str, object]:
    """Scores and tables by name, in one dict."""
    return {**scores.values, **scores.tables}


def deciding_score(scores: Mapping[str, object], metric: str) -> float | None:
    """The score `metric`; None where it is undefined on this split.

    >>> deciding_score({"accuracy": 0.5}, "accuracy")
    0.5
    """
    value = scores.get(metric)
    return float(value) if isinstance(value, int | float) else None


@overload
def without_nonfinite(value: Mapping[str, object]) -> dict[str, object]: ...
@overload
def without_nonfinite(value: float) -> float | None: ...
def without_nonfinite(value: object) -> object:
    """Scores with None in place of every NaN and infinity, which JSON cannot hold and no score can
    be compared with.

    >>> without_nonfinite({"loss": float("nan"), "accuracy": 0.5})
    {'loss': None, 'accuracy': 0.5}
    """
    return _finite(value)


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        entries = cast("Mapping[str, object]", value)
        return {name: _finite(entry) for name, entry in entries.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in cast("Sequence[object]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
