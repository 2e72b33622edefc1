"""ONNX with the preprocessing inside, run by ONNX Runtime without torch.

The network is exported by torch.onnx.export (dynamo) for any number of rows and, where rows are
sequences, of any length. Before it stand the transforms as ONNX operators (each transform writes
its own, see danlu.parts.transforms), after it what makes answers of outputs: probabilities, numbers
in units of the data. Transforms that ONNX has no operators for (a text's tokens) stay outside;
danlu.exporting.loader runs them with numpy. With precision int8 products are of 8-bit integers
where the processor has units for them; the accuracy that this costs is measured before the export
is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from danlu import registry
from danlu.errors import ArtifactError
from danlu.exporting.exporters._base import Run, RunInfo, Tolerances
from danlu.exporting.exporters._onnx_network import onnx_network, quiet_exporter
from danlu.parts.transforms._onnx_graph import OPSET, Graph, Value, joined
from danlu.recipe import Options

if TYPE_CHECKING:
    from onnx import ModelProto

    from danlu.artifact.prediction import Artifact
    from danlu.data.column_pipeline import ColumnPipeline
    from danlu.data.preprocessing import Preprocessor
    from danlu.exporting.traceable import TraceableModel

NEEDS = (("onnx", "onnxscript", "onnxruntime"), "onnx")
TORCH_FREE = True
FILE = "model.onnx"
LARGEST = 2_000_000_000  # bytes of one protobuf message
_DTYPES = {"category": "str", "boolean": "int8", "datetime": "int64"}  # of raw columns in a graph
_TABLE = ("numbers", "categories", "image")  # inputs whose transforms can be part of a graph


class Config(Options):
    """Precision, calibration, and whether the graph holds the preprocessing."""

    precision: Literal["float32", "int8"] = Field(
        "float32",
        description="int8: products of 8-bit integers (static, QDQ), scales from training rows; "
        "classification only.",
    )
    calibration_rows: int = Field(
        256, ge=8, le=100_000, description="Training rows that the scales of int8 are taken from."
    )
    max_drop: float = Field(
        0.01, ge=0, le=1, description="Accuracy that int8 may lose on the held-out rows."
    )
    preprocessing: bool = Field(
        True,
        description="Put the transforms into the graph; false: the graph takes prepared arrays.",
    )


def export(
    config: Config, artifact: Artifact, model: TraceableModel, folder: Path
) -> dict[str, Any]:
    """Write model.onnx. Raises ArtifactError where the network has no ONNX form, or is too large
    for one file."""
    network, fixed = onnx_network(model)
    if config.precision == "int8":
        network = quantize_static_int8(network, model, config.calibration_rows)
    run_info: dict[str, Any] = {"opset": OPSET, **({"longest": fixed} if fixed else {})}
    graph = network
    in_table = set(model.inputs) & set(_TABLE)
    if config.preprocessing and artifact.task.examples_are_rows and in_table:
        before = Graph()
        columns, feeds = add_preprocessing(before, artifact.preprocessor)
        numbers = artifact.preprocessor.inputs.get("numbers")
        if "numbers" in feeds and numbers is not None:
            _add_unusable_output(before, feeds["numbers"])
            run_info["features"] = list(numbers.of)
        for name, spec in model.inputs.items():
            if name not in feeds:
                feeds[name] = before.input(name, spec.dtype, spec.shape)
        graph = joined(before, network, feeds)
        run_info["columns"] = columns
    data = graph.SerializeToString()
    if len(data) > LARGEST:
        raise ArtifactError(
            f"the graph has {len(data):,} bytes, and one ONNX file holds 2 GB.",
            hint="--to safetensors",
        )
    (folder / FILE).write_bytes(data)
    return run_info


def tolerances(config: Config) -> Tolerances:
    """In int8 the largest drop of accuracy."""
    return {"drop": config.max_drop} if config.precision == "int8" else {}


def quantize_static_int8(network: ModelProto, model: TraceableModel, rows: int) -> ModelProto:
    """The network with int8 weights in its convolutions and matrix products, one scale for each
    channel, and uint8 activations whose ranges are those on `rows` training rows.

    Source: Jacob et al., 2018, arXiv:1712.05877; ONNX Runtime's static quantization in the form
    QuantizeLinear, DequantizeLinear.
    """
    import tempfile

    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    assert model.training is not None
    arrays = {name: tensor.numpy() for name, tensor in model.training(rows).items()}

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            count = len(next(iter(arrays.values())))
            self.pieces = iter(
                [
                    {name: array[at : at + 64] for name, array in arrays.items()}
                    for at in range(0, count, 64)
                ]
            )

        def get_next(self) -> Any:  # the library ends at None, and does not say so
            return next(self.pieces, None)

    del network.graph.value_info[:]  # quantize_static infers the shapes itself
    with quiet_exporter(), tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(network, before)
        quantize_static(
            str(before),
            str(after),
            Rows(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(after)


def add_preprocessing(
    before: Graph, preprocessor: Preprocessor
) -> tuple[dict[str, int], dict[str, str]]:
    """Write the pipelines of columns into a graph. Gives ({column: how many of its first transforms
    stay outside}, {input of the network: name of its value in the graph})."""
    ends: dict[str, list[Value]] = {}
    columns: dict[str, int] = {}
    for pipeline in preprocessor.pipelines:
        if pipeline.input_kind not in _TABLE:
            continue
        outside = steps_outside(pipeline)
        columns[pipeline.name] = outside
        value = column_input(before, pipeline, preprocessor.schema[pipeline.name], outside)
        for part, state in pipeline.steps[outside:]:
            graph = registry.transform(part.name).graph
            assert graph is not None  # `steps_outside` counts the others
            value = graph(part.options, state, before, value)
        ends.setdefault(pipeline.input_kind, []).append(value)
    feeds = {}
    for name, values in ends.items():
        if name == "numbers":
            feeds[name] = before.beside([before.cast(end.at, "float32") for end in values])
        elif name == "categories":
            feeds[name] = before.beside([before.reshape(end.at, -1, 1) for end in values])
        else:
            feeds[name] = values[0].at
    return columns, feeds


def _add_unusable_output(before: Graph, numbers: str) -> None:
    """Add the output "unusable" (danlu.exporting.loader): the first feature of a row that is no
    finite number, -1 where all are."""
    strange = before.add("Or", [before.add("IsNaN", [numbers]), before.add("IsInf", [numbers])])
    flags = before.cast(strange, "int64")
    first = before.add("ArgMax", [flags], axis=1, keepdims=0)
    some = before.add("ReduceMax", [flags, before.constant(np.array([1]))], keepdims=0)
    none = before.add("Equal", [some, before.constant(np.int64(0))])
    before.output(
        before.add("Where", [none, before.constant(np.int64(-1)), first]),
        "unusable",
        "int64",
        ("rows",),
    )


def steps_outside(pipeline: ColumnPipeline) -> int:
    """How many of a pipeline's first transforms stay outside of the graph: all up to the last one
    that ONNX has no operators for."""
    last = 0
    for number, (part, _) in enumerate(pipeline.steps, 1):
        if registry.transform(part.name).graph is None:
            last = number
    return last


def column_input(
    before: Graph, pipeline: ColumnPipeline, schema: Mapping[str, Any], outside: int
) -> Value:
    """The input by which a column enters the graph: raw, or after its first `outside`
    transforms."""
    kind, name = schema["kind"], f"column {pipeline.name}"
    if outside:
        probe = pipeline.probe(outside, schema)
        if probe.kind == "number":
            width = 1 if probe.values.ndim == 1 else probe.values.shape[1]
            return Value(before.input(name, "float64", ("rows", width)), "number", width)
        if outside == len(pipeline.steps):
            return Value(before.input(name, "int64", ("rows",)), "code")
        return Value(before.input(name, _DTYPES[probe.kind], ("rows",)), probe.kind)
    if kind == "number":
        width = schema.get("width", 1)
        at = before.input(name, "float64", ("rows", width) if "width" in schema else ("rows",))
        return Value(at if "width" in schema else before.reshape(at, -1, 1), "number", width)
    if kind == "image":
        return Value(before.input(name, "uint8", ("rows", *schema["shape"])), "image")
    return Value(before.input(name, _DTYPES[kind], ("rows",)), kind)


def preprocessing_run(folder: Path, run_info: RunInfo) -> Run:
    """As `start`, but runs the preprocessing alone and gives the network's inputs by name: to find
    where answers differ."""
    import onnx
    import onnxruntime

    model = onnx.load(folder / FILE, load_external_data=False)
    types = {"numbers": onnx.TensorProto.FLOAT, "categories": onnx.TensorProto.INT64}
    written = {output for node in model.graph.node for output in node.output}
    names = [name for name in types if f"network/{name}" in written]
    if not names:  # images and prepared arrays enter the network as they are
        return lambda arrays: {}
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(f"network/{name}", types[name], None) for name in names
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    wanted = [entry.name for entry in session.get_inputs()]

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = session.run(
            [f"network/{name}" for name in names], {name: arrays[name] for name in wanted}
        )
        return {name: np.asarray(output) for name, output in zip(names, outputs, strict=True)}

    return run


def start(folder: Path, run_info: RunInfo) -> Run:
    """Opens the graph in `folder` with ONNX Runtime, on the CPU."""
    try:
        import onnxruntime
    except ImportError:
        from danlu.errors import MissingExtra

        raise MissingExtra("onnxruntime", "onnx", "running an ONNX export") from None
    from danlu.exporting.exporters._onnx_guard import refuse_unsafe
    from danlu.system.atomic_files import read_regular

    data = read_regular(folder / FILE, LARGEST)
    refuse_unsafe(data)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises errors of its own of every kind
        raise ArtifactError(
            f"ONNX Runtime cannot open it: {str(error).splitlines()[0][:300]}.", where=FILE
        ) from None
    names = [entry.name for entry in session.get_inputs()]
    outputs = [entry.name for entry in session.get_outputs()]

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            results = session.run(outputs, {name: arrays[name] for name in names})
        except Exception as error:
            raise ArtifactError(
                f"ONNX Runtime stopped: {str(error).splitlines()[0][:300]}.", where=FILE
            ) from None
        return {name: np.asarray(result) for name, result in zip(outputs, results, strict=True)}

    return run
