"""Raw rows to answers with an artifact. What is served runs the very transforms that were fitted in training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from danlu.artifact import artifact as artifacts
from danlu.artifact.artifact import Contents
from danlu.artifact.own_data import source_like_training
from danlu.data import cache
from danlu.data.batches import Rows, rows_at_once
from danlu.data.dataset import make_examples, task_table
from danlu.errors import DataError
from danlu.layers.vision.test_time_augmentation import TestTimeAugmentation
from danlu.parts.tasks._base import (
    AnswersOutputs,
    CompletesAnswers,
    ExportsGenerator,
    Responds,
)
from danlu.reading import columns
from danlu.recipe import ColumnOptions, Train
from danlu.system.placement import Placement, placement_for
from danlu.terms import Batch, Table

_MADE_AT_ONCE = 64  # images that a generator makes together


class Artifact(Contents):
    """A trained model with everything that belongs to it: `predict` takes raw rows, `scores` holds
    what it was measured at."""

    def predict(self, rows: Any) -> list[dict[str, Any]]:
        """One answer a row: {"prediction": value} and, for classes, {"probabilities": {class: p}}.

        `rows` is a data file, a list of dicts, a dict of columns, a pandas DataFrame or a numpy
        array with the columns in the order of `inputs`. Columns the model does not use are ignored.
        Raises DataError naming the row and column that cannot be used."""
        return [answer for piece in self.stream(rows) for answer in piece]

    def stream(self, rows: Any) -> Iterator[list[dict[str, Any]]]:
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
                    answers = task.complete_answers(answers, table, batch.rows.tolist())
                yield answers
            return
        assert isinstance(task, AnswersOutputs)
        for outputs in self.outputs(table):
            yield task.answers(outputs)

    @property
    def inputs(self) -> dict[str, str]:
        """The columns that predict needs, and what each holds."""
        task = self.task
        schemas = (
            task.row_schema() if isinstance(task, ExportsGenerator) else self.preprocessor.row_schema
        )
        return {name: str(schema["kind"]) for name, schema in schemas.items()}

    def _generate(self, task: ExportsGenerator, rows: Any) -> Iterator[list[dict[str, Any]]]:
        """What a generator makes for rows that ask for something (a seed, a class), as an export of
        it would."""
        if isinstance(rows, str | Path):
            wanted = ", ".join(self.inputs)
            raise DataError(
                f"this model makes images, and reads no file of them; a row that asks for one holds {wanted}.",
                where=str(rows),
                hint="danlu generate makes images; from Python, predict takes such rows",
            )
        table = columns.read_columns(task.row_schema(), rows, "the rows given")
        module = self._module_on(placement_for(Train()))
        device = next(module.parameters()).device
        latent = task.generator_inputs(module)["noise"].shape[0]
        for ids in np.array_split(np.arange(len(table)), max(1, -(-len(table) // _MADE_AT_ONCE))):
            inputs = task.inputs_from_rows(table.take(ids), latent)
            with torch.inference_mode():
                tensors = {
                    name: torch.from_numpy(array).to(device) for name, array in inputs.items()
                }
                finished = task.finish(
                    module, tensors, task.generate(module, tensors).float()
                )
            yield task.answers_from_arrays(
                {name: array.cpu().numpy() for name, array in finished.items()}, inputs
            )

    def table(self, rows: Any) -> Table:
        """Raw rows as a Table with the columns of training, in the rows that the task thinks in."""
        schema = self.preprocessor.row_schema
        if isinstance(rows, str | Path):
            wanted = {
                name: ColumnOptions(
                    kind=spec["kind"],
                    size=spec["shape"][:2] if spec["kind"] == "image" else None,
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
        """float32 on the CPU, what the model returns (see danlu.terms.OutputSpec), piece by piece in
        row order."""
        views = self.views()
        for module, batch in self._batches(table, placement or placement_for(Train())):
            yield views(module, batch.inputs).float().cpu()

    def finished(
        self, table: Table, placement: Placement | None = None
    ) -> Iterator[dict[str, torch.Tensor]]:
        """What the task's `finish` makes of the outputs (see danlu.tasks), on the CPU, piece by
        piece in row order."""
        views = self.views()
        for module, batch in self._batches(table, placement or placement_for(Train())):
            outputs = views(module, batch.inputs).float()
            yield {
                name: tensor.cpu()
                for name, tensor in self.task.finish(module, batch.inputs, outputs).items()
            }

    def views(self) -> TestTimeAugmentation:
        """The ways a row's image is seen."""
        return TestTimeAugmentation(
            self.recipe.data.test_time_augmentation,
            self.described or self.preprocessor.inputs,
            self.task.output,
        )

    def _module_on(self, placement: Placement) -> torch.nn.Module:
        """The module on the device, ready to answer. Only moved where it is not: to look at every
        layer takes longer than a row."""
        first = next(self.module.parameters(), None)
        if self.module.training or first is None or first.device != placement.device:
            self.module.to(placement.device).eval()
        return self.module

    def _batches(
        self, table: Table, placement: Placement
    ) -> Iterator[tuple[torch.nn.Module, Batch]]:
        """(the module, rows to be answered) piece by piece, without gradients."""
        module = self._module_on(placement)
        examples = make_examples(
            self.task, self.preprocessor, table, {}, {"data": np.arange(len(table))}, answering=True
        )
        whole = Rows(examples.inputs, self.preprocessor.pixels, None, placement)
        with torch.inference_mode():
            for piece in torch.from_numpy(examples.splits["data"]).split(
                rows_at_once(whole, self.task.output)
            ):
                yield module, whole.gather(placement.put(piece))


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
