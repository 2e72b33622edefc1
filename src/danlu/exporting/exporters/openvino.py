"""OpenVINO's intermediate representation (model.xml beside model.bin), run by OpenVINO without torch.

The network with finished answers goes through ONNX into OpenVINO, weights in float32. It takes
prepared inputs (columns are prepared as export.json says; the scale of pixels stands inside).
OpenVINO may compute in fewer bits than float32 where the processor likes that better; the proof,
and danlu itself, ask for float32 (INFERENCE_PRECISION_HINT: f32)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from danlu import registry
from danlu.errors import ArtifactError
from danlu.recipe import Options

if TYPE_CHECKING:
    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import Program

NEEDS = ("openvino, onnx, onnxscript", "openvino")
TORCH_FREE = True
GRAPH, WEIGHTS = "model.xml", "model.bin"
LARGEST = 64 << 30  # bytes
_LAYER = re.compile(rb'<layer [^>]*version="([^"]*)"')
_OPSETS = re.compile(rb"opset\d{1,2}|experimental|extension")


class Config(Options):
    """It has no options."""


def export(config: Config, artifact: Artifact, program: Program, folder: Path) -> dict[str, Any]:
    """Write model.xml and model.bin; gives what `start` must know."""
    import openvino

    network, fixed = registry.take("exporters", "onnx").network_of(program)
    model = openvino.Core().read_model(model=network.SerializeToString())
    openvino.save_model(model, str(folder / GRAPH), compress_to_fp16=False)
    about = {
        "inputs": list(program.inputs),
        "outputs": list(program.outputs),
        "openvino": openvino.__version__.split("-")[0],
    }
    return {**about, **({"longest": fixed} if fixed else {})}


def start(
    folder: Path, about: Mapping[str, Any]
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """What runs the graph with OpenVINO on the processor, in float32."""
    try:
        import openvino
    except ImportError:
        from danlu.errors import MissingExtra

        raise MissingExtra("openvino", "openvino", "running an OpenVINO export") from None
    from danlu.system.atomic_files import read_regular

    graph, weights = read_regular(folder / GRAPH, LARGEST), read_regular(folder / WEIGHTS, LARGEST)
    refuse_strange(graph, len(weights))
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
        [str(name) for name in about["inputs"]],
        [str(name) for name in about["outputs"]],
    )

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            found = compiled(
                [np.ascontiguousarray(arrays[name]) for name in names]
            )  # by place: an input and an output may share a name
        except RuntimeError as error:
            raise ArtifactError(f"OpenVINO stopped: {_first(error)}.", where=GRAPH) from None
        return {name: np.array(each) for name, each in zip(outputs, found.to_tuple(), strict=True)}

    return run


def refuse_strange(graph: bytes, size: int) -> None:
    """ArtifactError for a graph with declarations of XML, operators that no release of OpenVINO
    has, or numbers beyond model.bin."""
    if b"<!" in graph:
        raise ArtifactError(
            "its graph declares entities, which OpenVINO never writes.", where=GRAPH
        )
    odd = next((each for each in _LAYER.findall(graph) if not _OPSETS.fullmatch(each)), None)
    if odd is not None:
        raise ArtifactError(
            f"its graph has operators of {odd[:40].decode('utf-8', 'replace')!r}.", where=GRAPH
        )
    for offset, length in re.findall(rb'offset="(\d+)"[^>]*size="(\d+)"', graph):
        if len(offset) > 15 or len(length) > 15 or int(offset) + int(length) > size:
            raise ArtifactError(
                f"its graph takes numbers beyond the end of {WEIGHTS}.", where=GRAPH
            )


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def card(about: Mapping[str, Any]) -> list[str]:
    """How another program runs the files."""
    given, found = ", ".join(about["inputs"]), ", ".join(about["outputs"])
    return [
        f"`model.xml` and `model.bin` take prepared inputs ({given}) and give ({found}); written by OpenVINO {about['openvino']}.",
        "",
        "```python",
        "import openvino",
        'model = openvino.Core().compile_model("model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        "```",
    ]
