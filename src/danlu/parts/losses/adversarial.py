"""Adversarial loss: what a discriminator and a generator make small against each other.

r, f: the discriminator's logits of real and of generated rows. Both are averaged over rows.

    form              discriminator                              generator
    non_saturating    softplus(-r) + softplus(f)                 softplus(-f)
    hinge             max(0, 1 - r) + max(0, 1 + f)              -f
    least_squares     ((r - 1)^2 + f^2) / 2                      (f - 1)^2 / 2
    wasserstein       f - r                                      -f

Penalties can be added to the discriminator's loss; g is the gradient of its logit with respect to
the image, |g| its Euclidean norm over all pixels:

    gradient_penalty * (|g| - 1)^2   at a random point between a real and a generated image
                                     (wasserstein needs it)
    r1 / 2 * |g|^2                   at real images

The loss cannot score single outputs, so evaluation leaves it out.
Sources: Goodfellow et al., 2014, arXiv:1406.2661; Lim and Ye, 2017, arXiv:1705.02894 (hinge); Mao
et al., 2017, arXiv:1611.04076; Arjovsky et al., 2017, arXiv:1701.07875; Gulrajani et al., 2017,
arXiv:1704.00028 (gradient penalty); Mescheder et al., 2018, arXiv:1801.04406 (R1); Karras et al.,
2020, arXiv:1912.04958 (penalties every few updates); Heusel et al., 2017, arXiv:1706.08500 (two
learning rates)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from danlu.parts.losses._base import AdversarialLoss
from danlu.parts.losses._count import RowCount
from danlu.parts.tasks._base import Task
from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.terms import Batch

FITS = ("samples",)
SCORED = False


class Config(Options):
    """The form of the loss, its penalties, and how often and how far each side is updated."""

    form: Literal["non_saturating", "hinge", "least_squares", "wasserstein"] = Field(
        "hinge", description="The formulas of both sides."
    )
    discriminator_steps: int = Field(
        1,
        ge=1,
        le=100,
        description="Updates of the discriminator per update of the generator; 5 is usual with "
        "wasserstein.",
    )
    gradient_penalty: float = Field(
        0.0,
        ge=0,
        description="Weight of the squared distance of the gradient's norm from 1, at random "
        "points between real and generated images; 10 is usual.",
    )
    r1: float = Field(0.0, ge=0, description="Weight of the squared gradient norm at real images.")
    penalty_every: int = Field(
        1,
        ge=1,
        le=1000,
        description="Penalties are added in one of so many updates, that many times as strong.",
    )
    generator_learning_rate_scale: float = Field(
        1.0, ge=0, description="The generator's learning rate, as a multiple of the optimizer's."
    )
    discriminator_learning_rate_scale: float = Field(
        1.0,
        ge=0,
        description="The discriminator's learning rate, as a multiple of the optimizer's.",
    )

    @model_validator(mode="after")
    def _wasserstein_needs_a_penalty(self) -> Config:
        if self.form == "wasserstein" and not self.gradient_penalty:
            raise ValueError("form: wasserstein has no bound without gradient_penalty; 10 is usual")
        return self


class Adversarial(AdversarialLoss):
    """The losses of both sides as (sum, count) over rows."""

    def __init__(self, config: Config) -> None:
        self.options = self.config = config
        self._rows = RowCount()

    def count(self, batch: Batch) -> Tensor:
        """The number of rows of the batch."""
        return self._rows(len(batch), batch.rows.device)

    def discriminator(self, real_B: Tensor, fake_B: Tensor) -> tuple[Tensor, Tensor]:
        """(sum, count) of the discriminator's loss, without penalties."""
        from torch.nn.functional import relu, softplus

        real_B, fake_B = real_B.float(), fake_B.float()
        form = self.config.form
        if form == "non_saturating":
            each_B = softplus(-real_B) + softplus(fake_B)
        elif form == "hinge":
            each_B = relu(1 - real_B) + relu(1 + fake_B)
        elif form == "least_squares":
            each_B = ((real_B - 1).square() + fake_B.square()) / 2
        else:
            each_B = fake_B - real_B
        return each_B.sum(), self._rows(len(real_B), real_B.device)

    def generator(self, fake_B: Tensor) -> tuple[Tensor, Tensor]:
        """(sum, count) of the generator's loss."""
        from torch.nn.functional import softplus

        fake_B = fake_B.float()
        form = self.config.form
        each_B = (
            softplus(-fake_B)
            if form == "non_saturating"
            else (fake_B - 1).square() / 2
            if form == "least_squares"
            else -fake_B
        )
        return each_B.sum(), self._rows(len(fake_B), fake_B.device)

    @property
    def penalised(self) -> bool:
        """Whether there is a penalty."""
        return bool(self.config.gradient_penalty or self.config.r1)

    def penalty(self, judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
        """The sum over rows of the penalties on `judge`'s gradient at images (B, ...), in float32.

        The random point is drawn from torch's global generator."""
        import torch

        total = real.new_zeros(())
        if self.config.gradient_penalty:
            share = torch.rand(len(real), *[1] * (real.ndim - 1), device=real.device)
            between = torch.lerp(real, fake.detach(), share)
            total = (
                total + self.config.gradient_penalty * (_slope(judge, between) - 1).square().sum()
            )
        if self.config.r1:
            total = total + self.config.r1 / 2 * _slope(judge, real, squared=True).sum()
        return self.config.penalty_every * total


def _slope(judge: Callable[[Tensor], Tensor], images: Tensor, squared: bool = False) -> Tensor:
    """The norm of each row's gradient (B,), or its square, differentiable."""
    import torch

    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(judge(images).sum(), images, create_graph=True)
    squares_B = gradient.flatten(1).square().sum(dim=1)
    # the square root has no derivative at 0: the small number keeps the second backward finite
    return squares_B if squared else (squares_B + 1e-12).sqrt()


def build(config: Config, task: Task) -> Adversarial:
    """The loss; `task` makes no difference."""
    return Adversarial(config)
