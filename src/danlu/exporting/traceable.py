"""An artifact as one module of tensors to trace: prepared inputs in, finished answers out.

Both come in a fixed order.

    prepared inputs     what danlu.data.preprocessing (or the task's `make_examples`) gives; images
                        still as bytes
    finished answers    what the task's `finish` makes of the network's outputs: probabilities,
                        numbers in units of the data

The module is in evaluation mode, on the CPU, in float32; test-time augmentation and the scaling of
pixels are part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.artifact.artifact import Contents
from danlu.errors import ArtifactError
from danlu.layers.vision.test_time_augmentation import AveragedViews
from danlu.parts.tasks._base import Exportable, ExportsGenerator, ScalesDifferences
from danlu.terms import InputSpec, Json

ROWS = "rows"  # the axis of examples, in every input and output
DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "uint8": torch.uint8,
}


@dataclass(frozen=True)
class TensorSpec:
    """The dtype ("float32", ...) and shape of one input or output. An axis is a number where its
    length is fixed, a name where it may be of any length.

    >>> TensorSpec("float32", ("rows", 4)).as_json()
    {'dtype': 'float32', 'shape': ['rows', 4]}
    """

    dtype: str
    shape: tuple[int | str, ...]

    def as_json(self) -> dict[str, Json]:
        """The spec as JSON values."""
        return {"dtype": self.dtype, "shape": list(self.shape)}


@dataclass
class TraceableModel:
    """A module to export: `module(*tensors in the order of inputs)` gives a tuple of tensors in the
    order of outputs.

    examples   a few prepared rows to trace the module with, by input name
    scales     by output name, what a difference is divided by before it is judged, one number for
               each entry of the last axis; 1 for outputs without an entry
    longest    by input of unequal lengths, the greatest length in training
    training   training(count) gives so many prepared training examples, to calibrate a lower
               precision on; None where there is no training data
    """

    module: nn.Module
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    examples: dict[str, Tensor]
    scales: dict[str, np.ndarray] = field(default_factory=dict)
    longest: dict[str, int] = field(default_factory=dict)
    training: Callable[[int], dict[str, Tensor]] | None = None

    def run(self, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name for prepared inputs by name."""
        with torch.inference_mode():
            outputs = self.module(*(arrays[name] for name in self.inputs))
        return dict(zip(self.outputs, outputs, strict=True))

    def captured(self) -> tuple[torch.export.ExportedProgram, dict[str, int]]:
        """(the program that torch.export captures, for any number of rows; by input, the one length
        that it must be padded to).

        The second is {} where rows of any length will do. A network with one step for each place
        (a recurrent one) is captured for one length. What torch.export raises for a network that it
        cannot capture is raised on.
        """
        try:
            return self._capture(self.examples, {}), {}
        except Exception:
            fixed = {name: size for name, size in self.longest.items() if name in self.inputs}
            if not fixed:
                raise
        examples = {
            name: _padded(example, fixed[name]) if name in fixed else example
            for name, example in self.examples.items()
        }
        return self._capture(examples, fixed), fixed

    def _capture(
        self, examples: Mapping[str, Tensor], fixed: Mapping[str, int]
    ) -> torch.export.ExportedProgram:
        rows = torch.export.Dim("rows", min=1)
        shapes = []
        for name, spec in self.inputs.items():
            free = [
                axis
                for axis, length in enumerate(spec.shape)
                if isinstance(length, str) and not (axis and name in fixed)
            ]
            shapes.append({axis: torch.export.Dim.DYNAMIC if axis else rows for axis in free})
        in_order = tuple(examples[name] for name in self.inputs)
        with torch.no_grad():
            return torch.export.export(
                self.module, in_order, dynamic_shapes=(tuple(shapes),), strict=False
            )


def _padded(tensor: Tensor, length: int) -> Tensor:
    """The tensor with zeros at the end of its second axis, up to `length`."""
    return functional.pad(tensor, [0, 0] * (tensor.ndim - 2) + [0, length - tensor.shape[1]])


class _FinishedAnswers(nn.Module):
    """The network between prepared inputs and finished answers."""

    def __init__(
        self,
        contents: Contents,
        task: Exportable,
        names: list[str],
        described: Mapping[str, InputSpec],
    ) -> None:
        super().__init__()
        self.network = contents.module
        self.task = task
        self.names = names
        self.finished: list[str] = []  # the names of the outputs, known after a first run
        self.views = AveragedViews(
            contents.recipe.data.test_time_augmentation, described, contents.task.output
        )
        self.pixels = {}
        for name, spec in described.items():
            if spec.kind == "image":
                mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
                self.pixels[name] = (1.0 / (255.0 * std), -mean / std)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs = dict(zip(self.names, tensors, strict=True))
        for name, (scale, shift) in self.pixels.items():
            if name in inputs:
                inputs[name] = (inputs[name].to(torch.float32) * scale + shift).permute(0, 3, 1, 2)
        outputs = (
            self.task.generate(self.network, inputs)
            if isinstance(self.task, ExportsGenerator)
            else self.views(self.network, inputs)
        )
        answers = self.task.finish(self.network, inputs, outputs.float())
        self.finished = list(answers)
        return tuple(answers.values())


def traceable_model(contents: Contents, examples: Mapping[str, Tensor]) -> TraceableModel:
    """The network of an artifact with its finished answers.

    `examples` are a few prepared rows by input name; entries that are no input of the network are
    ignored. Raises ArtifactError where the task cannot compute its answers from outputs alone.
    """
    task = contents.task
    if not isinstance(task, Exportable):
        raise ArtifactError(
            f"the answers of the task {contents.recipe.task.name} cannot be computed outside of "
            "danlu.",
            hint="export its network alone: --to safetensors",
        )
    described = contents.described or contents.preprocessor.inputs
    if isinstance(task, ExportsGenerator):
        described = task.generator_inputs(contents.module)
    inputs = {
        key: tensor_spec
        for name, spec in described.items()
        for key, tensor_spec in _tensor_specs(name, spec).items()
    }
    examples = {name: examples[name].cpu() for name in inputs}
    module = _FinishedAnswers(contents, task, list(inputs), described).eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with torch.inference_mode():
        answers = module(*examples.values())
    outputs = {
        name: _output_spec(answer, examples, inputs)
        for name, answer in zip(module.finished, answers, strict=True)
    }
    scales = task.difference_scales() if isinstance(task, ScalesDifferences) else {}
    longest = {
        name: spec.shape[0]
        for name, spec in described.items()
        if spec.kind in ("tokens", "frames") and name in inputs
    }
    return TraceableModel(
        module,
        inputs,
        outputs,
        examples,
        {name: np.asarray(scale, dtype=np.float64) for name, scale in scales.items()},
        longest,
    )


def _tensor_specs(name: str, spec: InputSpec) -> dict[str, TensorSpec]:
    """The tensors that one input of the preprocessing consists of."""
    if spec.kind == "image":
        channels, height, width = spec.shape
        return {name: TensorSpec("uint8", (ROWS, height, width, channels))}
    if spec.kind == "tokens":
        return {name: TensorSpec("int64", (ROWS, f"{name}_places", *spec.shape[1:]))}
    if spec.kind == "frames":
        return {
            name: TensorSpec("float32", (ROWS, f"{name}_frames", *spec.shape[1:])),
            f"{name}_lengths": TensorSpec("int64", (ROWS,)),
        }
    dtype = "int64" if spec.kind == "categories" else "float32"
    return {name: TensorSpec(dtype, (ROWS, *spec.shape))}


def _output_spec(
    output: Tensor, examples: Mapping[str, Tensor], inputs: Mapping[str, TensorSpec]
) -> TensorSpec:
    """The spec of an output: an axis as long as a named axis of the examples is that axis."""
    named = {
        int(size): axis
        for name, spec in inputs.items()
        for size, axis in zip(examples[name].shape[1:], spec.shape[1:], strict=True)
        if isinstance(axis, str)
    }
    dtype = next(name for name, torch_dtype in DTYPES.items() if torch_dtype == output.dtype)
    return TensorSpec(
        dtype, (ROWS, *(named.get(int(size), int(size)) for size in output.shape[1:]))
    )
