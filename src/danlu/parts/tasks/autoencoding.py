"""Autoencoding: rows reconstructed from a few numbers; a large error means an unusual row.

There is no target column. The answer to a row is its reconstruction error (the mean squared
difference, on the scale the model sees, where every feature or channel has deviation 1 over the
training rows), an anomaly score, and its code. With `noise` the model sees a row with noise on it
and reconstructs it without (denoising), which keeps a large code from copying.
Sources: Hinton and Salakhutdinov, 2006; Vincent et al., 2008, doi.org/10.1145/1390156.1390294
(denoising)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from pydantic import Field

from danlu.data.examples import Examples
from danlu.errors import DataError
from danlu.parts.tasks._base import (
    Answer,
    AnswersFromArrays,
    CutsExamples,
    HidesInputs,
    PreparedInputs,
    Responds,
    ScoreOrder,
    Task,
)
from danlu.recipe import Options
from danlu.terms import Batch, Column, InputSpec, OutputSpec, Table

if TYPE_CHECKING:
    from torch import Tensor, nn

ASKS = "pixels"
TARGETS = (0, 0)
DEFAULTS = {"model": "autoencoder", "loss": "mse", "metrics": ["reconstruction_error"]}
_BLOCK = 1024  # rows compared with the mean at once


class Config(Options):
    """The noise that the model sees on a row."""

    noise: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Standard deviation of the noise on the model's input, in deviations of the "
        "training rows.",
    )


@runtime_checkable
class EncodesRows(Protocol):
    """A model that gives the code between its encoder and its decoder."""

    def encode(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The codes (B, K) of prepared inputs."""
        ...


class Autoencoding(CutsExamples, HidesInputs, Responds, AnswersFromArrays, Task):
    """The input that is reconstructed."""

    score_order: ScoreOrder = ("loss", "lower")
    target_names: tuple[str, ...] = ()

    def __init__(self, noise: float, name: str = "", spec: InputSpec | None = None) -> None:
        self.noise = noise
        self._set_input(name, spec)  # known once there are rows

    def _set_input(self, name: str, spec: InputSpec | None) -> None:
        """The output of the model is this input."""
        self.input_name, self.input_spec = name, spec
        if spec is None:
            self.output = OutputSpec(0)
            return
        image = spec.kind == "image"
        self.output = OutputSpec(
            int(np.prod(spec.shape)),
            spec.names,
            "image" if image else "row",
            shape=spec.shape if image else (),
        )

    def state(self) -> dict[str, object]:
        """The JSON values from which `restore` makes the task."""
        assert self.input_spec is not None
        spec = self.input_spec
        return {
            "name": self.input_name,
            "kind": spec.kind,
            "shape": list(spec.shape),
            "names": list(spec.names),
            "mean": list(spec.mean),
            "std": list(spec.std),
        }

    def make_examples(
        self,
        arrays: PreparedInputs,
        specs: Mapping[str, InputSpec],
        targets: Mapping[str, Column],
        splits: dict[str, np.ndarray],
        table: Table,
        answering: bool = False,
    ) -> Examples:
        """The rows themselves; `corrupt` makes the target of the input."""
        if set(arrays) not in ({"numbers"}, {"image"}):
            raise DataError(
                "autoencoding takes numbers or one image, and the columns give "
                f"{' and '.join(arrays)}.",
                where=table.origin,
                hint="set use: false for the columns of one of them under data.columns",
            )
        ((name, spec),) = specs.items()
        self._set_input(name, spec)
        return Examples(dict(arrays), dict(specs), None, splits)

    def corrupt(self, batch: Batch, seed: int) -> Batch:
        """The batch with its own input as the target, and with noise on the input where the task
        says so: a function of seed and row."""
        clean = batch.inputs[self.input_name]
        if not self.noise:
            return Batch(batch.inputs, clean, batch.rows)
        import torch

        from danlu.system.random_draws import counter_normal

        indices = torch.arange(clean[0].numel(), device=clean.device)
        noise = counter_normal(seed, batch.rows[:, None], indices).reshape(clean.shape)
        return Batch(
            {**batch.inputs, self.input_name: clean + self.noise * noise}, clean, batch.rows
        )

    def respond(self, module: nn.Module, batch: Batch) -> list[Answer]:
        """{"prediction": reconstruction error, "code": [numbers]} per row, without noise."""
        clean = batch.inputs[self.input_name]
        finished = self.finish(module, {self.input_name: clean}, module(batch.inputs))
        return self.answers_from_arrays(
            {name: tensor.cpu().numpy() for name, tensor in finished.items()}, {}
        )

    keeps_rows = True

    def finish(
        self, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Tensor
    ) -> dict[str, Tensor]:
        """{"error": float64 (N,)}, and {"code": float32 (N, K)} where the network has one."""
        finished = {"error": reconstruction_errors(outputs, inputs[self.input_name])}
        return (
            {**finished, "code": module.encode(inputs).float()}
            if isinstance(module, EncodesRows)
            else finished
        )

    def answers_from_arrays(
        self, arrays: Mapping[str, np.ndarray], beside: Mapping[str, np.ndarray]
    ) -> list[Answer]:
        """The answers, as `respond` gives them, from the arrays of `finish`."""
        answers: list[Answer] = [{"prediction": error} for error in arrays["error"].tolist()]
        for answer, code in zip(
            answers, arrays["code"].tolist() if "code" in arrays else [], strict=False
        ):
            answer["code"] = code
        return answers

    def baseline(self, examples: Examples, split: str) -> dict[str, float]:
        """The error of always answering the mean of the training rows."""
        rows = examples.inputs[self.input_name]
        assert isinstance(rows, np.ndarray) and self.input_spec is not None
        train, scored = examples.splits["train"], examples.splits[split]
        scale = (
            255 * np.asarray(self.input_spec.std) if self.input_spec.kind == "image" else np.ones(1)
        )
        mean = sum(rows[block].sum(axis=0, dtype=np.float64) for block in _blocks(train)) / max(
            len(train), 1
        )
        squares = sum(
            float(np.square((rows[block] - mean) / scale).sum()) for block in _blocks(scored)
        )
        return {"reconstruction_error": squares / max(rows[:1].size * len(scored), 1)}

    def describe(self) -> str:
        """'autoencoding of 28x28 images' or 'autoencoding of 8 numbers'."""
        shape = self.input_spec.shape if self.input_spec is not None else (0,)
        what = f"{shape[1]}x{shape[2]} images" if len(shape) == 3 else f"{shape[0]} numbers"
        return (
            f"autoencoding of {what}{f', seen with noise of {self.noise:g}' if self.noise else ''}"
        )


def _blocks(rows: np.ndarray) -> list[np.ndarray]:
    return np.array_split(rows, range(_BLOCK, len(rows), _BLOCK))


def reconstruction_errors(outputs: Tensor, target: Tensor) -> Tensor:
    """The mean squared difference of each row, float64 (N,), of tensors of one shape (N, ...)."""
    return (outputs.double() - target.double()).square().flatten(1).mean(dim=1)


def build(config: Config, targets: Mapping[str, Column]) -> Autoencoding:
    """The task."""
    return Autoencoding(config.noise)


def restore(config: Config, state: Mapping[str, Any]) -> Autoencoding:
    """The task whose `state()` this is."""
    names, scale = tuple(state["names"]), (tuple(state["mean"]), tuple(state["std"]))
    spec = InputSpec(state["kind"], tuple(state["shape"]), names, (), *scale)
    return Autoencoding(config.noise, state["name"], spec)
