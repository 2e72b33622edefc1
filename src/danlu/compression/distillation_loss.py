"""The loss of knowledge distillation.

It compares a student's outputs, hidden states and attention with those of a larger model.

    loss = (1 - w) own loss + w soft loss + hidden + attention
    soft of classes      T^2 KL(softmax(teacher / T) || softmax(student / T))
    soft of labels       T^2 times the same of each label's yes and no
    soft of numbers      (student - teacher)^2 / 2

Each is a mean over the positions that have a target, so padding has no effect. The teacher's
outputs are computed with each batch, after its augmentations: a function of weights and batch
alone, so that a resumed training ends in the same bytes.

Hidden states are named in pairs, a layer of the teacher and a layer of the student. States of one
shape are compared by their squared difference relative to the teacher's squares; states of
different shapes by the cosine similarities of all pairs of rows, which needs no layer between.
Attention is compared by the probabilities with which each position attends to the others, averaged
over heads.

Sources: Hinton et al., 2015, arXiv:1503.02531 (logits); Romero et al., 2015, arXiv:1412.6550
(states); Tung and Mori, 2019, arXiv:1907.09682 (similarities of rows); Jiao et al., 2020,
arXiv:1909.10351 (attention); Beyer et al., 2022, arXiv:2106.05237 (the teacher sees what the
student sees). B rows, T positions, H heads."""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.attention.multi_head import Attention
from danlu.parts.losses._base import Loss
from danlu.terms import IGNORED, Batch

Kinds = Sequence[tuple[str, int]]


class DistillationLoss(Loss):
    """The loss of a student: (1 - weight) of `loss` and `weight` of the teacher, and its pairs.

    loss             the student's own loss
    teacher_inputs   teacher_inputs(batch): the teacher's inputs for a batch
    kinds            (kind of soft loss, number of output columns) of each part of the output
    temperature      what logits are divided by
    members          how many networks the student trains side by side
    pairs            layers that are compared too
    """

    def __init__(
        self,
        loss: Loss,
        teacher: nn.Module,
        teacher_inputs: Callable[[Batch], Mapping[str, Tensor]],
        kinds: Kinds,
        *,
        temperature: float,
        weight: float,
        members: int = 1,
        pairs: Sequence[LayerPair] = (),
    ) -> None:
        self.loss, self.teacher, self.teacher_inputs = loss, teacher.eval(), teacher_inputs
        self.kinds, self.temperature, self.weight, self.members = (
            kinds,
            temperature,
            weight,
            members,
        )
        self.pairs = pairs
        for parameter in teacher.parameters():
            parameter.requires_grad_(False)

    def count(self, batch: Batch) -> Tensor:
        """The divisor of the student's own loss."""
        return self.loss.count(batch)

    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        total, count = self.loss(outputs, batch)
        with torch.no_grad():
            self.teacher.to(outputs.device)
            teacher_outputs = self.teacher(dict(self.teacher_inputs(batch))).float()
        if self.members > 1:
            teacher_outputs = teacher_outputs.repeat_interleave(self.members, 0)
        if teacher_outputs.shape != outputs.shape:
            raise ValueError(
                f"the teacher's outputs have shape {list(teacher_outputs.shape)}, the student's "
                f"{list(outputs.shape)}"
            )
        mean = self.weight * self._soft(outputs.float(), teacher_outputs, batch.target)
        for pair in self.pairs:
            mean = mean + pair()
        share = count / count.numel()
        return (1 - self.weight) * total + mean * share, count

    def _soft(self, outputs: Tensor, teacher_outputs: Tensor, target: object) -> Tensor:
        """The mean of the soft losses over the positions that have a target."""
        scored = _has_target(outputs, target)
        pieces, teachers = (
            tensor.split([size for _, size in self.kinds], dim=-1)
            for tensor in (outputs, teacher_outputs)
        )
        losses = [
            _SOFT[kind](piece, teacher_piece, self.temperature)
            for (kind, _), piece, teacher_piece in zip(self.kinds, pieces, teachers)
        ]
        by_place = torch.stack(losses).sum(0)
        return (
            by_place.mean()
            if scored is None
            else (by_place * scored).sum() / scored.sum().clamp(min=1)
        )


def _has_target(outputs: Tensor, target: object) -> Tensor | None:
    """float32, 1 where a position has a target, in the shape of outputs without its last dimension;
    None: everywhere."""
    if (
        isinstance(target, Tensor)
        and not target.is_floating_point()
        and target.shape == outputs.shape[:-1]
        and outputs.ndim > 2
    ):
        return (target != IGNORED).float()
    if isinstance(target, Tensor) and target.is_floating_point() and target.shape == outputs.shape:
        return (~target.isnan()).float().mean(-1)
    return None


def _classes(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    teacher_log = functional.log_softmax(teacher / temperature, -1)
    student_log = functional.log_softmax(student / temperature, -1)
    return (teacher_log.exp() * (teacher_log - student_log)).sum(-1) * temperature**2


def _labels(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    teacher_yes, teacher_no = (
        functional.logsigmoid(sign * teacher / temperature) for sign in (1, -1)
    )
    student_yes, student_no = (
        functional.logsigmoid(sign * student / temperature) for sign in (1, -1)
    )
    return (
        teacher_yes.exp() * (teacher_yes - student_yes)
        + teacher_no.exp() * (teacher_no - student_no)
    ).sum(-1) * temperature**2


def _numbers(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    return (student - teacher).square().mean(-1) / 2


_SOFT = {"classes": _classes, "labels": _labels, "numbers": _numbers}


class LayerPair(ABC):
    """A layer of the teacher and a layer of the student; calling it compares what they did in the
    last forward pass: a mean, with gradient to the student."""

    def __init__(self, teacher: nn.Module, student: nn.Module, weight: float) -> None:
        self.weight = weight
        self.values: dict[str, Tensor] = {}
        self._record(teacher, "teacher")
        self._record(student, "student")

    def __call__(self) -> Tensor:
        return self.weight * self.compare(self.values["teacher"], self.values["student"])

    @abstractmethod
    def compare(self, teacher: Tensor, student: Tensor) -> Tensor:
        """How far the student's value is from the teacher's, ()."""

    @abstractmethod
    def _record(self, layer: nn.Module, side: str) -> None:
        """Have every forward pass of the layer set `values[side]`."""


class HiddenStatePair(LayerPair):
    """The outputs of two layers."""

    def _record(self, layer: nn.Module, side: str) -> None:
        def keep(layer: nn.Module, inputs: object, output: Tensor) -> None:
            self.values[side] = output

        layer.register_forward_hook(keep)

    def compare(self, teacher: Tensor, student: Tensor) -> Tensor:
        teacher, student = teacher.detach().float(), student.float()
        if teacher.shape == student.shape:
            return (student - teacher).square().mean() / teacher.square().mean().clamp(min=1e-12)
        return (_cosines(student) - _cosines(teacher)).square().mean()


class AttentionPair(LayerPair):
    """The self-attention probabilities of two layers
    (danlu.layers.attention.multi_head.Attention)."""

    def _record(self, layer: nn.Module, side: str) -> None:
        def keep(layer: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            assert isinstance(layer, Attention)
            self.values[side] = _probabilities(layer, inputs[0], keywords)

        layer.register_forward_pre_hook(keep, with_kwargs=True)

    def compare(self, teacher: Tensor, student: Tensor) -> Tensor:
        teacher = teacher.detach()
        return (teacher * ((teacher + 1e-9).log() - (student + 1e-9).log())).sum(-1).mean()


def _probabilities(layer: Attention, x_BTD: Tensor, keywords: Mapping[str, Any]) -> Tensor:
    """(B, T, T), mean over the heads."""
    scores_BHTT = layer.scores(x_BTD, keywords.get("angles")).float()
    if keywords.get("causal"):
        places = scores_BHTT.shape[-1]
        later = torch.ones(places, places, dtype=torch.bool, device=scores_BHTT.device).triu(1)
        scores_BHTT = scores_BHTT.masked_fill(later, -torch.inf)
    elif keywords.get("mask") is not None:
        scores_BHTT = scores_BHTT.masked_fill(~keywords["mask"], -torch.inf)
    return scores_BHTT.softmax(-1).mean(1)


def _cosines(x: Tensor) -> Tensor:
    """(B, B): the cosine similarity of all pairs of rows."""
    rows = functional.normalize(x.flatten(1), dim=1)
    return rows @ rows.T
