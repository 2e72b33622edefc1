"""What a worker opens: an artifact (by torch) or an export (without importing torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from danlu.parts.tasks._base import ContinuesText, ReadsPreprocessing, Task
from danlu.serving.protocol.messages import (
    Answer,
    ModelDescription,
    ModelOptions,
    OpenModel,
    RowField,
)
from danlu.serving.protocol.model_folder import ModelFolder, locate
from danlu.system import machine

if TYPE_CHECKING:
    from danlu.artifact.prediction import Artifact
    from danlu.serving.worker.handler import Handler


class Predictor(Protocol):
    """An artifact or an export: what answers columns (see danlu.artifact.prediction)."""

    def predict(self, rows: Mapping[str, Any], /) -> list[Answer]: ...


@dataclass
class OpenedModel:
    """A model of rows that is open.

    fields        the fields of a row (danlu.artifact.row_schema)
    card          task, classes, scores, provenance: JSON values
    independent   whether each row has one answer that depends on that row alone; only then are the
                  rows of several requests answered together
    """

    name: str
    fields: list[RowField]
    card: dict[str, object]
    independent: bool
    predictor: Predictor

    def answer(self, columns: Mapping[str, Any]) -> list[Answer]:
        """The answers of columns as danlu.serving.worker.decode_values makes them."""
        return self.predictor.predict(columns)


def open_model(path: str | Path, name: str | None = None) -> OpenedModel:
    """The model of rows at `path`, ready to answer. Raises ArtifactError for one that is
    damaged."""
    folder = locate(path)
    if folder.form == "light":
        return _open_export(folder, name or folder.name)
    return _of_artifact(_load(folder), name or folder.name)


def open_handler(request: OpenModel) -> Handler:
    """The handler of the model that an "open" message names. Raises DanluError where it cannot be
    opened."""
    folder, name, options = locate(request["path"]), request["name"], request["options"]
    machine.use_cores(request["threads"])
    if folder.form == "light":
        return _prediction_handler(_open_export(folder, name), options)
    _use_threads()
    artifact = _load(folder)
    if _writes_text(artifact):
        return _text_handler(artifact, name, options)
    return _prediction_handler(_of_artifact(artifact, name), options)


def _prediction_handler(model: OpenedModel, options: ModelOptions) -> Handler:
    from danlu.serving.worker.prediction_handler import MAX_ROWS, PredictionHandler

    return PredictionHandler(model, options.get("most_rows", MAX_ROWS), options.get("batch", 0))


def _text_handler(artifact: Artifact, name: str, options: ModelOptions) -> Handler:
    from danlu.serving.text.engine import Engine, EngineTexts
    from danlu.serving.worker.text_handler import TextHandler

    card = card_of(artifact, name)
    description: ModelDescription = {"name": name, "kind": "text", "fields": [], "card": card}
    return TextHandler(EngineTexts(Engine(artifact, slots=options.get("slots"))), description)


def _use_threads() -> None:
    import torch

    torch.set_num_threads(machine.cores())


def _load(folder: ModelFolder) -> Artifact:
    from danlu.artifact.prediction import load

    return load(folder.folder)


def _of_artifact(artifact: Artifact, name: str) -> OpenedModel:
    from danlu.artifact.row_schema import row_fields

    independent = artifact.task.rows_are_independent
    return OpenedModel(name, row_fields(artifact), card_of(artifact, name), independent, artifact)


def card_of(artifact: Artifact, name: str) -> dict[str, object]:
    """What an artifact is, as JSON values."""
    return {
        "name": name,
        "form": "artifact",
        "task": artifact.recipe.task.name,
        "model": artifact.recipe.model.name,
        **_task_facts(artifact.task),
        "scores": artifact.scores,
        "provenance": artifact.provenance,
        "changes": list(artifact.changes),
    }


def _task_facts(task: Task) -> dict[str, object]:
    """What a task predicts: in words, its classes, its targets."""
    return {
        "description": task.describe(),
        "classes": [_python_value(label) for label in task.classes],
        "targets": list(task.target_names),
    }


def _python_value(value: object) -> object:
    """A value of numpy as one of Python."""
    import numpy as np

    return value.item() if isinstance(value, np.generic) else value


def _writes_text(artifact: Artifact) -> bool:
    """Whether a model writes text token by token."""
    task = artifact.task
    if isinstance(task, ReadsPreprocessing):
        task.attach(artifact.preprocessor)
    return isinstance(task, ContinuesText) and task.tokenizer is not None


def _open_export(folder: ModelFolder, name: str) -> OpenedModel:
    from danlu.exporting.loader import open_export

    export = open_export(folder.folder)
    manifest = export.manifest
    kept = ("model", "scores", "provenance", "proof", "exporter")
    card = {
        "name": name,
        "form": "export",
        "task": manifest["task"]["part"]["name"],
        **_task_facts(export.task),
        **{key: manifest[key] for key in kept if key in manifest},
    }
    return OpenedModel(name, export.inputs, card, export.task.rows_are_independent, export)
