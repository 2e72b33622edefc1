"""A program of torch.export (.pt2): the network with finished answers as one graph of torch's operators, for any number of rows.

It takes prepared inputs (columns are prepared as export.json says; the scale of pixels stands
inside) and is opened by torch.export.load("model.pt2"). danlu takes the example inputs and guards
out that torch writes, so the file holds no pickle and no code; but torch.export.load itself would
run both, so open files of others only through danlu, which refuses any that hold more than a plain
program."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import ArtifactError
from danlu.exporting.exporters._torch_program import cleaned
from danlu.recipe import Options

if TYPE_CHECKING:
    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import Program

NEEDS = ("", "")
TORCH_FREE = False
FILE = "model.pt2"
LARGEST = 64 << 30  # bytes


class Config(Options):
    """It has no options."""


def export(config: Config, artifact: Artifact, program: Program, folder: Path) -> dict[str, Any]:
    """Write model.pt2; gives what `start` must know."""
    import torch

    try:
        made, fixed = program.captured()
    except Exception as error:  # torch names no kinds
        raise ArtifactError(
            f"torch cannot capture this network ({_first(error)}).", hint="--to safetensors"
        ) from None
    held = io.BytesIO()
    torch.export.save(made, held)
    try:
        (folder / FILE).write_bytes(cleaned(held.getvalue()))
    except ValueError as error:
        raise ArtifactError(f"no plain program: {error}.", hint="--to onnx") from None
    about = {
        "inputs": list(program.inputs),
        "outputs": list(program.outputs),
        "torch": torch.__version__,
    }
    return {**about, **({"longest": fixed} if fixed else {})}


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")


def start(
    folder: Path, about: Mapping[str, Any]
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """What runs the program. ArtifactError for a file that holds more than a plain program."""
    import torch

    from danlu.system.atomic_files import read_regular

    try:
        made = torch.export.load(io.BytesIO(cleaned(read_regular(folder / FILE, LARGEST))))
        module = made.module()
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, AssertionError) as error:
        raise ArtifactError(
            f"this is no plain program of torch.export: {str(error).splitlines()[0][:300]}.",
            where=FILE,
        ) from None
    names, outputs = (
        [str(name) for name in about["inputs"]],
        [str(name) for name in about["outputs"]],
    )

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = module(
                *(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in names)
            )
        return {name: each.numpy() for name, each in zip(outputs, found, strict=True)}

    return run


def card(about: Mapping[str, Any]) -> list[str]:
    """How another program runs the file."""
    given, found = ", ".join(about["inputs"]), ", ".join(about["outputs"])
    return [
        f"`model.pt2` takes prepared inputs ({given}) and gives ({found}). It was written by torch {about['torch']} and holds no pickle.",
        "",
        "```python",
        "import torch",
        'module = torch.export.load("model.pt2").module()',
        "```",
    ]
