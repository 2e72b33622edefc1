"""Which folder a path means: an artifact, the artifact of a run, or an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from danlu.errors import ArtifactError
from danlu.system.atomic_files import not_found, read_checked_json, require_inside

Form = Literal["torch", "light"]
MANIFESTS: dict[str, Form] = {"artifact.json": "torch", "export.json": "light"}


@dataclass(frozen=True)
class ModelFolder:
    """Where a model lies.

    folder   the folder that holds the manifest
    form     what runs the model: "torch" (an artifact) or "light" (an export, without torch)
    name     the name in the manifest, else that of the folder
    """

    folder: Path
    form: Form
    name: str


def locate(path: str | Path) -> ModelFolder:
    """The model that a path means: an artifact, a run or an export.

    Checks the manifest and opens nothing else. Raises ArtifactError."""
    start = Path(path)
    for folder in (start, start / "artifact"):
        for manifest, form in MANIFESTS.items():
            file = folder / manifest
            if not file.is_file():
                continue
            folder = require_inside(start, folder)
            try:
                content = read_checked_json(file)
            except (OSError, ValueError, MemoryError) as error:
                raise ArtifactError(f"it is damaged: {error}.", where=str(file)) from None
            return ModelFolder(folder, form, str(content.get("name") or folder.resolve().name))
    if not start.exists():
        raise not_found(start, "there is no such artifact, run or export.")
    raise ArtifactError(
        "this is neither an artifact nor an export: it holds no artifact.json and no export.json.",
        where=str(start),
        hint="danlu train writes RUN/artifact; danlu export writes an export",
    )
