"""scikit-learn's bundled sets by name: digits, iris, wine, breast_cancer, diabetes, linnerud. Real data, nothing downloaded.

digits gives a column `image` (8 x 8 pixels, grey; the sixteen levels spread over 0..255) and a category `label`. The others give their features
by name and, for one target, a column `target` (a category by its name where it is a class); linnerud has three targets by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from danlu.recipe import Options
from danlu.terms import Column, Table

if TYPE_CHECKING:
    from danlu.recipe import ColumnOptions


class Config(Options):
    """Which set."""

    set: Literal["digits", "iris", "wine", "breast_cancer", "diabetes", "linnerud"] = Field(default="digits", description="The bundled set.")


def files(config: Config) -> list[Path]:
    """No file of the user's."""
    return []


def version(config: Config) -> str:
    """The library that bundles the set, and its version: together they say what the rows are."""
    from importlib.metadata import version as installed

    return f"scikit-learn {installed('scikit-learn')}"


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The rows of the set, in its order."""
    from sklearn import datasets

    data: Any = getattr(datasets, f"load_{config.set}")()
    origin = f"scikit-learn's {config.set}"
    if config.set == "digits":
        pixels = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None]
        return Table({"image": Column("image", "image", pixels, reason="image: 8 x 8 grey pixels"), "label": _classes("label", data)}, origin)
    found = {_plain(name): _number(_plain(name), data.data[:, place]) for place, name in enumerate(data.feature_names)}
    if config.set == "linnerud":
        found |= {name: _number(name, data.target[:, place]) for place, name in enumerate(data.target_names)}
    elif hasattr(data, "target_names"):
        found["target"] = _classes("target", data)
    else:
        found["target"] = _number("target", data.target)
    return Table(found, origin)


def _plain(name: str) -> str:
    """A feature name as one word a recipe can hold: 'sepal length (cm)' is sepal_length_cm."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name).split())


def _number(name: str, values: np.ndarray) -> Column:
    return Column(name, "number", np.ascontiguousarray(values, dtype=np.float64), reason="number: given by the library")


def _classes(name: str, data: Any) -> Column:
    categories = tuple(str(each) for each in data.target_names)
    return Column(name, "category", data.target.astype(np.int32), categories, reason="category: the classes of the set")
