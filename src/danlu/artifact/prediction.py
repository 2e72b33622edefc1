"""Predictions for raw rows. The transforms are those that were fitted in training, here and in the
server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch

from danlu.artifact import artifact as artifacts
from danlu.artifact.artifact import Contents
from danlu.artifact.own_data import source_like_training
from danlu.data import cache
from danlu.data.batches import Rows, row_pieces, rows_at_once
from danlu.data.dataset import make_examples, task_table
from danlu.errors import DataError
from danlu.layers.tensors import as_ints, from_array
from danlu.layers.vision.test_time_augmentation import AveragedViews
from danlu.parts.tasks._base import (
    Answer,
    AnswersOutputs,
    CompletesAnswers,
    Exportable,
    ExportsGenerator,
    Responds,
)
from danlu.reading import columns
from danlu.recipe import ColumnOptions, Train
from danlu.system.placement import Placement, placement_for
from danlu.terms import Batch, Table

_AT_ONCE = 64  # images generated together


class DataFrame(Protocol):
    """A pandas DataFrame, which danlu does not import."""

    @property
    def columns(self) -> object: ...
    def __getitem__(self, key: Any, /) -> Any: ...  # as pandas has it


# A data file, one dict per row, a dict of columns, a DataFrame, or an array whose columns are in
# the order of `Artifact.inputs`.
RawRows: TypeAlias = (
    "str | Path | Sequence[Mapping[str, object]] | Mapping[str, object] | DataFrame | np.ndarray"
)


class Artifact(Contents):
    """A trained model with its preprocessing: `predict` takes raw rows, `scores` holds its scores
    by split."""

    def predict(self, rows: RawRows) -> list[Answer]:
        """One answer per row: {"prediction": value} and, for classes, {"probabilities": {class:
        p}}.

        Columns that the model does not use are ignored. Raises DataError naming the row and column
        that cannot be used."""
        return [answer for piece in self.stream(rows) for answer in piece]

    def stream(self, rows: RawRows) -> Iterator[list[Answer]]:
        """The answers of `predict`, piece by piece."""
        task = self.task
        if isinstance(task, ExportsGenerator):
            yield from self._generate(task, rows)
            return
        table = self.table(rows)
        if isinstance(task, Responds):
            for module, batch in self._batches(table, placement_for(Train())):
                answers = task.respond(module, batch)
                if isinstance(task, CompletesAnswers):
                    answers = task.complete_answers(answers, table, as_ints(batch.rows))
                yield answers
            return
        assert isinstance(task, AnswersOutputs)
        for outputs in self.outputs(table):
            yield task.answers(outputs)

    @property
    def inputs(self) -> dict[str, str]:
        """The columns that `predict` needs, and the kind of each."""
        task = self.task
        schemas = (
            task.row_schema()
            if isinstance(task, ExportsGenerator)
            else self.preprocessor.row_schema
        )
        return {name: str(schema["kind"]) for name, schema in schemas.items()}

    def _generate(self, task: ExportsGenerator, rows: RawRows) -> Iterator[list[Answer]]:
        """The answers of a generator to rows that ask for images (a seed, a class), as an export of
        it gives them."""
        if isinstance(rows, str | Path):
            wanted = ", ".join(self.inputs)
            raise DataError(
                f"this model generates images and reads no data file; a row that asks for one has "
                f"{wanted}.",
                where=str(rows),
                hint="danlu generate makes images; in Python, predict takes such rows",
            )
        table = columns.read_columns(task.row_schema(), rows, "the rows given")
        module = self._module_on(placement_for(Train()))
        device = next(module.parameters()).device
        latent = task.generator_inputs(module)["noise"].shape[0]
        for ids in np.array_split(np.arange(len(table)), max(1, -(-len(table) // _AT_ONCE))):
            inputs = task.inputs_from_rows(table.take(ids), latent)
            with torch.inference_mode():
                tensors = {name: from_array(array).to(device) for name, array in inputs.items()}
                finished = task.finish(module, tensors, task.generate(module, tensors).float())
            yield task.answers_from_arrays(
                {name: array.cpu().numpy() for name, array in finished.items()}, inputs
            )

    def table(self, rows: RawRows) -> Table:
        """Raw rows as a Table with the columns of training."""
        schema = self.preprocessor.row_schema
        if isinstance(rows, str | Path):
            wanted = {
                name: ColumnOptions(
                    kind=spec["kind"],
                    size=spec["shape"][:2] if spec["kind"] == "image" and "shape" in spec else None,
                )
                for name, spec in schema.items()
            }
            named = {
                name: options
                for name, options in self.recipe.data.columns.items()
                if name in wanted and options.on_error == "missing"
            }
            wanted |= {
                name: wanted[name].model_copy(update={"on_error": "missing"}) for name in named
            }
            table, _ = cache.load_table(
                source_like_training(str(rows), self), wanted, self.recipe.data.cache
            )
            return task_table(self.recipe, columns.read_columns(schema, table, table.origin))
        return task_table(self.recipe, columns.read_columns(schema, rows, "the rows given"))

    def outputs(self, table: Table, placement: Placement | None = None) -> Iterator[torch.Tensor]:
        """The model's outputs, float32 on the CPU (danlu.terms.OutputSpec), piece by piece in row
        order."""
        views = self.views()
        for module, batch in self._batches(table, placement or placement_for(Train())):
            yield views(module, batch.inputs).float().cpu()

    def finished(
        self, table: Table, placement: Placement | None = None
    ) -> Iterator[dict[str, torch.Tensor]]:
        """The named tensors that an exportable task makes of the outputs, on the CPU, piece by
        piece in row order."""
        task = self.task
        assert isinstance(task, Exportable)
        views = self.views()
        for module, batch in self._batches(table, placement or placement_for(Train())):
            outputs = views(module, batch.inputs).float()
            yield {
                name: tensor.cpu()
                for name, tensor in task.finish(module, batch.inputs, outputs).items()
            }

    def views(self) -> AveragedViews:
        """The test-time augmentation of the recipe."""
        return AveragedViews(
            self.recipe.data.test_time_augmentation,
            self.described or self.preprocessor.inputs,
            self.task.output,
        )

    def _module_on(self, placement: Placement) -> torch.nn.Module:
        """The module on the device, in evaluation mode. Moved only where it has to be: looking at
        every layer takes longer than predicting a row."""
        first = next(self.module.parameters(), None)
        if self.module.training or first is None or first.device != placement.device:
            self.module.to(placement.device).eval()
        return self.module

    def _batches(
        self, table: Table, placement: Placement
    ) -> Iterator[tuple[torch.nn.Module, Batch]]:
        """(the module, rows to predict) piece by piece, without gradients."""
        module = self._module_on(placement)
        examples = make_examples(
            self.task, self.preprocessor, table, {}, {"data": np.arange(len(table))}, answering=True
        )
        loader = Rows(examples.inputs, self.preprocessor.pixels, None, placement)
        with torch.inference_mode():
            for piece in row_pieces(
                examples.splits["data"], rows_at_once(loader, self.task.output)
            ):
                yield module, loader.gather(placement.put(piece))


def load(path: str | Path) -> Artifact:
    """The artifact at `path`: its folder, or its run's folder. Raises ArtifactError naming what is
    damaged or missing.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> artifact = danlu.train(recipe, "runs/iris")
    >>> danlu.load("runs/iris").predict([dict.fromkeys(artifact.inputs, 1.0)])[0]["prediction"]
    'setosa'
    """
    contents = artifacts.read(path)
    return Artifact(**{field.name: getattr(contents, field.name) for field in fields(contents)})
