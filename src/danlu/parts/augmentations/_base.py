"""The contract of an augmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from danlu.terms import Batch


class Augmentation(Protocol):
    """augment(batch, generator) -> Batch: the batch with its inputs changed at random.

    The argument is not changed in place; shapes and dtypes of the inputs are kept, and everything
    stays on the batch's device. Every random number comes from `generator`, which the caller seeded
    with (seed, step). mixup and cutmix turn a class target int64 (B,) into float32 (B, classes).
    """

    def __call__(self, batch: Batch, generator: torch.Generator, /) -> Batch: ...


@dataclass(frozen=True)
class AugmentationFacts:
    """What an augmentation says of itself; `danlu.registry.augmentation_facts(name)` reads it."""

    # The kinds of input it changes.
    takes: tuple[str, ...] = field(default=("image",), metadata={"name": "TAKES"})
