"""A program of torch.export (.pt2): network and answers as a graph of torch's operators.

It takes prepared inputs (columns are prepared as export.json says; the scaling of pixels is inside)
and is opened by torch.export.load("model.pt2"). danlu removes the example inputs and guards that
torch writes, so the file holds no pickle and no code. torch.export.load itself would run both, so
open files of others only through danlu, which refuses any that hold more than a plain program.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import ArtifactError
from danlu.exporting.exporters._base import Run, RunInfo
from danlu.exporting.exporters._torch_program import plain_program
from danlu.recipe import Options

if TYPE_CHECKING:
    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import TraceableModel

NEEDS: tuple[tuple[str, ...], str] = ((), "")
TORCH_FREE = False
FILE = "model.pt2"
LARGEST = 64 << 30  # bytes


class Config(Options):
    """It has no options."""


def export(
    config: Config, artifact: Artifact, model: TraceableModel, folder: Path
) -> dict[str, Any]:
    """Write model.pt2. Raises ArtifactError where torch cannot trace the network."""
    import torch

    try:
        captured, fixed = model.captured()
    except Exception as error:  # torch documents no error classes
        raise ArtifactError(
            f"torch cannot trace this network ({_first(error)}).", hint="--to safetensors"
        ) from None
    buffer = io.BytesIO()
    torch.export.save(captured, buffer)
    try:
        (folder / FILE).write_bytes(plain_program(buffer.getvalue()))
    except ValueError as error:
        raise ArtifactError(f"no plain program: {error}.", hint="--to onnx") from None
    run_info = {
        "inputs": list(model.inputs),
        "outputs": list(model.outputs),
        "torch": torch.__version__,
    }
    return {**run_info, **({"longest": fixed} if fixed else {})}


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")


def start(folder: Path, run_info: RunInfo) -> Run:
    """Opens the program. Raises ArtifactError for a file that holds more than a plain program."""
    import torch

    from danlu.system.atomic_files import read_regular

    try:
        loaded = torch.export.load(io.BytesIO(plain_program(read_regular(folder / FILE, LARGEST))))
        module = loaded.module()
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, AssertionError) as error:
        raise ArtifactError(
            f"this is no plain program of torch.export: {str(error).splitlines()[0][:300]}.",
            where=FILE,
        ) from None
    names, outputs = (
        [str(name) for name in run_info["inputs"]],
        [str(name) for name in run_info["outputs"]],
    )

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            results = module(
                *(torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in names)
            )
        return {name: result.numpy() for name, result in zip(outputs, results, strict=True)}

    return run


def card(run_info: RunInfo) -> list[str]:
    """How another program runs the file."""
    inputs, outputs = ", ".join(run_info["inputs"]), ", ".join(run_info["outputs"])
    return [
        f"`model.pt2` takes prepared inputs ({inputs}) and gives ({outputs}). It was written by "
        f"torch {run_info['torch']} and holds no pickle.",
        "",
        "```python",
        "import torch",
        'module = torch.export.load("model.pt2").module()',
        "```",
    ]
