"""A generator against a discriminator: both are updated in one update, or neither.

One optimizer serves both. While one side is updated the gradients of the other are None, and its
weights, momenta and counters stay."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from danlu.errors import PartError
from danlu.layers.tensors import split
from danlu.parts.losses._base import AdversarialLoss
from danlu.terms import Batch
from danlu.training.state import Number
from danlu.training.step import formulas
from danlu.training.step.finite_check import NonFiniteError
from danlu.training.step.gradients import backward
from danlu.training.step.update import Update


class AdversarialModule(Protocol):
    """What an adversarial update needs of the module (danlu.parts.models._gan.AdversarialPair).

    generator, discriminator   the modules with the weights of each side
    """

    generator: nn.Module
    discriminator: nn.Module

    def draw(self, count: int) -> Tensor:
        """Noise (count, Z) from torch's own generator."""
        ...

    def imagine(self, inputs: Mapping[str, Tensor], noise_BZ: Tensor) -> Tensor:
        """Images (B, C, H, W) of the classes in `inputs`."""
        ...

    def judge(self, images_BCHW: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """The discriminator's logits (B,)."""
        ...


class AdversarialStep(Update[AdversarialLoss]):
    """update(n) updates the discriminator, and in every loss.options.discriminator_steps-th update
    the generator too.

    The loss that is reported is the discriminator's, penalties included; "generator_loss" is
    reported beside it."""

    def _set_up(self) -> None:
        self.module = _adversarial(self.state.module, self.loss.penalised)
        options = self.loss.options
        self.rates = (
            options.discriminator_learning_rate_scale,
            options.generator_learning_rate_scale,
        )
        self.turn, self.penalty_every = options.discriminator_steps, options.penalty_every
        self.discriminator = [
            parameter
            for parameter in self.module.discriminator.parameters()
            if parameter.requires_grad
        ]
        # compiled like a module: torch.compile takes bound methods too
        compiled = self.placement.compiled
        self.imagine = compiled(cast("nn.Module", self.module.imagine))
        self.judge = compiled(cast("nn.Module", self.module.judge))

    def _perform(self, n: int) -> tuple[Number, Number]:
        rate, both = self.learning_rate * self.schedule(n), (n + 1) % self.turn == 0
        self.clear()
        pieces = self._rows_and_noise(n)
        count = float(sum(len(batch) for batch, _ in pieces))
        before = _Snapshot(self.discriminator, self.optimizer) if both else None
        total, images = self._discriminate(n, pieces, count, keep=both and len(pieces) == 1)
        self._raise_if_nonfinite(n, total)
        self._set_rate(rate * self.rates[0])
        self._apply_gradients()
        if before is not None:
            gradients = self._take_gradients(self.discriminator)
            generator_total = self._generate(pieces, images, count)
            try:
                self._raise_if_nonfinite(n, generator_total)
            except NonFiniteError:  # the discriminator has been updated already
                before.restore()
                raise
            self._set_rate(rate * self.rates[1])
            self._apply_gradients()
            # the reported length of the gradient is that of both sides
            for parameter, gradient in zip(self.discriminator, gradients):
                parameter.grad = gradient
            losses, rows = self.state.reported.get("generator_loss", (0.0, 0.0))
            self.state.reported["generator_loss"] = losses + generator_total, rows + count
        return total, count

    def _rows_and_noise(self, n: int) -> list[tuple[Batch, Tensor]]:
        """The rows of update n and noise for as many images, in micro batches."""
        rows = self.batches.indices(n)
        cuts = [rows] if self.micro_batch is None else self.batches.take_micro(n, self.micro_batch)
        noise_BZ = self.module.draw(len(rows))  # drawn for the whole batch, however it is cut
        batches = [
            self._augmented(self._as_shown(self.batches.rows.gather(cut), n), n) for cut in cuts
        ]
        return list(zip(batches, split(noise_BZ, [len(cut) for cut in cuts]), strict=True))

    def _share(self, count: float) -> Tensor:
        """1 / count, on the device."""
        share = formulas.mean_share(torch.tensor(count, dtype=torch.float64))
        return share.float().to(self.placement.device)

    def _discriminate(
        self, n: int, pieces: Sequence[tuple[Batch, Tensor]], count: float, *, keep: bool
    ) -> tuple[Number, Tensor | None]:
        """Gradients of the discriminator; (sum of its loss, the generated images of a batch in one
        piece with their graph, where `keep`)."""
        share = self._share(count)
        losses: Number = 0.0
        kept: Tensor | None = None
        for batch, noise_BZ in pieces:
            with torch.set_grad_enabled(keep), self._format():
                generated = self.imagine(batch.inputs, noise_BZ).float()
            kept = generated if keep else None
            real, fake = batch.inputs["image"], generated.detach()
            with self._format():
                logits = self.judge(real, batch.inputs), self.judge(fake, batch.inputs)
            total, _ = self.loss.discriminator(*logits)
            if self.loss.penalised and n % self.penalty_every == 0:
                # float32 and never compiled: it is differentiated twice
                judge = partial(self._judge, inputs=batch.inputs)
                total = total + self.loss.penalty(judge, real, fake)
            backward(total, share)
            losses = losses + self._number(total)
        return losses, kept

    def _judge(self, images: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        return self.module.judge(images, inputs)

    def _generate(
        self, pieces: Sequence[tuple[Batch, Tensor]], images: Tensor | None, count: float
    ) -> Number:
        """Gradients of the generator, against the discriminator as it was just updated; the sum of
        its loss."""
        share = self._share(count)
        losses: Number = 0.0
        for parameter in self.discriminator:
            parameter.requires_grad_(False)
        try:
            for batch, noise_BZ in pieces:
                with self._format():
                    generated = (
                        self.imagine(batch.inputs, noise_BZ).float() if images is None else images
                    )
                    logits_B = self.judge(generated, batch.inputs)
                total, _ = self.loss.generator(logits_B)
                backward(total, share)
                losses = losses + self._number(total)
        finally:
            for parameter in self.discriminator:
                parameter.requires_grad_(True)
        return losses

    def _format(self) -> contextlib.AbstractContextManager[object]:
        """The number format of a forward pass."""
        return contextlib.nullcontext() if self.autocast is None else self.autocast

    def _number(self, total: Tensor) -> Number:
        """A sum as it is added up: a plain number where reading it costs nothing."""
        return total.detach() if self.waits else total.item()

    @staticmethod
    def _take_gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
        """The gradients, which the parameters then no longer have."""
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        return gradients


class _Snapshot:
    """Copies of some parameters and of an optimizer's state of them."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        self.optimizer = optimizer
        self.weights = [(parameter, parameter.detach().clone()) for parameter in parameters]
        self.entries = {
            parameter: _copied(optimizer.state[parameter])
            for parameter in parameters
            if parameter in optimizer.state
        }

    def restore(self) -> None:
        """Put everything back, bit for bit."""
        with torch.no_grad():
            for parameter, weight in self.weights:
                parameter.copy_(weight)
                self.optimizer.state.pop(parameter, None)
                if parameter in self.entries:
                    self.optimizer.state[parameter] = self.entries[parameter]


def _copied(entries: Mapping[str, object]) -> dict[str, object]:
    return {
        name: value.clone() if isinstance(value, Tensor) else value
        for name, value in entries.items()
    }


def _adversarial(module: nn.Module, penalised: bool) -> AdversarialModule:
    """The module, checked. Raises PartError where it has no two sides, or cannot be penalised."""
    names = {*dict(module.named_children()), *dir(type(module))}
    needed = ("generator", "discriminator", "draw", "imagine", "judge")
    missing = [name for name in needed if name not in names]
    if missing:
        raise PartError(
            f"the model has no {missing[0]}, so it cannot be trained as a generator against a "
            "discriminator.",
            hint="choose model: gan",
        )
    pair = cast("AdversarialModule", module)
    batch_norm = nn.modules.batchnorm._BatchNorm  # pyright: ignore[reportPrivateUsage] - the base of all
    if penalised and any(isinstance(layer, batch_norm) for layer in pair.discriminator.modules()):
        raise PartError(
            "gradient penalties need a discriminator that judges each image by itself, and its "
            "batch normalisation mixes the images of a batch.",
            hint="set model.discriminator_normalization to spectral or none",
        )
    return pair
