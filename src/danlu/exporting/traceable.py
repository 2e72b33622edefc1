"""An artifact as one module of tensors: prepared inputs in an order to finished answers in an order, for exporters to trace.

    prepared inputs     what danlu.data.preprocessing (and a task's own frame) gives, images still as bytes
    finished answers    what the task's `finish` makes of the network's outputs: probabilities, numbers in units of the data

The module is in evaluation mode, on the CPU, in float32; test-time augmentation and the scale of
images are inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.artifact.artifact import Contents
from danlu.errors import ArtifactError
from danlu.layers.vision.test_time_augmentation import TestTimeAugmentation
from danlu.terms import InputSpec

ROWS = "rows"  # the axis of examples, in every input and output
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "uint8": torch.uint8,
}


@dataclass(frozen=True)
class Slot:
    """One input or output: its dtype ("float32", ...) and its shape; a named axis is as long as one
    likes, a number is fixed."""

    dtype: str
    shape: tuple[int | str, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"dtype": self.dtype, "shape": list(self.shape)}


@dataclass
class Program:
    """A module to export. `module(*tensors in the order of inputs)` gives a tuple of tensors in the
    order of outputs.

    examples   a few prepared rows to trace it with, by input name
    scales     by output name what a difference is divided by before it is judged, one for each entry of the last axis (1 where it says none)
    training   so many prepared training examples, to calibrate a lower precision on
    longest    by input of unequal lengths, the length that the model must be ready for
    """

    module: nn.Module
    inputs: dict[str, Slot]
    outputs: dict[str, Slot]
    examples: dict[str, Tensor]
    scales: dict[str, np.ndarray] = field(default_factory=dict)
    longest: dict[str, int] = field(default_factory=dict)
    training: Callable[[int], dict[str, Tensor]] | None = None

    def run(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of prepared rows by name."""
        with torch.inference_mode():
            found = self.module(*(arrays[name] for name in self.inputs))
        return dict(zip(self.outputs, found, strict=True))

    def captured(self) -> tuple[torch.export.ExportedProgram, dict[str, int]]:
        """(the program as torch.export has it for any number of rows, by input the one length that
        it must be padded to).

        Nothing is padded where any length will do; a network whose steps are as many as its places
        is written out for one. Whatever torch.export raises of a network that it cannot follow is
        raised on."""
        try:
            return self._captured(self.examples, {}), {}
        except Exception:
            fixed = {name: size for name, size in self.longest.items() if name in self.inputs}
            if not fixed:
                raise
        examples = {
            name: functional.pad(each, [0, 0] * (each.ndim - 2) + [0, fixed[name] - each.shape[1]])
            if name in fixed
            else each
            for name, each in self.examples.items()
        }
        return self._captured(examples, fixed), fixed

    def _captured(
        self, examples: Mapping[str, Tensor], fixed: Mapping[str, int]
    ) -> torch.export.ExportedProgram:
        rows = torch.export.Dim("rows", min=1)
        shapes = []
        for name, slot in self.inputs.items():
            free = [
                place
                for place, axis in enumerate(slot.shape)
                if isinstance(axis, str) and not (place and name in fixed)
            ]
            shapes.append({place: torch.export.Dim.DYNAMIC if place else rows for place in free})
        given = tuple(examples[name] for name in self.inputs)
        with torch.no_grad():
            return torch.export.export(
                self.module, given, dynamic_shapes=(tuple(shapes),), strict=False
            )


class _Answering(nn.Module):
    """The network between prepared inputs and finished answers."""

    def __init__(
        self, contents: Contents, names: list[str], described: Mapping[str, InputSpec]
    ) -> None:
        super().__init__()
        self.network = contents.module
        self.task = contents.task
        self.names = names
        self.finished: list[str] = []  # the names of the outputs, known once it has run
        self.views = TestTimeAugmentation(
            contents.recipe.data.test_time_augmentation, described, contents.task.output
        )
        self.pixels = {}
        for name, each in described.items():
            if each.kind == "image":
                mean, std = torch.tensor(each.mean), torch.tensor(each.std)
                self.pixels[name] = (1.0 / (255.0 * std), -mean / std)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(self.names, tensors, strict=True))
        for name, (scale, shift) in self.pixels.items():
            if name in inputs:
                inputs[name] = (inputs[name].to(torch.float32) * scale + shift).permute(0, 3, 1, 2)
        outputs = (
            self.task.runs(self.network, inputs)
            if hasattr(self.task, "runs")
            else self.views(self.network, inputs)
        )
        outputs = outputs.float()
        found = self.task.finish(self.network, inputs, outputs)
        self.finished = list(found)
        return tuple(found.values())


def program_of(contents: Contents, examples: Mapping[str, Tensor]) -> Program:
    """The program of an artifact; `examples` are a few prepared rows by input name (those that the
    task keeps beside are left out).

    Raises ArtifactError where the task cannot finish its answers in a module.
    """
    task = contents.task
    if not hasattr(task, "finish"):
        raise ArtifactError(
            f"the task {contents.recipe.task.name} does not say yet how its answers are made outside of danlu.",
            hint="export its network alone: --to safetensors",
        )
    described = contents.described or contents.preprocessor.inputs
    if hasattr(task, "exported"):
        described = task.exported(contents.module)
    inputs = {
        key: slot for name, each in described.items() for key, slot in _slots(name, each).items()
    }
    examples = {name: examples[name].cpu() for name in inputs}
    module = _Answering(contents, list(inputs), described).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():
        found = module(*examples.values())
    outputs = {
        name: _output(each, examples, inputs)
        for name, each in zip(module.finished, found, strict=True)
    }
    scales = {
        name: np.asarray(each, dtype=np.float64)
        for name, each in getattr(task, "scales", dict)().items()
    }
    longest = {
        name: each.shape[0]
        for name, each in described.items()
        if each.kind in ("tokens", "frames") and name in inputs
    }
    return Program(module, inputs, outputs, examples, scales, longest)


def _slots(name: str, each: InputSpec) -> dict[str, Slot]:
    """The tensors that one described input is."""
    if each.kind == "image":
        channels, height, width = each.shape
        return {name: Slot("uint8", (ROWS, height, width, channels))}
    if each.kind == "tokens":
        return {name: Slot("int64", (ROWS, f"{name}_places", *each.shape[1:]))}
    if each.kind == "frames":
        return {
            name: Slot("float32", (ROWS, f"{name}_frames", *each.shape[1:])),
            f"{name}_lengths": Slot("int64", (ROWS,)),
        }
    return {name: Slot("int64" if each.kind == "categories" else "float32", (ROWS, *each.shape))}


def _output(tensor: Tensor, examples: Mapping[str, Tensor], inputs: Mapping[str, Slot]) -> Slot:
    """The slot of an output: an axis as long as a named axis of the examples is that axis."""
    named = {
        int(size): axis
        for name, slot in inputs.items()
        for size, axis in zip(examples[name].shape[1:], slot.shape[1:], strict=True)
        if isinstance(axis, str)
    }
    dtype = next(name for name, each in DTYPES.items() if each == tensor.dtype)
    return Slot(dtype, (ROWS, *(named.get(int(size), int(size)) for size in tensor.shape[1:])))
