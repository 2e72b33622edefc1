"""OpenVINO (model.xml beside model.bin), run by OpenVINO without torch.

The network with finished answers is converted from ONNX, with float32 weights. It takes prepared
inputs (columns are prepared as export.json says; the scaling of pixels is inside). OpenVINO may
compute in a lower precision where the processor prefers it; danlu asks for float32
(INFERENCE_PRECISION_HINT: f32), in the parity check too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu.errors import ArtifactError
from danlu.exporting.exporters._base import Run, RunInfo
from danlu.exporting.exporters._onnx_network import onnx_network
from danlu.recipe import Options

if TYPE_CHECKING:
    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import TraceableModel

NEEDS = (("openvino", "onnx", "onnxscript"), "openvino")
TORCH_FREE = True
GRAPH, WEIGHTS = "model.xml", "model.bin"
LARGEST = 64 << 30  # bytes
_LAYER = re.compile(rb'<layer [^>]*version="([^"]*)"')
_OPSETS = re.compile(rb"opset\d{1,2}|experimental|extension")


class Config(Options):
    """It has no options."""


def export(
    config: Config, artifact: Artifact, model: TraceableModel, folder: Path
) -> dict[str, Any]:
    """Write model.xml and model.bin. Raises ArtifactError where the network has no ONNX form."""
    import openvino

    network, fixed = onnx_network(model)
    graph = openvino.Core().read_model(model=network.SerializeToString())
    openvino.save_model(graph, str(folder / GRAPH), compress_to_fp16=False)
    run_info = {
        "inputs": list(model.inputs),
        "outputs": list(model.outputs),
        "openvino": openvino.__version__.split("-")[0],
    }
    return {**run_info, **({"longest": fixed} if fixed else {})}


def start(folder: Path, run_info: RunInfo) -> Run:
    """Opens the graph with OpenVINO, on the processor, in float32."""
    try:
        import openvino
    except ImportError:
        from danlu.errors import MissingExtra

        raise MissingExtra("openvino", "openvino", "running an OpenVINO export") from None
    from danlu.system.atomic_files import read_regular

    graph, weights = read_regular(folder / GRAPH, LARGEST), read_regular(folder / WEIGHTS, LARGEST)
    refuse_unsafe(graph, len(weights))
    core = openvino.Core()
    try:
        model = core.read_model(
            model=graph, weights=openvino.Tensor(np.frombuffer(weights, dtype=np.uint8))
        )
        compiled = core.compile_model(
            model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        )
    except RuntimeError as error:
        raise ArtifactError(f"OpenVINO cannot open it: {_first(error)}.", where=GRAPH) from None
    names, outputs = (
        [str(name) for name in run_info["inputs"]],
        [str(name) for name in run_info["outputs"]],
    )

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            results = compiled(
                [np.ascontiguousarray(arrays[name]) for name in names]
            )  # by position: an input and an output may share a name
        except RuntimeError as error:
            raise ArtifactError(f"OpenVINO stopped: {_first(error)}.", where=GRAPH) from None
        return {
            name: np.array(result) for name, result in zip(outputs, results.to_tuple(), strict=True)
        }

    return run


def refuse_unsafe(graph: bytes, size: int) -> None:
    """Raises ArtifactError for a graph with XML declarations, operators that no release of OpenVINO
    has, or constants beyond the `size` bytes of model.bin."""
    if b"<!" in graph:
        raise ArtifactError(
            "its graph declares entities, which OpenVINO never writes.", where=GRAPH
        )
    odd = next((opset for opset in _LAYER.findall(graph) if not _OPSETS.fullmatch(opset)), None)
    if odd is not None:
        raise ArtifactError(
            f"its graph has operators of {odd[:40].decode('utf-8', 'replace')!r}.", where=GRAPH
        )
    for offset, length in re.findall(rb'offset="(\d+)"[^>]*size="(\d+)"', graph):
        if len(offset) > 15 or len(length) > 15 or int(offset) + int(length) > size:
            raise ArtifactError(
                f"its graph has constants beyond the end of {WEIGHTS}.", where=GRAPH
            )


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def card(run_info: RunInfo) -> list[str]:
    """How another program runs the files."""
    inputs, outputs = ", ".join(run_info["inputs"]), ", ".join(run_info["outputs"])
    return [
        f"`model.xml` and `model.bin` take prepared inputs ({inputs}) and give ({outputs}); "
        f"written by OpenVINO {run_info['openvino']}.",
        "",
        "```python",
        "import openvino",
        'model = openvino.Core().compile_model("model.xml", "CPU", '
        '{"INFERENCE_PRECISION_HINT": "f32"})',
        "```",
    ]
