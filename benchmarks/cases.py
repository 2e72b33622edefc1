"""The trainings that `overhead.py` compares: every contestant gets the same data, network,
optimizer and batches in the same order."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

PIXELS, CLASSES, BATCH_SIZE, SEED = 28, 10, 64, 0


@dataclass(frozen=True)
class Case:
    """One network on 28x28 grey images in 10 classes. `hidden` are the widths of an MLP; None is
    the textbook CNN."""

    name: str
    description: str
    hidden: tuple[int, ...] | None
    optimizer: str  # as danlu calls it: momentum or adam
    learning_rate: float
    rows: int
    epochs: int


CASES = {
    case.name: case
    for case in (
        Case("mlp_small", "MLP 784-128-10, SGD with momentum", (128,), "momentum", 0.01, 60_000, 5),
        Case("mlp_large", "MLP 784-1024-512-10, Adam", (1024, 512), "adam", 0.001, 60_000, 2),
        Case(
            "cnn",
            "textbook CNN (convolutions 32, 64; dense 128), Adam",
            None,
            "adam",
            0.001,
            30_000,
            1,
        ),
    )
}


class Work:
    """One case made ready in this process: resident data, the starting weights, the order of rows
    of each epoch."""

    def __init__(self, case: Case, folder: Path) -> None:
        import torch

        import danlu
        from danlu import registry
        from danlu.data.batches import Rows
        from danlu.data.dataset import prepare
        from danlu.system.placement import WEIGHTS, draw_seed, placement_for

        self.case = case
        self.folder = folder
        self.batch_size = BATCH_SIZE
        self.epochs = case.epochs
        self.steps_per_epoch = -(-case.rows // BATCH_SIZE)
        self.steps = self.steps_per_epoch * case.epochs
        write_images(folder, case.rows)
        checked = danlu.read_recipe(self.recipe)
        place_ = placement_for(checked.train)
        data = prepare(checked)
        rows = Rows(data.arrays, data.preprocessor.pixels, data.target, place_)
        (name,) = rows.inputs
        whole = rows.gather(torch.arange(len(rows)))
        images = whole.inputs[name].contiguous()
        self.images = images.flatten(1) if case.hidden is not None else images
        self.labels: torch.Tensor = whole.target
        # danlu draws its weights from (seed, WEIGHTS, 0); everyone begins with the same
        place_.seed(draw_seed(SEED, WEIGHTS, 0))
        module = registry.build_model(checked.model, data.preprocessor.inputs, data.task.output)
        self.weights = [parameter.detach().clone() for parameter in module.parameters()]

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The recipe danlu trains: no row is held out, so that nothing but training is timed."""
        case = self.case
        model: dict[str, Any] = (
            {"name": "cnn", "design": "textbook"}
            if case.hidden is None
            else {"name": "mlp", "hidden": [*case.hidden]}
        )
        return {
            "name": case.name,
            "task": "classification",
            "data": {
                "source": {
                    "name": "idx",
                    "images": str(self.folder / "images-idx3-ubyte"),
                    "labels": str(self.folder / "labels-idx1-ubyte"),
                },
                "target": "label",
                "split": {"name": "random", "validation": 0.0, "test": 0.0},
            },
            "model": {**model, "dropout": 0.0},
            "optimizer": {"name": case.optimizer, "learning_rate": case.learning_rate},
            "schedule": "constant",
            "train": {
                "steps": self.steps,
                "batch_size": BATCH_SIZE,
                "seed": SEED,
                "precision": "float32",
                "compile": False,
            },
        }

    def order(self, epoch: int) -> Any:
        """int64 (rows,): the order of an epoch, the one danlu draws."""
        import torch

        from danlu.system.placement import ORDER, draw_seed

        return torch.randperm(
            self.case.rows, generator=torch.Generator().manual_seed(draw_seed(SEED, ORDER, epoch))
        )

    def network(self, *, channels_last: bool = True) -> Any:
        """The network as anyone writes it in plain torch, with the starting weights.

        With `channels_last` a CNN runs in the memory layout that danlu's own cnn takes, which is
        much faster here."""
        import torch
        from torch import nn

        from danlu.layers.vision.pooling import ChannelsLast

        layers: list[nn.Module] = []
        if self.case.hidden is None:
            layers += [ChannelsLast()] if channels_last else []
            for channels, width in ((1, 32), (32, 64)):
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1),
                    nn.ReLU(inplace=True),
                    nn.MaxPool2d(2),
                ]
            layers += [
                nn.Flatten(),
                nn.Linear(64 * 7 * 7, 128),
                nn.ReLU(inplace=True),
                nn.Linear(128, CLASSES),
            ]
        else:
            width = PIXELS * PIXELS
            for wide in self.case.hidden:
                layers += [nn.Linear(width, wide), nn.ReLU(inplace=True)]
                width = wide
            layers.append(nn.Linear(width, CLASSES))
        network = nn.Sequential(*layers)
        with torch.no_grad():
            for parameter, start in zip(network.parameters(), self.weights, strict=True):
                parameter.copy_(start)
        return network

    def torch_optimizer(self, parameters: Iterable[Any]) -> Any:
        """torch's own optimizer in its fused form, the fastest there is."""
        import torch

        if self.case.optimizer == "momentum":
            return torch.optim.SGD(parameters, lr=self.case.learning_rate, momentum=0.9, fused=True)
        return torch.optim.Adam(parameters, lr=self.case.learning_rate, fused=True)


def write_images(folder: Path, rows: int) -> str:
    """Two IDX files of `rows` images and labels in `folder`, once: Fashion-MNIST where DANLU_DATA
    has it, else random pixels."""
    images, labels = folder / "images-idx3-ubyte", folder / "labels-idx1-ubyte"
    downloads = (
        Path(os.environ.get("DANLU_DATA", Path(__file__).parents[2] / "shared" / "data"))
        / "fashion_mnist"
    )
    real = (downloads / "train-images-idx3-ubyte.gz").is_file()
    if not labels.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        if real:
            with gzip.open(downloads / "train-images-idx3-ubyte.gz") as file:
                pixels = np.frombuffer(file.read(16 + rows * PIXELS**2), np.uint8, offset=16)
            with gzip.open(downloads / "train-labels-idx1-ubyte.gz") as file:
                classes = np.frombuffer(file.read(8 + rows), np.uint8, offset=8)
        else:
            draw = np.random.default_rng(0)
            classes = draw.integers(0, CLASSES, rows, np.uint8)
            # a stripe tells the class, so that there is something to learn
            noise = draw.integers(0, 200, (rows, PIXELS, PIXELS), np.uint8)
            noise[np.arange(rows), classes * 2 + 4] = 255
            pixels = noise.reshape(-1)
        images.write_bytes(struct.pack(">IIII", 0x803, rows, PIXELS, PIXELS) + pixels.tobytes())
        labels.write_bytes(struct.pack(">II", 0x801, rows) + classes.tobytes())
    return "Fashion-MNIST" if real else "random images"
