"""What a loss is: `Loss` scores outputs, `AdversarialLoss` serves two networks at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch


class Loss(ABC):
    """A number that training makes small: the mean over rows, taken as a sum and a count.

    Only danlu.training.step divides. Both are scalars; with several tasks they are vectors with one
    entry per task, weights already in the sums."""

    @abstractmethod
    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count).

        sum     the loss summed over rows, float32 with gradient, whatever the dtype of the outputs
        count   what to divide it by, without gradient; equal to self.count(batch)
        """

    @abstractmethod
    def count(self, batch: Batch) -> Tensor:
        """The divisor, from the batch alone: rows, or the sum of their weights.

        With it gradient accumulation over unequal micro batches is exact. The tensor may be shared
        between calls: never change it in place."""


class AdversarialOptions(Protocol):
    """The options of an adversarial loss that a training step reads."""

    @property
    def discriminator_steps(self) -> int:
        """Updates of the discriminator per update of the generator."""
        ...

    @property
    def penalty_every(self) -> int:
        """Penalties are added in one of so many updates."""
        ...

    @property
    def generator_learning_rate_scale(self) -> float:
        """The generator's learning rate, as a multiple of the optimizer's."""
        ...

    @property
    def discriminator_learning_rate_scale(self) -> float:
        """The discriminator's learning rate, as a multiple of the optimizer's."""
        ...


class AdversarialLoss(ABC):
    """The losses of a generator and a discriminator (FITS "samples"); it cannot score outputs by
    itself, so its part sets SCORED = False.

    options   how often each side is updated, and how far
    """

    options: AdversarialOptions

    @abstractmethod
    def count(self, batch: Batch) -> Tensor:
        """The number of rows averaged, a scalar."""

    @abstractmethod
    def discriminator(self, real_B: Tensor, fake_B: Tensor) -> tuple[Tensor, Tensor]:
        """(sum, count) of the discriminator's loss, from its logits of real and generated rows."""

    @abstractmethod
    def generator(self, fake_B: Tensor) -> tuple[Tensor, Tensor]:
        """(sum, count) of the generator's loss, from the discriminator's logits of its rows."""

    @property
    @abstractmethod
    def penalised(self) -> bool:
        """Whether `penalty` is to be added."""

    @abstractmethod
    def penalty(self, judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        """The sum over rows of penalties on the discriminator's gradient at images (B, ...).

        judge(images) gives logits (B,). The result can be differentiated again."""


@dataclass(frozen=True)
class LossFacts:
    """What a loss part says of itself; `danlu.registry.loss_facts(name)` reads it."""

    # The values of a task's ASKS that the loss can train (danlu.parts.tasks._base.TaskFacts).
    fits: tuple[str, ...] = field(metadata={"name": "FITS"})

    # Whether the loss can score outputs by themselves; evaluation leaves out one that cannot.
    scored: bool = field(default=True, metadata={"name": "SCORED"})
