"""Learning from a teacher: a loss that draws a student's answers, inner states and attention towards those of a larger model.

    loss = (1 - w) own loss + w soft loss + hidden + attention
    soft of classes      T^2 KL(softmax(teacher / T) || softmax(student / T))
    soft of labels       T^2 times the same of each yes or no
    soft of numbers      (student - teacher)^2 / 2

Each is a mean over what is asked, so places of padding teach nothing. What the teacher says of a
batch is computed with the batch, after its augmentations: a function of weights and batch alone, so
that a training that was cut off goes on to the same bytes.

Inner states are named in pairs, a layer of the teacher and one of the student. States of one shape
are compared as they are, in squares relative to the teacher's; of others, how alike each two rows
of the batch are (the matrix of cosines), which needs no layer between. Attention is compared by the
probabilities each place gives to the places it looks at, mean over the heads.

Sources: Hinton et al., 2015, arXiv:1503.02531 (logits); Romero et al., 2015, arXiv:1412.6550
(states); Tung and Mori, 2019, arXiv:1907.09682 (likeness of rows); Jiao et al., 2020,
arXiv:1909.10351 (attention); Beyer et al., 2022, arXiv:2106.05237 (the teacher sees what the
student sees). B rows, T places, S places looked at, H heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.attention.multi_head import Attention
from danlu.terms import IGNORED, Batch

Kinds = Sequence[tuple[str, int]]


class DistillationLoss:
    """loss(outputs, batch) -> (sum, count), of a student; `ask(batch)` gives the inputs that the
    teacher takes for it."""

    def __init__(
        self,
        loss: Any,
        teacher: nn.Module,
        ask: Callable[[Batch], Mapping[str, Tensor]],
        kinds: Kinds,
        *,
        temperature: float,
        weight: float,
        members: int = 1,
        pairs: Sequence[LayerPair] = (),
    ) -> None:
        self.loss, self.teacher, self.teacher_inputs = loss, teacher.eval(), ask
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
        """The divisor of the own loss."""
        return self.loss.count(batch)

    def __call__(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        total, count = self.loss(outputs, batch)
        with torch.no_grad():
            self.teacher.to(outputs.device)
            taught = self.teacher(dict(self.teacher_inputs(batch))).float()
        if self.members > 1:
            taught = taught.repeat_interleave(self.members, 0)
        if taught.shape != outputs.shape:
            raise ValueError(
                f"the teacher answers in {list(taught.shape)}, the student in {list(outputs.shape)}"
            )
        mean = self.weight * self._soft(outputs.float(), taught, batch.target)
        for pair in self.pairs:
            mean = mean + pair()
        share = count / count.numel()
        return (1 - self.weight) * total + mean * share, count

    def _soft(self, outputs: Tensor, taught: Tensor, target: Any) -> Tensor:
        """The mean of the soft losses over the places that are asked."""
        scored = _scored_places(outputs, target)
        pieces, teachers = (
            tensor.split([size for _, size in self.kinds], dim=-1) for tensor in (outputs, taught)
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


def _scored_places(outputs: Tensor, target: Any) -> Tensor | None:
    """float32, 1 where something is asked, in the shape of outputs without its last dimension;
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


class LayerPair:
    """What one layer of the teacher and one of the student did in the last pass, compared: a mean,
    with gradient to the student."""

    def __init__(self, teacher: nn.Module, student: nn.Module, weight: float) -> None:
        self.weight = weight
        self.teacher_value: Any = None
        self.student_value: Any = None
        self._listen(teacher, "teacher_value")
        self._listen(student, "student_value")

    def __call__(self) -> Tensor:
        return self.weight * self.compare(self.teacher_value, self.student_value)

    def compare(self, teacher: Any, student: Any) -> Tensor:
        """How far the student's is from the teacher's."""
        raise NotImplementedError

    def _listen(self, layer: nn.Module, name: str) -> None:
        raise NotImplementedError


class HiddenStatePair(LayerPair):
    """Outputs of two layers."""

    def _listen(self, layer: nn.Module, name: str) -> None:
        layer.register_forward_hook(lambda _, given, answer: setattr(self, name, answer))

    def compare(self, teacher: Tensor, student: Tensor) -> Tensor:
        teacher, student = teacher.detach().float(), student.float()
        if teacher.shape == student.shape:
            return (student - teacher).square().mean() / teacher.square().mean().clamp(min=1e-12)
        return (_cosines(student) - _cosines(teacher)).square().mean()


class AttentionPair(LayerPair):
    """The attention of two layers (danlu.layers.attention.multi_head.Attention) among the places of
    what they read."""

    def _listen(self, layer: nn.Module, name: str) -> None:
        def hear(layer: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            assert isinstance(layer, Attention)
            setattr(self, name, _probabilities(layer, inputs[0], keywords))

        layer.register_forward_pre_hook(hear, with_kwargs=True)

    def compare(self, teacher: Tensor, student: Tensor) -> Tensor:
        teacher = teacher.detach()
        return (teacher * ((teacher + 1e-9).log() - (student + 1e-9).log())).sum(-1).mean()


def _probabilities(layer: Attention, x_BTD: Tensor, named: Mapping[str, Any]) -> Tensor:
    """(B, T, T), mean over the heads."""
    scores_BHTT = layer.scores(x_BTD, named.get("angles")).float()
    if named.get("causal"):
        places = scores_BHTT.shape[-1]
        later = torch.ones(places, places, dtype=torch.bool, device=scores_BHTT.device).triu(1)
        scores_BHTT = scores_BHTT.masked_fill(later, -torch.inf)
    elif named.get("mask") is not None:
        scores_BHTT = scores_BHTT.masked_fill(~named["mask"], -torch.inf)
    return scores_BHTT.softmax(-1).mean(1)


def _cosines(x: Tensor) -> Tensor:
    """(B, B): how alike each two rows are."""
    rows = functional.normalize(x.flatten(1), dim=1)
    return rows @ rows.T
