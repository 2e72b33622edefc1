"""Everything needed to go on training, in memory: one owner, and a plain form (tensors and facts) that a checkpoint writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from danlu.errors import CheckpointError
from danlu.layers.tensors import unique_tensors


class TrainingState:
    """Model, optimizer, averages, the best weights so far, counters.

    `step` counts updates done. `loss_sum` and `loss_count` gather the training loss since the last
    report (numbers on the CPU, tensors elsewhere), `told` further sums and counts by name (a
    generator's loss). `best` holds copies of the released weights at the best evaluation. `skipped`
    are the updates left out after a NaN, and `failures` counts the NaNs."""

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
        self.best_scores: dict[str, Any] = {}
        self.loss_sum: Any = 0.0
        self.loss_count: Any = 0.0
        self.reported: dict[str, tuple[Any, Any]] = {}
        self.stopped = ""
        self.skipped: list[int] = []
        self.failures = 0
        self.watchers: dict[str, Any] = {}
        self.schedule: dict[str, Any] = {}

    @property
    def eval_weights(self) -> dict[str, Tensor]:
        """The weights that are evaluated: the average where there is one, else the live ones."""
        return self.ema if self.ema is not None else self.live

    def remember_best(self, score: float, scores: Mapping[str, Any]) -> None:
        """Keep the released weights of this step as the best."""
        self.best_score, self.best_step, self.best_scores = score, self.step, dict(scores)
        if self.keep_best:
            if self.best is None:
                self.best = {name: tensor.clone() for name, tensor in self.eval_weights.items()}
            else:
                for name, tensor in self.eval_weights.items():
                    self.best[name].copy_(tensor)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Make `weights` the live ones."""
        with torch.no_grad():
            for name, tensor in self.live.items():
                if tensor is not weights[name]:
                    tensor.copy_(weights[name])

    @contextmanager
    def swapped_weights(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """The module with other weights inside the `with`; the live ones are put back bit for
        bit."""
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
        """Every tensor by a dotted name: weights.*, ema.*, best.*, optimizer.<parameter
        number>.<entry>. No copies are made."""
        result = {f"weights.{name}": tensor for name, tensor in self.live.items()}
        for group, weights in (("ema", self.ema), ("best", self.best)):
            result |= {f"{group}.{name}": tensor for name, tensor in (weights or {}).items()}
        for number, entries in self.optimizer.state_dict()["state"].items():
            result |= {
                f"optimizer.{number}.{name}": value
                for name, value in entries.items()
                if isinstance(value, Tensor)
            }
        return result

    def facts(self) -> dict[str, Any]:
        """Everything that is no tensor, as JSON values (a double survives JSON exactly)."""
        numbers = {
            str(number): {
                name: value for name, value in entries.items() if not isinstance(value, Tensor)
            }
            # in the order of the parameters, not of their first move, which a resumed run does not
            # know
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

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds. Raises CheckpointError where it is of another
        model."""
        self._copy("weights", self.live, tensors)
        if self.ema is not None:
            self._copy("ema", self.ema, tensors)
        best = {
            name.removeprefix("best."): tensor
            for name, tensor in tensors.items()
            if name.startswith("best.")
        }
        self.best = None
        if best and self.keep_best:
            self.best = {name: tensor.clone() for name, tensor in self.live.items()}
            self._copy("best", self.best, tensors)
        entries: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, number, entry = name.split(".", 2)
                entries.setdefault(int(number), {})[entry] = tensor.clone()
        for number, values in facts["optimizer"].items():
            entries.setdefault(int(number), {}).update(values)
        # in the order of the parameters: the file hands its tensors out in any
        entries = dict(sorted(entries.items()))
        self.optimizer.load_state_dict(
            {"state": entries, "param_groups": self.optimizer.state_dict()["param_groups"]}
        )
        for name in (
            "step",
            "best_step",
            "best_score",
            "best_scores",
            "loss_sum",
            "loss_count",
            "stopped",
            "watchers",
            "schedule",
        ):
            setattr(self, name, facts[name])
        self.failures = facts["failures"]
        self.skipped = list(facts["skipped"])
        self.reported = {
            name: (total, count) for name, (total, count) in facts.get("told", {}).items()
        }

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
