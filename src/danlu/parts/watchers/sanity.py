"""Warn of signs of a broken training: no trainable weight, zero gradients, an odd first loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from danlu.parts.watchers._base import RunInfo, SpeakingWatcher
from danlu.recipe import Options
from danlu.terms import TrainingEvent

_FIRST_LOSS_RATIO = 3.0


class Config(Options):
    """When to warn."""

    reports: int = Field(
        5,
        ge=2,
        description="Reports in a row with an unchanged loss after which it counts as constant.",
    )


class Sanity(SpeakingWatcher):
    """Gives each warning once per run, resumed or not."""

    def __init__(self, config: Config, run: RunInfo) -> None:
        self.config = config
        self.run = run
        super().__init__()
        self.spoken: list[str] = []
        self.losses: list[float] = []
        self.train_loss: float | None = None
        self.best_validation: float | None = None

    def _say(self, key: str, message: str) -> None:
        if key not in self.spoken:
            self.spoken.append(key)
            self.notices.append(message)

    def hear(self, report: TrainingEvent) -> None:
        values = report.values
        if report.kind == "start" and self.run.trainable == 0:
            self._say(
                "frozen",
                "nothing is trainable: the model has no parameter that takes a gradient, so no "
                "step changes it.",
            )
        if report.kind == "first_loss":
            self._first_loss(values["loss"], values["uninformed_loss"])
        if report.kind == "train":
            self._train(values)
        if report.kind == "validation":
            self._validation(values)

    def _first_loss(self, loss: float, uninformed: float) -> None:
        if loss > _FIRST_LOSS_RATIO * uninformed > 0:
            self._say(
                "first_loss",
                f"the loss of the first batch is {loss:.4g}; outputs that are all 0, which know "
                f"nothing, would have {uninformed:.4g}: the weights start too large, and the first "
                "steps only undo that.",
            )

    def _train(self, values: Any) -> None:
        if values.get("learning_rate") == 0:
            self._say(
                "rate",
                "the learning rate is 0, so these steps change nothing; look at "
                "optimizer.learning_rate and schedule.",
            )
        if values.get("grad_norm") == 0:
            self._say(
                "gradient",
                "every gradient is exactly 0: the loss does not depend on the weights (dead "
                "activations, a saturated output, or "
                "inputs that are all 0); lower the learning rate or look at the inputs.",
            )
        loss = values.get("loss")
        if isinstance(loss, float):
            self.train_loss = loss
            self.losses = [*self.losses, loss][-self.config.reports :]
            # the order of a full batch's rows changes the last bits of a constant loss
            still = max(self.losses) - min(self.losses) <= 1e-6 * abs(loss)
            if len(self.losses) == self.config.reports and still and loss != 0:
                self._say(
                    "constant",
                    f"the training loss has been {loss:.6g} for {self.config.reports} reports: "
                    "the model does not learn.",
                )

    def _validation(self, values: Any) -> None:
        loss = values.get("loss")
        if "loss" in values and loss is None:
            self._say(
                "overflow",
                "the validation loss is NaN or infinite: the model's outputs on these rows "
                "overflow; scores that are not finite are left out.",
            )
        if not isinstance(loss, float) or self.train_loss is None:
            return
        if self.best_validation is None or loss < self.best_validation:
            self.best_validation = loss
        if (
            loss > 1.5 * self.best_validation
            and self.train_loss < self.best_validation / 3
            and loss > 0.1
        ):
            self._say(
                "gap",
                f"the training loss ({self.train_loss:.4g}) is far below validation "
                f"({loss:.4g}), which was {self.best_validation:.4g} "
                "at its best: the model overfits its training rows; add regularization "
                "(dropout, weight_decay, early_stopping) or data.",
            )

    def state(self) -> dict[str, object]:
        return {
            "said": self.spoken,
            "losses": self.losses,
            "train_loss": self.train_loss,
            "best_validation": self.best_validation,
        }

    def load(self, state: Mapping[str, Any] | None) -> None:
        if state:
            self.spoken, self.losses = list(state["said"]), list(state["losses"])
            self.train_loss, self.best_validation = state["train_loss"], state["best_validation"]


def build(config: Config, run: RunInfo) -> Sanity:
    """A watcher that warns, and never stops training."""
    return Sanity(config, run)
