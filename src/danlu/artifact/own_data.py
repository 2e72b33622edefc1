"""Data files read as the training data of an artifact was read."""

from __future__ import annotations

from danlu import registry
from danlu.artifact.artifact import Contents
from danlu.errors import DataError
from danlu.recipe import Part


def source_like_training(data: str, artifact: Contents) -> Part:
    """The source that reads `data` as the training data was read: with the same options, and the
    decimal mark that was found then."""
    source = source_of(data, artifact.recipe.data.source)
    mark = artifact.provenance["data"].get("decimal", "auto")
    if source.options.model_dump().get("decimal") == "auto" and mark != "auto":
        return Part(source.name, source.options.model_copy(update={"decimal": mark}))
    return source


def source_of(data: str, like: Part) -> Part:
    """The source that reads `data`, chosen by its suffix; with the options of the recipe's own
    source where that is the same. Raises DataError for a path that no source reads."""
    name = registry.source_for(data)
    if (
        name is None
        and like.name in registry.names("sources")
        and "path" in type(like.options).model_fields
    ):
        name = like.name
    if name is None:
        raise DataError(
            "no source is known for this file.",
            where=data,
            hint=f"sources read {', '.join(_suffixes())}",
        )
    config = registry.config("sources", name)
    if name == like.name:
        changed = {
            "path": data,
            **{key: None for key in ("test", "validation") if key in config.model_fields},
        }
        return Part(name, like.options.model_copy(update=changed))
    return Part(name, config.model_validate({"path": data}))


def _suffixes() -> list[str]:
    return sorted(
        {suffix for name in registry.names("sources") for suffix in registry.source(name).suffixes}
    )
