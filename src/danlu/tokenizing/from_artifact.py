"""The tokenizer of an artifact, for a model that continues from its weights and must read alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from danlu.errors import ArtifactError
from danlu.system.atomic_files import read_checked_json


def input_tokenizer_state(path: str) -> dict[str, Any] | None:
    """The state of the tokenizer with which the artifact (or run) at `path` reads text; None where
    it reads no text column, or several.

    Raises ArtifactError where there is no artifact, or a damaged one.
    """
    manifest, where = _manifest(path)
    try:
        columns = manifest["preprocessing"]["columns"]
        states = [
            step["state"]["tokenizer"]
            for column in columns
            for step in column["steps"]
            if "tokenizer" in step["state"]
        ]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"this artifact is damaged: {error}.", where=where) from None
    return states[0] if len(states) == 1 else None


def output_tokenizer_state(path: str) -> dict[str, Any] | None:
    """The state of the tokenizer with which the artifact (or run) at `path` generates text; None
    where it generates none.

    Raises ArtifactError where there is no artifact, or a damaged one.
    """
    manifest, where = _manifest(path)
    try:
        state = manifest["task"].get("tokenizer")
    except (KeyError, AttributeError) as error:
        raise ArtifactError(f"this artifact is damaged: {error}.", where=where) from None
    return state if isinstance(state, dict) else None


def _manifest(path: str) -> tuple[dict[str, Any], str]:
    """(the content of artifact.json, its path)."""
    path_of_manifest = next(
        (
            candidate
            for candidate in (
                Path(path) / "artifact.json",
                Path(path) / "artifact" / "artifact.json",
            )
            if candidate.is_file()
        ),
        None,
    )
    if path_of_manifest is None:
        raise ArtifactError(
            "there is no artifact or finished run.",
            where=path,
            hint="name the folder that danlu train wrote",
        )
    try:
        return read_checked_json(path_of_manifest), str(path_of_manifest)
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"this artifact is damaged: {error}.", where=str(path_of_manifest)
        ) from None


def is_artifact(path: str) -> bool:
    """Whether a path is the folder of an artifact or run rather than a tokenizer.json.

    >>> is_artifact("tokenizer.json")
    False
    """
    return Path(path).is_dir()
