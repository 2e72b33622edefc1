"""The tokenizer of an artifact: what a model is to go on from must read text as it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from danlu.durable import read_sealed
from danlu.errors import ArtifactError


def state_of(path: str) -> dict[str, Any] | None:
    """The state of the one tokenizer in the artifact (or run) at `path`; None where it reads no text, or several.

    Raises ArtifactError where there is no artifact, or a damaged one.
    """
    manifest = next(
        (each for each in (Path(path) / "artifact.json", Path(path) / "artifact" / "artifact.json") if each.is_file()), None
    )
    if manifest is None:
        raise ArtifactError("there is no artifact or finished run.", where=path, hint="name the folder that danlu train wrote")
    try:
        columns = read_sealed(manifest)["preprocessing"]["columns"]
        found = [step["state"]["tokenizer"] for each in columns for step in each["steps"] if "tokenizer" in step["state"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"this artifact is damaged: {error}.", where=str(manifest)) from None
    return found[0] if len(found) == 1 else None


def is_artifact(path: str) -> bool:
    """Whether a path means an artifact or a run, and no file of a tokenizer."""
    return Path(path).is_dir()
