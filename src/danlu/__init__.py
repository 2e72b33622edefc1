"""danlu (丹炉): data and a recipe in; a trained, checked and provably resumable model out.

    import danlu
    artifact = danlu.train("recipes/digits.yaml")
    artifact.predict([{"image": pixels}])

The names below are the whole public interface. They are imported when first used, so that `import danlu` costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danlu.errors import DanluError

__version__ = "0.1.0"

if TYPE_CHECKING:
    from danlu.comparison import compare
    from danlu.compression import compress
    from danlu.cross_validation import cross_validate
    from danlu.drafting import draft
    from danlu.evaluation import evaluate
    from danlu.exported import open_export
    from danlu.exporting import export, verify
    from danlu.generation import generate
    from danlu.learning_rate_range import find_learning_rate
    from danlu.picturing import picture
    from danlu.pipeline import train
    from danlu.prediction import Artifact, load
    from danlu.recipe import Recipe
    from danlu.resumption import verify_resume
    from danlu.safekeeping import decrypt, encrypt, sign, verify_signature
    from danlu.serving.server import serve
    from danlu.study_report import report
    from danlu.transfer import tune_at_width
    from danlu.tuning import tune

_HOMES = {
    "Artifact": "danlu.prediction",
    "Recipe": "danlu.recipe",
    "compare": "danlu.comparison",
    "compress": "danlu.compression",
    "cross_validate": "danlu.cross_validation",
    "decrypt": "danlu.safekeeping",
    "draft": "danlu.drafting",
    "encrypt": "danlu.safekeeping",
    "evaluate": "danlu.evaluation",
    "export": "danlu.exporting",
    "find_learning_rate": "danlu.learning_rate_range",
    "generate": "danlu.generation",
    "load": "danlu.prediction",
    "open_export": "danlu.exported",
    "picture": "danlu.picturing",
    "report": "danlu.study_report",
    "serve": "danlu.serving.server",
    "sign": "danlu.safekeeping",
    "train": "danlu.pipeline",
    "tune": "danlu.tuning",
    "tune_at_width": "danlu.transfer",
    "verify": "danlu.exporting",
    "verify_resume": "danlu.resumption",
    "verify_signature": "danlu.safekeeping",
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


def read_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] | Mapping[str, Any] = ()) -> Recipe:
    """The checked recipe of a YAML or JSON file or a dict, every default filled in.

    `overrides` are "optimizer.learning_rate=0.1" or a dict of dotted names. Raises RecipeError with every problem at once.
    """
    from danlu import recipe, shelf

    return recipe.read(source, shelf, overrides)


def recipe_schema() -> dict[str, Any]:
    """A JSON Schema of recipes, made from the parts on the shelves, for completion in editors."""
    from danlu import recipe, shelf

    return recipe.schema(shelf)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'danlu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
