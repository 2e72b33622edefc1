"""A generator against a discriminator: both sides move in one update, or neither.

What it asks of the module (danlu.parts.models._gan.AdversarialPair): `generator` and
`discriminator`, which hold the weights of each side; `draw(count)`, noise from torch's own
generator; `imagine(inputs, noise)`, images; `judge(images, inputs)`, logits. Of the loss
(danlu/parts/losses/adversarial.py): `discriminator`, `generator`, `penalty`, `penalised` and its
`options`.

One optimizer serves both sides: while one moves, the gradients of the other are None, and its
weights, momenta and counters stay."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from danlu.errors import PartError
from danlu.terms import Batch
from danlu.training.step.finite_check import NonFiniteError
from danlu.training.step.gradients import backward
from danlu.training.step.update import Update


class AdversarialStep(Update):
    """update(n) moves the discriminator, and the generator in every
    loss.options.discriminator_steps-th update.

    What is reported as the loss is the discriminator's, penalties included; the generator's is told
    beside it."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        module: Any = self.state.module
        self.module, options = module, self.loss.options
        _check_pair(module, self.loss.penalised)
        self.rates = (
            options.discriminator_learning_rate_scale,
            options.generator_learning_rate_scale,
        )
        self.turn, self.penalty_every = options.discriminator_steps, options.penalty_every
        self.discriminator = [
            parameter for parameter in module.discriminator.parameters() if parameter.requires_grad
        ]
        self.generator_weights = [
            parameter for parameter in module.generator.parameters() if parameter.requires_grad
        ]
        self.imagine, self.judge = (
            self.placement.compiled(module.imagine),
            self.placement.compiled(module.judge),
        )

    def _perform(self, n: int) -> tuple[Any, Any]:
        rate, moves = self.learning_rate * self.schedule(n), (n + 1) % self.turn == 0
        self.clear()
        pieces = self._rows_and_noise(n)
        count = float(sum(len(batch) for batch, _ in pieces))
        kept = _Snapshot(self.discriminator, self.optimizer) if moves else None
        total, fakes = self._discriminate(n, pieces, count, keep=moves and len(pieces) == 1)
        self._raise_if_nonfinite(n, total)
        self._set_rate(rate * self.rates[0])
        self._apply_gradients()
        if kept is not None:
            gradients = self._take_gradients(self.discriminator)
            generator_total = self._generate(pieces, fakes, count)
            try:
                self._raise_if_nonfinite(n, generator_total)
            except NonFiniteError:  # the discriminator has moved already
                kept.restore()
                raise
            self._set_rate(rate * self.rates[1])
            self._apply_gradients()
            for parameter, gradient in zip(
                self.discriminator, gradients
            ):  # the report tells the length of both sides' gradient
                parameter.grad = gradient
            before, rows = self.state.reported.get("generator_loss", (0.0, 0.0))
            self.state.reported["generator_loss"] = before + generator_total, rows + count
        return total, count

    def _rows_and_noise(self, n: int) -> list[tuple[Batch, Tensor]]:
        """The rows of update n and noise for as many images, in micro batches."""
        rows = self.batches.indices(n)
        cuts = [rows] if self.micro_batch is None else self.batches.take_micro(n, self.micro_batch)
        noise_BZ = self.module.draw(len(rows))  # drawn for the whole batch, however it is cut
        batches = [
            self._augmented(self._as_shown(self.batches.rows.gather(cut), n), n) for cut in cuts
        ]
        return list(zip(batches, noise_BZ.split([len(cut) for cut in cuts]), strict=True))

    def _discriminate(
        self, n: int, pieces: Sequence[tuple[Batch, Tensor]], count: float, *, keep: bool
    ) -> tuple[Any, Tensor | None]:
        """Gradients of the discriminator; (sum of its loss, the images of a batch in one piece with
        their graph, where `keep`)."""
        share, whole, fakes = torch.tensor(1 / count, device=self.placement.device), 0.0, None
        for batch, noise_BZ in pieces:
            with torch.set_grad_enabled(keep), self._format():
                made = self.imagine(batch.inputs, noise_BZ).float()
            fakes = made if keep else None
            real, fake = batch.inputs["image"], made.detach()
            with self._format():
                judged = self.judge(real, batch.inputs), self.judge(fake, batch.inputs)
            total, _ = self.loss.discriminator(*judged)
            if self.loss.penalised and n % self.penalty_every == 0:
                # float32 and never compiled: it is differentiated twice
                total = total + self.loss.penalty(
                    lambda images, inputs=batch.inputs: self._judge(images, inputs), real, fake
                )
            backward(total, share)
            whole = whole + self._number(total)
        return whole, fakes

    def _judge(self, images: Tensor, inputs: dict[str, Tensor]) -> Tensor:
        return self.module.judge(images, inputs)

    def _generate(
        self, pieces: Sequence[tuple[Batch, Tensor]], fakes: Tensor | None, count: float
    ) -> Any:
        """Gradients of the generator, against the discriminator that has just moved; the sum of its
        loss."""
        share, whole = torch.tensor(1 / count, device=self.placement.device), 0.0
        for parameter in self.discriminator:
            parameter.requires_grad_(False)
        try:
            for batch, noise_BZ in pieces:
                with self._format():
                    images = (
                        self.imagine(batch.inputs, noise_BZ).float() if fakes is None else fakes
                    )
                    logits_B = self.judge(images, batch.inputs)
                total, _ = self.loss.generator(logits_B)
                backward(total, share)
                whole = whole + self._number(total)
        finally:
            for parameter in self.discriminator:
                parameter.requires_grad_(True)
        return whole

    def _format(self) -> contextlib.AbstractContextManager[Any]:
        """The number format of a forward pass."""
        return contextlib.nullcontext() if self.autocast is None else self.autocast

    def _number(self, total: Tensor) -> Any:
        """A sum as it is gathered: a plain number where reading it costs nothing."""
        return total.detach() if self.waits else total.item()

    @staticmethod
    def _take_gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        return gradients


class _Snapshot:
    """Copies of some parameters and of what an optimizer knows of them."""

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
        """As it was, bit for bit."""
        with torch.no_grad():
            for parameter, before in self.weights:
                parameter.copy_(before)
                self.optimizer.state.pop(parameter, None)
                if parameter in self.entries:
                    self.optimizer.state[parameter] = self.entries[parameter]


def _copied(entries: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.clone() if isinstance(value, Tensor) else value
        for name, value in entries.items()
    }


def _check_pair(module: Any, penalised: bool) -> None:
    missing = [
        name
        for name in ("generator", "discriminator", "draw", "imagine", "judge")
        if not hasattr(module, name)
    ]
    if missing:
        raise PartError(
            f"the model has no {missing[0]}, so it cannot be trained against itself.",
            hint="choose model: gan",
        )
    batch_norm = nn.modules.batchnorm._BatchNorm
    if penalised and any(isinstance(layer, batch_norm) for layer in module.discriminator.modules()):
        raise PartError(
            "gradient penalties look at each image alone, and batch normalisation in the discriminator mixes them.",
            hint="set model.discriminator_normalization to spectral or none",
        )
