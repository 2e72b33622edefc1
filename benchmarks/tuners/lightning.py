"""Optuna around PyTorch Lightning: as Optuna's example shows it, and with all turned off that costs time."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

from measuring import Clock
from searches import DROPOUT, Work
from tuners import Tuned
from tuners.hand import optimize, suggested

NAME = "Optuna + Lightning"
NEEDS = ("optuna", "lightning")
STYLES = {
    "usual": "as Optuna's example: Trainer(logger=True, enable_checkpointing=False), validation logged; rows from a TensorDataset in a DataLoader",
    "bare": "Trainer(barebones=True): no log, checkpoint or progress; whole batches gathered at once",
}


def run(work: Work, style: str, values: list[dict[str, float]]) -> Tuned:
    """Tune; see tuners."""
    import lightning.pytorch  # noqa: F401

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with Clock() as clock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = optimize(lambda trial: _train(work, style, suggested(trial, work)), values)
    return Tuned(clock.wall, 0.0, clock.cpu, scores)


def _train(work: Work, style: str, values: Mapping[str, float]) -> float:
    import lightning
    import torch
    from torch.nn.functional import cross_entropy

    usual, scores = style == "usual", [0.0]

    class Net(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = work.network(values[DROPOUT])
            self.right = self.seen = 0

        def training_step(self, batch: Any, index: int) -> Any:
            images, labels = batch
            return cross_entropy(self.network(images), labels)

        def validation_step(self, batch: Any, index: int) -> None:
            images, labels = batch
            right = (self.network(images).argmax(1) == labels).float()
            if usual:
                self.log("accuracy", right.mean())
            self.right, self.seen = self.right + int(right.sum()), self.seen + len(labels)

        def on_validation_epoch_end(self) -> None:
            scores.append(self.right / self.seen)
            self.right = self.seen = 0

        def configure_optimizers(self) -> Any:
            return work.torch_optimizer(self.parameters(), values)

    where = "gpu" if work.device.startswith("cuda") else "cpu"
    common: dict[str, Any] = {
        "accelerator": where,
        "devices": 1,
        "max_epochs": work.epochs,
        "default_root_dir": work.folder,
    }
    if usual:
        trainer = lightning.Trainer(logger=True, enable_checkpointing=False, **common)
    else:
        trainer = lightning.Trainer(barebones=True, **common)
    torch.manual_seed(0)
    trainer.fit(Net(), *_loaders(work, usual))
    return max(scores)


def _loaders(work: Work, usual: bool) -> tuple[Any, Any]:
    from torch.utils.data import (
        BatchSampler,
        DataLoader,
        RandomSampler,
        SequentialSampler,
        TensorDataset,
    )

    images, labels, held_images, held_labels = work.tensors
    train, held = TensorDataset(images, labels), TensorDataset(held_images, held_labels)
    if usual:
        return DataLoader(train, work.batch_size, shuffle=True), DataLoader(held, work.batch_size)
    # a sampler of whole batches: one index into the tensors each
    batches = BatchSampler(RandomSampler(train), work.batch_size, drop_last=False)
    return (
        DataLoader(train, batch_size=None, sampler=batches),
        DataLoader(
            held,
            batch_size=None,
            sampler=BatchSampler(SequentialSampler(held), 1024, drop_last=False),
        ),
    )
