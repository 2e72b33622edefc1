"""Data loaders for peers: one that gathers whole batches, as fast as a DataLoader can be, and one as every guide shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, TensorDataset

from cases import Work


class Order(Sampler[Any]):
    """danlu's order of rows, one epoch after the other: single rows, or whole batches of rows."""

    def __init__(self, work: Work, batches: bool) -> None:
        self.work = work
        self.batches = batches
        self.epoch = 0

    def __iter__(self) -> Iterator[Any]:
        order = self.work.order(self.epoch)
        self.epoch += 1
        return iter(order.split(self.work.batch_size) if self.batches else order.tolist())

    def __len__(self) -> int:
        return self.work.steps_per_epoch if self.batches else self.work.case.rows


class Gathered(Dataset[Any]):
    """`dataset[rows]` is a whole batch, gathered at once."""

    def __init__(self, work: Work, shape: Callable[[Any, Any], Any]) -> None:
        self.images, self.labels, self.shape = work.images, work.labels, shape

    def __getitem__(self, rows: torch.Tensor) -> Any:
        return self.shape(self.images.index_select(0, rows), self.labels.index_select(0, rows))

    def __len__(self) -> int:
        return len(self.labels)


class Single(Dataset[Any]):
    """`dataset[row]` is one example."""

    def __init__(self, work: Work, shape: Callable[[Any, Any], Any]) -> None:
        self.rows, self.shape = TensorDataset(work.images, work.labels), shape

    def __getitem__(self, row: int) -> Any:
        return self.shape(*self.rows[row])

    def __len__(self) -> int:
        return len(self.rows)


def pair(images: Any, labels: Any) -> Any:
    """(images, labels)."""
    return images, labels


def bare_loader(work: Work, shape: Callable[[Any, Any], Any] = pair) -> DataLoader[Any]:
    """Whole batches at a time."""
    return DataLoader(Gathered(work, shape), batch_size=None, sampler=Order(work, batches=True))


def usual_loader(work: Work, shape: Callable[[Any, Any], Any] = pair) -> DataLoader[Any]:
    """Row by row, put together by torch's default collate."""
    return DataLoader(
        Single(work, shape), batch_size=work.batch_size, sampler=Order(work, batches=False)
    )
