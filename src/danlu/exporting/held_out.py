"""The rows on which an export is compared, and prepared inputs to trace the network with.

Where an example is no row (a window of a series or of a text), held-out examples are cut as
evaluation cuts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from danlu.artifact.own_data import source_like_training
from danlu.artifact.prediction import Artifact
from danlu.data import cache
from danlu.data.batches import Rows
from danlu.data.dataset import effective_data, make_examples, split_rows, task_table, used_rows
from danlu.data.examples import Field
from danlu.parts.tasks._base import ExportsGenerator, HidesInputs
from danlu.recipe import Train
from danlu.system.placement import EVALUATION, draw_seed, placement_for
from danlu.terms import Batch, Table

LEAST_ROWS = 256
_SPLITS = {"data": "all rows", "test": "the test split", "validation": "validation"}


@dataclass
class HeldOutRows:
    """Rows that training never saw.

    table    a table of exactly these rows; where examples are no rows, the table they are cut from
    ids      the numbers of the rows, int64 (N,); where examples are no rows, of the examples
    origin   where they are from, for messages: "the test split of iris.csv"
    fields   None where examples are rows; else the prepared inputs of all examples by name
    """

    table: Table
    ids: np.ndarray
    origin: str
    fields: Mapping[str, Field] | None = None

    def __len__(self) -> int:
        return len(self.ids)


def select_held_out(
    artifact: Artifact, data: str | None = None, least: int = LEAST_ROWS
) -> HeldOutRows:
    """At most `least` held-out rows (or examples), evenly spaced: of the recipe's own test split,
    read anew, and of validation too where the test split has fewer.

    `data` names a file to take them from instead. Raises DataError where the data cannot be read.
    """
    recipe, task = artifact.recipe, artifact.task
    if isinstance(task, ExportsGenerator):
        noise = task.example_inputs(artifact.module, least)
        return HeldOutRows(Table({}, "noise"), np.arange(least), "noise of numbers from 0", noise)
    if data is not None:
        table = artifact.table(data) if task.examples_are_rows else _with_targets(artifact, data)
        splits, origin = {"data": np.arange(len(table))}, data
    else:
        spec = effective_data(recipe)
        table, digest = cache.load_table(spec.source, spec.columns, recipe.data.cache)
        table = task_table(recipe, table)
        splits = split_rows(table, used_rows(table, recipe), recipe)
        changed = digest != artifact.provenance.get("data", {}).get("digest", digest)
        origin = f"{table.origin}{', which has changed since training' if changed else ''}"
    if task.examples_are_rows:
        ids, names = _evenly_spaced(splits, least)
        return HeldOutRows(table.take(ids), ids, f"{names} of {origin}")
    targets = {name: table.columns[name] for name in recipe.data.targets if name in table.columns}
    every_row = np.arange(len(table))
    examples = make_examples(task, artifact.preprocessor, table, targets, splits, every_row)
    ids, names = _evenly_spaced(examples.splits, least)
    return HeldOutRows(table, ids, f"{names} of {origin}", dict(examples.inputs))


def _with_targets(artifact: Artifact, data: str) -> Table:
    """A data file with all its columns, targets too, in the rows that the task works on."""
    recipe = artifact.recipe
    source = source_like_training(data, artifact)
    table, _ = cache.load_table(source, effective_data(recipe).columns, recipe.data.cache)
    return task_table(recipe, table)


def _evenly_spaced(splits: Mapping[str, np.ndarray], least: int) -> tuple[np.ndarray, str]:
    """(at most `least` ids, in words what they are of)."""
    present = [name for name in _SPLITS if len(splits.get(name, ()))]
    if not present:
        return splits["train"][:least], "training rows (there is no other split)"
    used = present[:1]
    if len(splits[present[0]]) < least and len(present) > 1:
        used = present
    ids = np.concatenate([splits[name] for name in used])
    if len(ids) > least:
        ids = ids[np.linspace(0, len(ids) - 1, least).astype(np.int64)]
    return np.sort(ids), " and ".join(_SPLITS[name] for name in used)


def raw_values(table: Table, names: Sequence[str]) -> dict[str, list[object]]:
    """Columns as the plain values that a user would pass: numbers, strings, None where missing;
    pixels and samples as arrays."""
    values: dict[str, list[object]] = {}
    for name in names:
        column = table.columns[name]
        if column.kind == "image":
            values[name] = list(column.values)
        elif column.kind in ("audio", "frames"):
            assert column.offsets is not None
            values[name] = [
                column.values[begin:end]
                for begin, end in zip(column.offsets[:-1], column.offsets[1:])
            ]
        else:
            values[name] = [column.python_value(row) for row in range(len(column))]
    return values


def as_rows(columns: Mapping[str, list[object]]) -> list[dict[str, object]]:
    """Columns of equal length as a list of rows.

    >>> as_rows({"a": [1, 2], "b": ["x", "y"]})
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]
    """
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def training_inputs(artifact: Artifact, count: int) -> dict[str, Tensor]:
    """At most `count` prepared training examples by input name, evenly spaced, for calibration."""
    recipe = artifact.recipe
    spec = effective_data(recipe)
    table, _ = cache.load_table(spec.source, spec.columns, recipe.data.cache)
    table = task_table(recipe, table)
    rows = split_rows(table, used_rows(table, recipe), recipe)["train"]
    ids = rows[np.unique(np.linspace(0, len(rows) - 1, count).astype(np.int64))]
    chosen = HeldOutRows(table.take(ids), np.arange(len(ids)), "training rows")
    return example_inputs(artifact, chosen, len(ids))


def example_inputs(artifact: Artifact, rows: HeldOutRows, count: int = 3) -> dict[str, Tensor]:
    """`count` prepared examples (at least 2 rows) by input name, as a batch holds them; images as
    bytes."""
    fields = rows.fields
    if fields is None:
        first = rows.table.take(np.arange(min(max(count, 2), len(rows))))
        ids = np.arange(len(first))
        examples = make_examples(
            artifact.task, artifact.preprocessor, first, {}, {"data": ids}, answering=True
        )
        fields = examples.inputs
    else:
        ids = rows.ids[:count]
    gather = Rows(fields, {}, None, placement_for(Train(device="cpu")))
    batch = gather.gather(torch.from_numpy(np.ascontiguousarray(ids)))
    inputs = as_the_model_sees(artifact, batch).inputs
    return {name: tensor.clone() for name, tensor in inputs.items()}


def as_the_model_sees(artifact: Artifact, batch: Batch) -> Batch:
    """The batch after the task has hidden what it hides from its model (masked words)."""
    task = artifact.task
    if isinstance(task, HidesInputs):
        return task.corrupt(batch, draw_seed(0, EVALUATION, 0))
    return batch
