"""The data sets bundled with scikit-learn: digits, iris, wine, breast_cancer, diabetes, linnerud.

  digits          1,797 handwritten digits: "image" (8x8, grey; scikit-learn's 0 to 16 scaled to
                  pixels of 0 to 255, rounded) and "label" (category "0" to "9")
  iris            150 flowers: 4 measurements in cm, and "target" (category setosa, versicolor,
                  virginica)
  wine            178 wines: 13 measurements, and "target" (category class_0 to class_2)
  breast_cancer   569 tumours: 30 measurements, and "target" (category malignant, benign)
  diabetes        442 patients: 10 unscaled measurements (age in years, ...; sex as category "1",
                  "2"), and "target" (number)
  linnerud        20 men: Chins, Situps, Jumps, and the targets Weight, Waist, Pulse (numbers)

Columns keep scikit-learn's names ("sepal length (cm)"). Nothing is downloaded.
Source: https://scikit-learn.org/stable/datasets/toy_dataset.html
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from danlu.reading.columns import infer_column
from danlu.recipe import ColumnOptions, Options
from danlu.terms import Column, Table


class Config(Options):
    """The bundled data set."""

    set: Literal["digits", "iris", "wine", "breast_cancer", "diabetes", "linnerud"] = Field(
        default="digits", description="The bundled data set, by scikit-learn's name."
    )


def files(config: Config) -> list[Path]:
    """[]: the data sets are part of the installed library, which `version` names."""
    return []


def version(config: Config) -> str:
    """The library and its version."""
    return f"scikit-learn {metadata.version('scikit-learn')}"


def build(config: Config, columns: Mapping[str, ColumnOptions]) -> Table:
    """The table of a bundled data set."""
    from sklearn import datasets

    name = config.set
    # unscaled: a transform scales it, fitted on the training split
    bunch: Any = (
        datasets.load_diabetes(scaled=False)
        if name == "diabetes"
        else getattr(datasets, f"load_{name}")()
    )
    columns_read = _digits(bunch) if name == "digits" else _measures(bunch, columns, name)
    return Table(columns=columns_read, origin=name)


def _digits(bunch: Any) -> dict[str, Column]:
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    labels = tuple(str(value) for value in bunch.target_names.tolist())
    return {
        "image": Column(
            "image", "image", pixels, reason="image: 8x8 pixels, 0 to 16 scaled to 0 to 255"
        ),
        "label": Column(
            "label", "category", bunch.target.astype(np.int32), labels, reason="category: 10 digits"
        ),
    }


def _measures(bunch: Any, options: Mapping[str, ColumnOptions], origin: str) -> dict[str, Column]:
    names = [str(name) for name in bunch.feature_names]
    columns_read = {
        name: infer_column(name, bunch.data[:, number], options.get(name), origin)
        for number, name in enumerate(names)
    }
    if origin == "diabetes" and options.get("sex", ColumnOptions()).kind is None:
        columns_read["sex"] = infer_column(
            "sex", bunch.data[:, names.index("sex")], ColumnOptions(kind="category"), origin
        )
    if bunch.target.ndim == 2:
        return columns_read | {
            str(name): infer_column(
                str(name), bunch.target[:, number], options.get(str(name)), origin
            )
            for number, name in enumerate(bunch.target_names)
        }
    if "target_names" in bunch and options.get("target", ColumnOptions()).kind in (
        None,
        "category",
    ):
        classes = tuple(str(name) for name in bunch.target_names)
        return columns_read | {
            "target": Column(
                "target",
                "category",
                bunch.target.astype(np.int32),
                classes,
                reason="category: named classes",
            )
        }
    return columns_read | {
        "target": infer_column("target", bunch.target, options.get("target"), origin)
    }
