"""The tokenizer of an artifact: what a model is to go on from must read text as it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from danlu.errors import ArtifactError
from danlu.system.atomic_files import read_checked_json


def input_tokenizer_state(path: str) -> dict[str, Any] | None:
    """The state of the one tokenizer in the artifact (or run) at `path`; None where it reads no
    text, or several.

    Raises ArtifactError where there is no artifact, or a damaged one.
    """
    about, where = _manifest(path)
    try:
        columns = about["preprocessing"]["columns"]
        found = [
            step["state"]["tokenizer"]
            for each in columns
            for step in each["steps"]
            if "tokenizer" in step["state"]
        ]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"this artifact is damaged: {error}.", where=where) from None
    return found[0] if len(found) == 1 else None


def output_tokenizer_state(path: str) -> dict[str, Any] | None:
    """The state of the tokenizer that the task of an artifact (or run) writes in; None where it
    writes no text."""
    about, where = _manifest(path)
    try:
        found = about["task"].get("tokenizer")
    except (KeyError, AttributeError) as error:
        raise ArtifactError(f"this artifact is damaged: {error}.", where=where) from None
    return found if isinstance(found, dict) else None


def _manifest(path: str) -> tuple[dict[str, Any], str]:
    """(what artifact.json holds, where it lies)."""
    found = next(
        (
            each
            for each in (Path(path) / "artifact.json", Path(path) / "artifact" / "artifact.json")
            if each.is_file()
        ),
        None,
    )
    if found is None:
        raise ArtifactError(
            "there is no artifact or finished run.",
            where=path,
            hint="name the folder that danlu train wrote",
        )
    try:
        return read_checked_json(found), str(found)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"this artifact is damaged: {error}.", where=str(found)) from None


def is_artifact(path: str) -> bool:
    """Whether a path means an artifact or a run, and no file of a tokenizer."""
    return Path(path).is_dir()
