"""danlu (丹炉): data and a recipe in; a trained, checked and provably resumable model out.

    import danlu
    artifact = danlu.train("recipes/digits.yaml")
    artifact.predict([{"image": pixels}])

The names below are the whole public interface. Each is imported when it is first used, so that
`import danlu` takes no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from danlu.compat import telemetry
from danlu.errors import DanluError as DanluError

if TYPE_CHECKING:  # the same table for type checkers; tests/journeys/test_python_door.py compares
    from danlu.artifact.generate_images import picture as picture
    from danlu.artifact.generation import generate as generate
    from danlu.artifact.hugging_face import read_hugging_face as read_hugging_face
    from danlu.artifact.hugging_face import write_hugging_face as write_hugging_face
    from danlu.artifact.prediction import Artifact as Artifact
    from danlu.artifact.prediction import load as load
    from danlu.comparison import compare as compare
    from danlu.compression.compress import compress as compress
    from danlu.compression.pipeline import train as train
    from danlu.data.new_recipe import draft as draft
    from danlu.exporting.export import export as export
    from danlu.exporting.export import verify as verify
    from danlu.exporting.loader import open_export as open_export
    from danlu.recipe import Recipe as Recipe
    from danlu.search.report import report as report
    from danlu.search.tune import tune as tune
    from danlu.search.width_transfer import tune_at_width as tune_at_width
    from danlu.serving.server import serve as serve
    from danlu.system.signing import decrypt as decrypt
    from danlu.system.signing import encrypt as encrypt
    from danlu.system.signing import sign as sign
    from danlu.system.signing import verify_signature as verify_signature
    from danlu.training.cross_validation import cross_validate as cross_validate
    from danlu.training.evaluation import evaluate as evaluate
    from danlu.training.learning_rate_range import find_learning_rate as find_learning_rate
    from danlu.training.verify_resume import verify_resume as verify_resume

telemetry.turn_off()  # before any other library is imported
__version__ = "0.2.0"

# Every public name, and the module that it is imported from when it is first used.
_HOMES = {
    "Artifact": "danlu.artifact.prediction",
    "Recipe": "danlu.recipe",
    "compare": "danlu.comparison",
    "compress": "danlu.compression.compress",
    "cross_validate": "danlu.training.cross_validation",
    "decrypt": "danlu.system.signing",
    "draft": "danlu.data.new_recipe",
    "encrypt": "danlu.system.signing",
    "evaluate": "danlu.training.evaluation",
    "export": "danlu.exporting.export",
    "find_learning_rate": "danlu.training.learning_rate_range",
    "generate": "danlu.artifact.generation",
    "load": "danlu.artifact.prediction",
    "open_export": "danlu.exporting.loader",
    "picture": "danlu.artifact.generate_images",
    "read_hugging_face": "danlu.artifact.hugging_face",
    "report": "danlu.search.report",
    "serve": "danlu.serving.server",
    "sign": "danlu.system.signing",
    "train": "danlu.compression.pipeline",
    "tune": "danlu.search.tune",
    "tune_at_width": "danlu.search.width_transfer",
    "verify": "danlu.exporting.export",
    "verify_resume": "danlu.training.verify_resume",
    "verify_signature": "danlu.system.signing",
    "write_hugging_face": "danlu.artifact.hugging_face",
}
_OWN = ("DanluError", "read_recipe", "recipe_schema")
__all__ = sorted((*_HOMES, *_OWN))  # pyright: ignore[reportUnsupportedDunderAll]


def read_recipe(
    source: str | Path | Mapping[str, object],
    overrides: Sequence[str] | Mapping[str, object] = (),
    *,
    study: str | Path | None = None,
) -> Recipe:
    """The checked recipe of a YAML or JSON file or a dict, every default filled in.

    `overrides` change it first: "optimizer.learning_rate=0.1", or a dict of dotted names. No data
    is read. `study` is the folder of its search where that is not studies/<name>: a database
    elsewhere needs danlu.system.trust.allow_remote(), as every address of another machine does.
    Raises RecipeError with every problem at once.

    >>> source = {"name": "sklearn", "set": "iris"}
    >>> recipe = {"task": "classification", "data": {"source": source, "target": "target"},
    ...           "model": "mlp"}
    >>> read_recipe(recipe, ["train.steps=2"]).train.steps
    2
    """
    from danlu import recipe, registry

    return recipe.read(source, registry, overrides, study)


def recipe_schema() -> dict[str, object]:
    """A JSON Schema (draft 2020-12) of recipes, made from the parts, for completion in editors.

    Raises PartError where a part of an installed package cannot be imported.

    >>> sorted(recipe_schema()["properties"])[:3]
    ['compress', 'data', 'finetune']
    """
    from danlu import recipe, registry

    return recipe.schema(registry)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'danlu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
