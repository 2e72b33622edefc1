"""Recipes with all options that could break exact resume, small enough to train in two seconds.

tabular   numbers with holes, categories; dropout, batch normalisation, micro batches, clipping, L1, L2, EMA, one-cycle, AdamW
images    convolutions; crop, flip, rotate, erase, mixup; dropout, batch normalisation, EMA, cosine with warm-up, Nesterov momentum
plateau   regression; a schedule that listens to scores, early stopping, best weights, Muon
nan       two rows that overflow the running statistics once an epoch each; roll back and go on
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Recipe = dict[str, Any]


def write_table(path: Path, rows: int = 420, spoilt: tuple[int, ...] = ()) -> Path:
    """A CSV of numbers (some missing), categories, a class (grade) and one more number (price), so
    large in the rows `spoilt` that its square overflows float32."""
    draw = np.random.default_rng(7)
    age, height = draw.normal(40, 12, rows), draw.normal(170, 9, rows)
    town = draw.choice(["Aachen", "Bern", "Como", "Delft"], rows, p=[0.5, 0.3, 0.15, 0.05])
    logit = 0.08 * (age - 40) + 0.05 * (height - 170) + (town == "Bern") + draw.normal(0, 1, rows)
    lines = ["age,height,town,member,grade,price"]
    for row in range(rows):
        grade = "low" if logit[row] < -0.5 else "high" if logit[row] > 0.8 else "middle"
        holes = "" if row % 13 == 4 else f"{height[row]:.2f}"
        price = "3e37" if row in spoilt else f"{100 + 10 * logit[row]:.3f}"
        lines.append(
            f"{age[row]:.1f},{holes},{town[row]},{'yes' if row % 3 else 'no'},{grade},{price}"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def tabular(folder: Path) -> Recipe:
    return {
        "task": "classification",
        "data": {
            "source": str(write_table(folder / "tabular.csv")), "target": "grade", "checks": "off", "columns": {"price": {"use": False}},
        },
        "model": {"name": "mlp", "hidden": [32, 16], "dropout": 0.2, "batch_norm": True},
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
        "schedule": "one_cycle",
        "regularization": {"l1": 0.0001, "l2": 0.001, "ema_decay": 0.9},
        "train": {
            "threads": 1, "steps": 60, "batch_size": 32, "micro_batch": 13, "clip_norm": 1.0, "seed": 5,
            "report_every": 3, "evaluate_every": 7, "save_every": 1, "keep": 3,
        },
    }  # fmt: skip


def images(folder: Path) -> Recipe:
    return {
        "task": "classification",
        "data": {
            "source": {"name": "sklearn", "set": "digits"}, "target": "label", "checks": "off",
            "augmentations": [{"name": "crop", "padding": 1}, "flip", "rotate", "erase", "mixup"],
        },
        "model": {"name": "cnn", "width": 4, "blocks": [1, 1], "dropout": 0.2},
        "optimizer": {"name": "nesterov", "learning_rate": 0.05, "momentum": 0.9},
        "schedule": {"name": "cosine", "warmup": 0.1},
        "regularization": {"ema_decay": 0.95},
        "train": {
            "threads": 1, "steps": 50, "batch_size": 24, "micro_batch": 10, "seed": 11,
            "report_every": 4, "evaluate_every": 9, "save_every": 1,
        },
    }  # fmt: skip


def plateau(folder: Path) -> Recipe:
    return {
        "task": "regression",
        "data": {
            "source": {"name": "sklearn", "set": "diabetes"},
            "target": "target",
            "checks": "off",
        },
        "model": {"name": "mlp", "hidden": [24], "dropout": 0.1},
        "optimizer": {"name": "muon", "learning_rate": 0.05},
        "schedule": {"name": "reduce_on_plateau", "patience": 1},
        "regularization": {"early_stopping": {"patience": 6}},
        "train": {
            "threads": 1,
            "steps": 90,
            "batch_size": 50,
            "seed": 3,
            "report_every": 5,
            "evaluate_every": 2,
            "save_every": 1,
        },
    }


def nan(folder: Path) -> Recipe:
    return {
        "task": "regression",
        "data": {
            "source": str(write_table(folder / "spoilt.csv", rows=300, spoilt=(17, 201))), "target": "age", "checks": "off",
            "columns": {"price": {"transforms": ["impute"]}},
            "split": {"name": "random", "validation": 0, "test": 0},
        },
        "model": {"name": "mlp", "hidden": [16], "dropout": 0.1, "batch_norm": True},
        "optimizer": "adam",
        "schedule": "constant",
        "regularization": {"ema_decay": 0.9},
        "train": {
            "threads": 1, "steps": 60, "batch_size": 16, "seed": 1, "on_nan": "roll_back", "report_every": 2, "save_every": 4, "keep": 1,
        },
    }  # fmt: skip


RECIPES: dict[str, Callable[[Path], Recipe]] = {
    "tabular": tabular,
    "images": images,
    "plateau": plateau,
    "nan": nan,
}
