"""danlu (丹炉): data and a recipe in; a trained, checked and provably resumable model out.

    import danlu
    artifact = danlu.train("recipes/digits.yaml")
    artifact.predict([{"image": pixels}])

The names below are the whole public interface. They are imported when first used, so that `import
danlu` costs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.errors import DanluError

__version__ = "0.2.0"

if TYPE_CHECKING:
    from danlu.artifact.generate_images import picture
    from danlu.artifact.generation import generate
    from danlu.artifact.prediction import Artifact, load
    from danlu.comparison import compare
    from danlu.compression.compress import compress
    from danlu.compression.pipeline import train
    from danlu.data.new_recipe import draft
    from danlu.exporting.export import export, verify
    from danlu.exporting.loader import open_export
    from danlu.recipe import Recipe
    from danlu.search.report import report
    from danlu.search.tune import tune
    from danlu.search.width_transfer import tune_at_width
    from danlu.serving.server import serve
    from danlu.system.signing import decrypt, encrypt, sign, verify_signature
    from danlu.training.cross_validation import cross_validate
    from danlu.training.evaluation import evaluate
    from danlu.training.learning_rate_range import find_learning_rate
    from danlu.training.verify_resume import verify_resume

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
    "report": "danlu.search.report",
    "serve": "danlu.serving.server",
    "sign": "danlu.system.signing",
    "train": "danlu.compression.pipeline",
    "tune": "danlu.search.tune",
    "tune_at_width": "danlu.search.width_transfer",
    "verify": "danlu.exporting.export",
    "verify_resume": "danlu.training.verify_resume",
    "verify_signature": "danlu.system.signing",
}

__all__ = [
    "Artifact",
    "DanluError",
    "Recipe",
    "compare",
    "compress",
    "cross_validate",
    "decrypt",
    "draft",
    "encrypt",
    "evaluate",
    "export",
    "find_learning_rate",
    "generate",
    "load",
    "open_export",
    "picture",
    "read_recipe",
    "recipe_schema",
    "report",
    "serve",
    "sign",
    "train",
    "tune",
    "tune_at_width",
    "verify",
    "verify_resume",
    "verify_signature",
]


def read_recipe(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] | Mapping[str, Any] = ()
) -> Recipe:
    """The checked recipe of a YAML or JSON file or a dict, every default filled in.

    `overrides` are "optimizer.learning_rate=0.1" or a dict of dotted names. Raises RecipeError with
    every problem at once."""
    from danlu import recipe, registry

    return recipe.read(source, registry, overrides)


def recipe_schema() -> dict[str, Any]:
    """A JSON Schema of recipes, made from the parts on the shelves, for completion in editors."""
    from danlu import recipe, registry

    return recipe.schema(registry)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'danlu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
