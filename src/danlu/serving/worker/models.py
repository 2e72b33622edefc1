"""What a worker opens: an artifact (by torch) or an export (by ONNX Runtime; torch is not imported)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from danlu.serving.protocol.model_folder import ModelFolder, locate
from danlu.system import machine

if TYPE_CHECKING:
    from danlu.serving.worker.main import Desk

# Tasks whose rows are no questions of their own: moments of a series, pieces of a running text.
_JOINED = (
    "forecasting",
    "language_modeling",
    "masked_language_modeling",
    "instruction_tuning",
    "image_generation",
)


@dataclass
class OpenedModel:
    """A model of rows that is open.

    fields        what a row holds (danlu.artifact.row_schema)
    card          what it is: task, classes, scores, provenance, JSON values
    independent   whether each row is answered by itself, one answer a row: only then are requests put together
    """

    name: str
    fields: list[dict[str, Any]]
    card: dict[str, Any]
    independent: bool
    opened: Any  # danlu.artifact.prediction.Artifact or danlu.exporting.loader.Export
    kind: Literal["rows", "text"] = "rows"

    def answer(self, rows: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The answers of columns as danlu.serving.worker.decode_values reads them: those of
        Artifact.predict, of Export.predict."""
        return self.opened.predict(rows)


def open_model(path: str | Path, name: str | None = None) -> OpenedModel:
    """The model of rows at `path`, ready to answer. Raises ArtifactError for what is damaged."""
    place = locate(path)
    return (
        _open_export(place, name or place.name)
        if place.form == "light"
        else _served(_load(place), name or place.name)
    )


def desk(wish: Mapping[str, Any]) -> Desk:
    """The desk of the model that an "open" message asks for. Raises DanluError where it cannot be
    opened."""
    from danlu.serving.worker.prediction_handler import AnsweringDesk

    place = locate(wish["path"])
    options = wish.get("options", {})
    limits = {name: options[name] for name in ("most_rows", "batch") if name in options}
    machine.use_cores(wish.get("threads", 1))
    if place.form == "light":
        return AnsweringDesk(_open_export(place, wish["name"]), **limits)
    _use_threads()
    artifact = _load(place)
    if _writes(artifact):
        return _writing_desk(artifact, wish["name"], options)
    return AnsweringDesk(_served(artifact, wish["name"]), **limits)


def _use_threads() -> None:
    import torch

    torch.set_num_threads(machine.cores())


def _load(place: ModelFolder) -> Any:
    from danlu.artifact.prediction import load

    return load(place.folder)


def _served(artifact: Any, name: str) -> OpenedModel:
    from danlu.artifact.row_schema import row_fields

    independent = artifact.recipe.task.name not in _JOINED
    return OpenedModel(name, row_fields(artifact), card_of(artifact, name), independent, artifact)


def card_of(artifact: Any, name: str) -> dict[str, Any]:
    """What an artifact is, as JSON values."""
    return {
        "name": name,
        "form": "artifact",
        "task": artifact.recipe.task.name,
        "model": artifact.recipe.model.name,
        **_asked(artifact.task),
        "scores": artifact.scores,
        "provenance": artifact.provenance,
        "changes": list(getattr(artifact, "changes", ())),
    }


def _asked(task: Any) -> dict[str, Any]:
    """What a task asks: in words, the classes, the targets."""
    return {
        "description": task.describe() if hasattr(task, "describe") else "",
        "classes": [_plain(each) for each in getattr(task, "classes", ())],
        "targets": list(getattr(task, "target_names", ())),
    }


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _writes(artifact: Any) -> bool:
    """Whether a model writes text token by token."""
    if hasattr(artifact.task, "attach"):
        artifact.task.attach(artifact.preprocessor)
    return (
        getattr(artifact.task, "tokenizer", None) is not None
        and getattr(artifact.task, "ahead", 0) == 1
    )


def _writing_desk(artifact: Any, name: str, options: Mapping[str, Any]) -> Desk:
    from danlu.serving.text.engine import open_texts
    from danlu.serving.worker.text_handler import WritingDesk

    about = {"name": name, "kind": "text", "fields": [], "card": card_of(artifact, name)}
    return WritingDesk(
        open_texts(artifact, {name: options[name] for name in ("slots",) if options.get(name)}),
        about,
    )


def _open_export(place: ModelFolder, name: str) -> OpenedModel:
    from danlu.exporting.loader import open_export

    export = open_export(place.folder)
    about = export.about
    task = about["task"]["part"]["name"]
    told = {
        key: about[key]
        for key in ("model", "scores", "provenance", "proof", "exporter")
        if key in about
    }
    card = {"name": name, "form": "export", "task": task, **_asked(export.task), **told}
    return OpenedModel(name, export.inputs, card, task not in _JOINED, export)
