"""The searches that `tuning.py` compares: every contestant gets the same data, network, values to
try, batches and epochs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cases import CLASSES, PIXELS, SEED, write_images

HOME = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DANLU_DATA", HOME.parent / "shared" / "data"))
VALIDATION = 0.1  # share of the rows that scores a trial
RATE, DECAY, DROPOUT = "optimizer.learning_rate", "optimizer.weight_decay", "model.dropout"
RANGES = {
    "momentum": {RATE: (1e-3, 0.3), DECAY: (1e-6, 1e-2)},
    "adamw": {RATE: (1e-4, 3e-2), DECAY: (1e-4, 0.3)},
}


@dataclass(frozen=True)
class Search:
    """A tuning: a network, where its rows come from, and how many values of (learning rate, weight
    decay, dropout) are tried."""

    name: str
    description: str
    trials: int
    hidden: tuple[int, ...]
    epochs: int
    batch_size: int
    rows: int | None  # of Fashion-MNIST; None: the table Adult
    optimizer: str = "momentum"

    def space(self) -> dict[str, Any]:
        """tune.space of the recipe."""
        rates = {
            name: {"low": low, "high": high, "log": True}
            for name, (low, high) in RANGES[self.optimizer].items()
        }
        return {**rates, DROPOUT: {"low": 0.0, "high": 0.5}}

    def recipe(self, folder: Path, device: str, on: str, trials: int) -> dict[str, Any]:
        """The recipe danlu tunes; its rows lie in `folder`, or under DATA."""
        return {
            "name": f"tuning_{self.name}",
            "task": "classification",
            "data": self._adult() if self.rows is None else self._images(folder),
            "model": {"name": "mlp", "hidden": [*self.hidden], "dropout": 0.0},
            "optimizer": self.optimizer,
            "schedule": "constant",
            "train": {
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "seed": SEED,
                "device": device,
            },
            "tune": {
                "space": self.space(),
                "objectives": [{"metric": "accuracy"}],
                "trials": trials,
                "sampler": "random",
                "on": on,
                "seed": SEED,
            },
        }

    def _images(self, folder: Path) -> dict[str, Any]:
        write_images(folder, self.rows or 0)
        source = {
            "name": "idx",
            "images": str(folder / "images-idx3-ubyte"),
            "labels": str(folder / "labels-idx1-ubyte"),
        }
        return {
            "source": source,
            "target": "label",
            "split": {"name": "random", "validation": VALIDATION, "test": 0.0},
        }

    def _adult(self) -> dict[str, Any]:
        """The data section of recipes/adult.yaml, from the files under DATA."""
        import danlu

        files = {
            "data.source.path": str(DATA / "adult" / "adult.data"),
            "data.source.test": str(DATA / "adult" / "adult.test"),
        }
        return dict(danlu.read_recipe(HOME / "recipes" / "adult.yaml", files).raw["data"])


SEARCHES = {
    search.name: search
    for search in (
        Search("fashion", "MLP 784-128-10 on Fashion-MNIST", 64, (128,), 2, 64, 60_000),
        Search("adult", "MLP with two hidden layers of 64 on Adult", 256, (64, 64), 2, 256, None),
        Search("width", "MLP 784-1024-1024-10 on Fashion-MNIST", 8, (1024, 1024), 1, 64, 20_000),
    )
}


class Work:
    """A search of images made ready for the peers in this process: resident tensors in danlu's
    split, and plain torch."""

    def __init__(self, search: Search, folder: Path, device: str = "cpu") -> None:
        self.search = search
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.device = device
        self.epochs = search.epochs
        self.batch_size = search.batch_size

    @cached_property
    def tensors(self) -> tuple[Any, Any, Any, Any]:
        """float32 (N, 784) images and int64 (N,) labels to train on, then those that score: the
        rows and numbers danlu takes."""
        import torch

        import danlu
        from danlu.data.batches import Rows
        from danlu.data.dataset import prepare
        from danlu.system.placement import placement_for

        recipe = self.search.recipe(self.folder, self.device, "auto", 1)
        del recipe["tune"]
        checked = danlu.read_recipe(recipe)
        data = prepare(checked)
        rows = Rows(
            data.arrays, data.preprocessor.pixels, data.target, placement_for(checked.train)
        )
        tensors: list[Any] = []
        for split in ("train", "validation"):
            batch = rows.gather(torch.from_numpy(data.splits[split]).to(self.device))
            (images,) = batch.inputs.values()
            tensors += [images.flatten(1).contiguous(), batch.target]
        return tuple(tensors)

    def network(self, dropout: float) -> Any:
        """The network as anyone writes it in plain torch, with the start that danlu's mlp takes (He
        et al., 2015)."""
        from torch import nn

        layers: list[nn.Module] = []
        width = PIXELS * PIXELS
        for wide in self.search.hidden:
            linear = nn.Linear(width, wide)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.ReLU(inplace=True), nn.Dropout(dropout)]
            width = wide
        return nn.Sequential(*layers, nn.Linear(width, CLASSES)).to(self.device)

    def torch_optimizer(self, parameters: Iterable[Any], values: Mapping[str, float]) -> Any:
        """torch's own optimizer in its fused form, the fastest there is."""
        import torch

        if self.search.optimizer == "momentum":
            return torch.optim.SGD(
                parameters, lr=values[RATE], momentum=0.9, weight_decay=values[DECAY], fused=True
            )
        return torch.optim.AdamW(
            parameters, lr=values[RATE], weight_decay=values[DECAY], fused=True
        )

    def accuracy(self, network: Any) -> float:
        """Share of the validation rows that a torch network names rightly."""
        import torch

        _, _, images, labels = self.tensors
        network.eval()
        with torch.no_grad():
            right = sum(
                (network(rows).argmax(1) == answers).sum()
                for rows, answers in zip(images.split(1024), labels.split(1024), strict=True)
            )
        network.train()
        return int(right) / len(labels)
