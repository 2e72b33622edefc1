"""Everything that a training needs to go on, in memory, and the tensors and facts of it that a
checkpoint holds."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import NotRequired, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from danlu.errors import CheckpointError
from danlu.layers.tensors import unique_tensors

Number = float | Tensor  # a number on the CPU; where reading it would wait for the device, a tensor


class StateFacts(TypedDict):
    """What of a TrainingState is no tensor, as JSON values (a double survives JSON exactly).

    `told` holds `TrainingState.reported`, `optimizer` the optimizer's numbers by the number of the
    parameter; checkpoints written before `told` existed have none."""

    step: int
    best_step: int
    best_score: float | None
    best_scores: dict[str, object]
    loss_sum: float
    loss_count: float
    told: NotRequired[dict[str, list[float]]]
    stopped: str
    skipped: list[int]
    failures: int
    watchers: dict[str, object]
    schedule: dict[str, object]
    optimizer: dict[str, dict[str, object]]


class TrainingState:
    """Model, optimizer, weight average, the best weights so far, and counters.

    live         the module's own tensors (weights, buffers) by name
    ema          their average, None where the recipe asks for none
    best         copies of the evaluated weights at the best evaluation, None before it
    step         updates done
    loss_sum     the training loss since the last report, with `loss_count`
    reported     further (sum, count) pairs by name, such as a generator's loss
    stopped      why the training ends early, "" while it goes on
    skipped      updates left out after a NaN; `failures` counts the NaNs
    """

    def __init__(
        self, module: nn.Module, optimizer: Optimizer, *, ema: bool, keep_best: bool
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.live = unique_tensors(module)
        self.ema = {name: tensor.clone() for name, tensor in self.live.items()} if ema else None
        self.best: dict[str, Tensor] | None = None
        self.keep_best = keep_best
        self.step = 0
        self.best_step = -1
        self.best_score: float | None = None
        self.best_scores: dict[str, object] = {}
        self.loss_sum: Number = 0.0
        self.loss_count: Number = 0.0
        self.reported: dict[str, tuple[Number, Number]] = {}
        self.stopped = ""
        self.skipped: list[int] = []
        self.failures = 0
        self.watchers: dict[str, object] = {}
        self.schedule: dict[str, object] = {}

    @property
    def eval_weights(self) -> dict[str, Tensor]:
        """The weights that are evaluated: the average where there is one, else the live ones."""
        return self.ema if self.ema is not None else self.live

    def remember_best(self, score: float, scores: Mapping[str, object]) -> None:
        """Keep the evaluated weights of this step as the best ones."""
        self.best_score, self.best_step, self.best_scores = score, self.step, dict(scores)
        if self.keep_best:
            if self.best is None:
                self.best = {name: tensor.clone() for name, tensor in self.eval_weights.items()}
            else:
                for name, tensor in self.eval_weights.items():
                    self.best[name].copy_(tensor)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Copy `weights` into the module."""
        with torch.no_grad():
            for name, tensor in self.live.items():
                if tensor is not weights[name]:
                    tensor.copy_(weights[name])

    @contextmanager
    def swapped_weights(self, weights: Mapping[str, Tensor]) -> Generator[None]:
        """Inside the `with` the module has `weights`; afterwards its own again, bit for bit."""
        if weights is self.live:
            yield
            return
        live = {name: tensor.clone() for name, tensor in self.live.items()}
        self.load(weights)
        try:
            yield
        finally:
            self.load(live)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by a dotted name, without copies: weights.*, ema.*, best.*,
        optimizer.<parameter number>.<entry>."""
        tensors = {f"weights.{name}": tensor for name, tensor in self.live.items()}
        for group, weights in (("ema", self.ema), ("best", self.best)):
            tensors |= {f"{group}.{name}": tensor for name, tensor in (weights or {}).items()}
        for number, entries in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{number}.{name}": value
                for name, value in entries.items()
                if isinstance(value, Tensor)
            }
        return tensors

    def facts(self) -> StateFacts:
        """Everything that is no tensor."""
        numbers = {
            str(number): {
                name: value for name, value in entries.items() if not isinstance(value, Tensor)
            }
            # in the order of the parameters, not of their first update, which a resumed run does
            # not know
            for number, entries in sorted(self.optimizer.state_dict()["state"].items())
        }
        return {
            "step": self.step,
            "best_step": self.best_step,
            "best_score": self.best_score,
            "best_scores": self.best_scores,
            "loss_sum": float(self.loss_sum),
            "loss_count": float(self.loss_count),
            "told": {
                name: [float(total), float(count)] for name, (total, count) in self.reported.items()
            },
            "stopped": self.stopped,
            "skipped": self.skipped,
            "failures": self.failures,
            "watchers": self.watchers,
            "schedule": self.schedule,
            "optimizer": numbers,
        }

    def restore(self, tensors: Mapping[str, Tensor], facts: StateFacts) -> None:
        """Take over what a checkpoint holds. Raises CheckpointError where it is of another
        model."""
        self._copy("weights", self.live, tensors)
        if self.ema is not None:
            self._copy("ema", self.ema, tensors)
        self.best = None
        if self.keep_best and any(name.startswith("best.") for name in tensors):
            self.best = {name: tensor.clone() for name, tensor in self.live.items()}
            self._copy("best", self.best, tensors)
        self._restore_optimizer(tensors, facts["optimizer"])
        self.step = facts["step"]
        self.best_step = facts["best_step"]
        self.best_score = facts["best_score"]
        self.best_scores = facts["best_scores"]
        self.loss_sum = facts["loss_sum"]
        self.loss_count = facts["loss_count"]
        self.reported = {name: (total, n) for name, (total, n) in facts.get("told", {}).items()}
        self.stopped = facts["stopped"]
        self.skipped = list(facts["skipped"])
        self.failures = facts["failures"]
        self.watchers = facts["watchers"]
        self.schedule = facts["schedule"]

    def _restore_optimizer(
        self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Mapping[str, object]]
    ) -> None:
        entries: dict[int, dict[str, object]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, number, entry = name.split(".", 2)
                entries.setdefault(int(number), {})[entry] = tensor.clone()
        for number, values in numbers.items():
            entries.setdefault(int(number), {}).update(values)
        # in the order of the parameters: the file returns its tensors in any order
        entries = dict(sorted(entries.items()))
        self.optimizer.load_state_dict(
            {"state": entries, "param_groups": self.optimizer.state_dict()["param_groups"]}
        )

    @staticmethod
    def _copy(group: str, into: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in into.items():
            stored = tensors.get(f"{group}.{name}")
            if stored is None or stored.shape != tensor.shape or stored.dtype != tensor.dtype:
                difference = (
                    "is not in it"
                    if stored is None
                    else f"has shape {list(stored.shape)}, not {list(tensor.shape)}"
                )
                raise CheckpointError(
                    f"the checkpoint is of another model: {group}.{name} {difference}."
                )
            with torch.no_grad():
                tensor.copy_(stored)
