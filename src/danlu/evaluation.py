"""Scores over a split: every row counted exactly once. Nothing else in danlu computes a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from danlu import cache, shelf
from danlu.artifact import Contents
from danlu.batches import Rows
from danlu.dataset import alive_rows, encode_target, split_rows
from danlu.errors import DataError, nearest
from danlu.placement import Placement, place
from danlu.recipe import Part, Train
from danlu.terms import Scores

_BYTES = 64 << 20  # of inputs in one forward pass
_MOST_ROWS = 1024


def rows_at_once(rows: Rows) -> int:
    """Rows of one forward pass without gradients: many, while their inputs stay within 64 MiB. Depends on shapes alone."""
    each = sum(tensor.shape[1:].numel() for tensor in rows.tensors.values()) * 4
    return max(1, min(_MOST_ROWS, _BYTES // max(each, 1)))


class Evaluator:
    """Scores a module on rows. `better` and `metric` name the score that decides what is best."""

    def __init__(self, rows: Rows, task: Any, loss: Part, metrics: Sequence[Part], placement: Placement) -> None:
        self.rows = rows
        self.task = task
        self.loss = shelf.build_loss(loss, task)
        self.metrics: list[tuple[str, Any]] = []
        self.placement = placement
        self.autocast = placement.autocast()
        for part in metrics:
            built = shelf.build_metric(part, task)
            taken = {name for name, _ in self.metrics}
            name = getattr(built, "label", part.name)
            self.metrics.append((name if name not in taken else f"{name}_{len(taken)}", built))
        self.metric: str
        self.better: Literal["higher", "lower"]
        self.metric, self.better = self._order(metrics)

    def _order(self, metrics: Sequence[Part]) -> tuple[str, Literal["higher", "lower"]]:
        """The task's own choice where the recipe measures it, else the loss, which is always there."""
        name, better = self.task.score_order
        measured = {part.name for part in metrics} | {label for label, _ in self.metrics} | {"loss"}
        return (name, better) if name in measured else ("loss", "lower")

    def score(self, module: nn.Module, split: str, which: np.ndarray, forward: Callable[..., Tensor] | None = None) -> Scores:
        """The Scores of `module` over rows `which` (int64), in evaluation mode; the module's mode is restored."""
        if len(which) == 0:
            raise DataError(f"the {split} split has no row.", hint=f"give data.split a share for {split}")
        was_training = module.training
        module.eval()
        loss_sum: Any = 0.0
        loss_count: Any = 0.0
        totals: list[dict[str, list[Tensor]]] = [{} for _ in self.metrics]
        order = self.rows.placement.put(torch.from_numpy(np.ascontiguousarray(which)))
        try:
            with torch.inference_mode():
                for piece in order.split(rows_at_once(self.rows)):
                    batch = self.rows.gather(piece)
                    outputs = self._outputs(module if forward is None else forward, batch.inputs)
                    total, count = self.loss(outputs, batch)
                    loss_sum, loss_count = loss_sum + total.double(), loss_count + count
                    for (_, metric), held in zip(self.metrics, totals):
                        for name, value in metric.count(outputs, batch).items():
                            held.setdefault(name, []).append(value)
        finally:
            module.train(was_training)
        mean = loss_sum / loss_count
        values: dict[str, Any] = {"loss": float(mean.sum())}
        tables: dict[str, Any] = {}
        for (name, metric), held in zip(self.metrics, totals):
            joined = getattr(metric, "JOINED", False)
            merged = {key: torch.cat(pieces) if joined else torch.stack(pieces).sum(0) for key, pieces in held.items()}
            score = metric.score(merged)
            for label, value in score.items() if isinstance(score, dict) else [(name, score)]:
                (tables if isinstance(value, list | dict) else values)[label] = value
        return Scores(split, len(which), values, tables)

    def _outputs(self, forward: Callable[..., Tensor], inputs: dict[str, Tensor]) -> Tensor:
        if self.autocast is None:
            return forward(inputs)
        with self.autocast:
            return forward(inputs).float()


def evaluate(artifact: Contents, data: str | None = None, split: str = "test") -> Scores:
    """The Scores of an artifact on its own split, or on every row of a data file with the same columns.

    Raises DataError where the file lacks a column or its own data is no longer the same.
    """
    recipe, placement = artifact.recipe, place(Train())
    if data is None:
        table, digest = cache.load(recipe.data.source, recipe.data.columns, recipe.data.cache)
        if digest != artifact.provenance["data"]["digest"]:
            raise DataError(
                f"{table.origin} has changed since training, so its {split} split is no longer the one that was held out.",
                hint="name a data file to score every row of it",
            )
        alive = alive_rows(table, recipe.data)
        which = split_rows(table, alive, recipe)[split]
    else:
        table, _ = cache.load(source_like_training(data, artifact), recipe.data.columns, recipe.data.cache)
        missing = [name for name in recipe.data.targets if name not in table.columns]
        if missing:
            near = nearest(missing[0], table.columns)
            raise DataError(
                f"{table.origin} has no column {missing[0]!r}, the target, so there is nothing to compare answers with.",
                hint=f"did you mean {near[0]}?" if near else "danlu predict answers without a target",
            )
        which = np.arange(len(table))
        lost = _missing(table, recipe.data.targets)
        if lost.any():
            if recipe.data.missing_target == "error":
                raise DataError(f"the target is missing in {int(lost.sum()):,} rows (first: {table.where(int(np.flatnonzero(lost)[0]))}).",
                                hint="leave these rows out")  # fmt: skip
            which = np.flatnonzero(~lost)
        alive, split = which, "data"
    arrays = artifact.preprocessor.apply(table)
    target = encode_target(artifact.task, {name: table.columns[name] for name in recipe.data.targets}, alive)
    rows = Rows(arrays, artifact.preprocessor.pixels, target, placement)
    module = artifact.module.to(placement.device)
    return Evaluator(rows, artifact.task, recipe.loss, recipe.metrics, placement).score(module, split, which)


def _missing(table: Any, targets: Sequence[str]) -> np.ndarray:
    lost = np.zeros(len(table), dtype=bool)
    for name in targets:
        lost |= table.columns[name].is_missing()
    return lost


def source_like_training(data: str, artifact: Contents) -> Part:
    """The source that reads `data` as training's was read: the same options, and the decimal mark that was found then."""
    source = source_of(data, artifact.recipe.data.source)
    mark = artifact.provenance["data"].get("decimal", "auto")
    if getattr(source.options, "decimal", None) == "auto" and mark != "auto":
        return Part(source.name, source.options.model_copy(update={"decimal": mark}))
    return source


def source_of(data: str, like: Part) -> Part:
    """The source that reads `data`: by its suffix; with the options of the recipe's own source where that is of the same kind.

    Raises DataError for a path that no source claims.
    """
    name = shelf.source_for(data)
    if name is None and like.name in shelf.names("sources") and "path" in type(like.options).model_fields:
        name = like.name
    if name is None:
        raise DataError("no source is known for this file.", where=data, hint=f"sources read {', '.join(_suffixes())}")
    config = shelf.config("sources", name)
    if name == like.name:
        changed = {"path": data, **{key: None for key in ("test", "validation") if key in config.model_fields}}
        return Part(name, like.options.model_copy(update=changed))
    return Part(name, config.model_validate({"path": data}))


def _suffixes() -> list[str]:
    return sorted({suffix for name in shelf.names("sources") for suffix in getattr(shelf.take("sources", name), "SUFFIXES", ())})


def flat(scores: Scores) -> dict[str, Any]:
    """Scores as plain data: numbers, then tables."""
    return {**scores.values, **scores.tables}


def best_of(scores: Mapping[str, Any], metric: str) -> float | None:
    """The deciding score, None where it has no meaning on this split."""
    value = scores.get(metric)
    return float(value) if isinstance(value, int | float) else None


def finite(value: Any) -> Any:
    """Scores with None in place of every number that is NaN or infinite, which JSON cannot hold and no score can be compared with."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
