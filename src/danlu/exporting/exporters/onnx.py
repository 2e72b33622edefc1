"""ONNX with the preprocessing inside, run by ONNX Runtime without torch.

The network goes through torch.onnx.export (dynamo), with any number of rows and, where rows are
sequences, of any length. Before it stand the transforms as ONNX operators (each transform writes
its own, see danlu/transforms), behind it what makes answers of outputs: probabilities, numbers in
units of the data. Transforms that ONNX has no operators for (tokens of a text) stay outside and are
run by danlu.exporting.loader with numpy. In int8 products run in 8 bits where the processor has
units for it; what that costs is measured before release."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from danlu import registry
from danlu.errors import ArtifactError
from danlu.parts.transforms._onnx_graph import OPSET, Graph, Value, joined
from danlu.recipe import Options

if TYPE_CHECKING:
    from danlu.artifact.prediction import Artifact
    from danlu.exporting.traceable import Program

NEEDS = ("onnx, onnxscript and onnxruntime", "onnx")
TORCH_FREE = True
FILE = "model.onnx"
LARGEST = 2_000_000_000  # bytes of one protobuf message
_DTYPES = {"category": "str", "boolean": "int8", "datetime": "int64"}  # of raw columns in a graph
_REACH = 512  # places that rotary positions are written out for, at least
_TABLE = ("numbers", "categories", "image")  # inputs whose transforms can stand in a graph


class Config(Options):
    """How the graph is written."""

    precision: Literal["float32", "int8"] = Field(
        "float32",
        description="int8: products in 8 bits (static, QDQ), scales learnt from training rows; classification only.",
    )
    calibration_rows: int = Field(
        256, ge=8, le=100_000, description="Training rows that the scales of int8 are learnt from."
    )
    max_drop: float = Field(
        0.01, ge=0, le=1, description="Accuracy that int8 may lose on the held-out rows."
    )
    preprocessing: bool = Field(
        True,
        description="Put the transforms into the graph; false: the graph takes prepared arrays.",
    )


def export(config: Config, artifact: Artifact, program: Program, folder: Path) -> dict[str, Any]:
    """Write model.onnx; gives what `start` must know."""
    network, fixed = network_of(program)
    if config.precision == "int8":
        network = quantized(network, program, config.calibration_rows)
    about: dict[str, Any] = {"opset": OPSET, **({"longest": fixed} if fixed else {})}
    model = network
    if config.preprocessing and takes_rows(artifact) and set(program.inputs) & set(_TABLE):
        before = Graph()
        columns, feeds = preprocessing(before, artifact.preprocessor)
        numbers = artifact.preprocessor.inputs.get("numbers")
        if "numbers" in feeds and numbers is not None:
            _tell_unusable(before, feeds["numbers"])
            about["features"] = list(numbers.of)
        for name, slot in program.inputs.items():
            if name not in feeds:
                feeds[name] = before.input(name, slot.dtype, slot.shape)
        model = joined(before, network, feeds)
        about["columns"] = columns
    data = model.SerializeToString()
    if len(data) > LARGEST:
        raise ArtifactError(
            f"the graph has {len(data):,} bytes, and one ONNX file holds 2 GB.",
            hint="--to safetensors",
        )
    (folder / FILE).write_bytes(data)
    return about


def lets(config: Config) -> dict[str, float]:
    """What the proof allows."""
    return {"drop": config.max_drop} if config.precision == "int8" else {}


def quantized(network: Any, program: Program, rows: int) -> Any:
    """The network with its convolutions and matrices in int8, a scale a channel; activations uint8,
    their range as on training rows.

    Source: Jacob et al., 2018, arXiv:1712.05877; ONNX Runtime's static quantization in the form
    QuantizeLinear, DequantizeLinear."""
    import tempfile

    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    assert program.training is not None
    arrays = {name: each.numpy() for name, each in program.training(rows).items()}

    class Rows(CalibrationDataReader):
        def __init__(self) -> None:
            count = len(next(iter(arrays.values())))
            self.pieces = iter(
                [
                    {name: each[at : at + 64] for name, each in arrays.items()}
                    for at in range(0, count, 64)
                ]
            )

        def get_next(self) -> Any:
            return next(self.pieces, None)

    del network.graph.value_info[:]  # shapes of the float network stand in the way of its inference
    with quiet(), tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(network, before)
        quantize_static(
            str(before), str(after), Rows(), quant_format=QuantFormat.QDQ, per_channel=True, op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        return onnx.load(after)


def takes_rows(artifact: Artifact) -> bool:
    """Whether an example is a row as the preprocessing gives it."""
    return not hasattr(artifact.task, "frame") or getattr(artifact.task, "frames_rows", False)


def network_of(program: Program) -> tuple[Any, dict[str, int]]:
    """(the onnx.ModelProto of a program, the length that an input of places must be padded to, by
    name: none where any length will do)."""
    import torch

    module = with_operators(program.module)
    reach = max(_REACH, 4 * max(program.longest.values(), default=0))
    for (
        each
    ) in module.modules():  # the angles of places are a table in the graph, which cannot grow
        if hasattr(each, "angles") and hasattr(each, "cosines"):
            each.angles(reach)
    try:
        with quiet():
            captured, fixed = replace(program, module=module).captured()
    except Exception as error:
        raise ArtifactError(
            f"torch cannot capture this network as a graph ({_first_line(error)}).",
            hint="--to safetensors",
        ) from None
    try:
        with quiet():
            made = torch.onnx.export(
                captured, dynamo=True, opset_version=OPSET, input_names=list(program.inputs), output_names=list(program.outputs), verbose=False,
            )  # fmt: skip
    except Exception as error:
        raise ArtifactError(
            f"ONNX has no operators for this network ({_first_line(error)}).",
            hint="--to torch_export",
        ) from None
    assert made is not None
    return made.model_proto, fixed


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next(
        (line for line in lines if line.startswith("<class ")), lines[0] if lines else ""
    )  # the cause, where the exporter names it
    return f"{type(error).__name__}: {told[:200]}"


def with_operators(module: Any) -> Any:
    """The module with its recurrent layers as single operators of ONNX; torch would write them out
    place by place."""
    import copy

    from torch import nn

    found = copy.deepcopy(module)
    for parent in list(found.modules()):
        for name, child in parent.named_children():
            if (
                isinstance(child, nn.RNNBase)
                and child.num_layers == 1
                and not child.bidirectional
                and child.batch_first
            ):
                setattr(parent, name, _cell(child))
    return found


_OPERATORS = {
    "LSTM": ("LSTM", (0, 3, 1, 2)),
    "GRU": ("GRU", (1, 0, 2)),
    "RNN": ("RNN", (0,)),
}  # torch's gates in the order of ONNX


def _cell(layer: Any) -> Any:
    """A recurrent layer as one operator. Source: ONNX operators LSTM, GRU (linear_before_reset) and
    RNN, opset 14."""
    import torch
    from torch import Tensor, nn

    operator, order = _OPERATORS[layer.mode.partition("_")[0]]

    def sorted_(weight: Tensor) -> Tensor:
        gates = weight.detach().chunk(len(order), dim=0)
        return torch.cat([gates[gate] for gate in order], dim=0)

    class Cell(nn.Module):
        w: Tensor
        r: Tensor
        b: Tensor | None

        def __init__(self) -> None:
            super().__init__()
            self.hidden = layer.hidden_size
            self.register_buffer("w", sorted_(layer.weight_ih_l0)[None])
            self.register_buffer("r", sorted_(layer.weight_hh_l0)[None])
            if layer.bias:
                self.register_buffer(
                    "b", torch.cat([sorted_(layer.bias_ih_l0), sorted_(layer.bias_hh_l0)])[None]
                )
            else:
                self.b = None
            self.attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
            if operator == "GRU":
                self.attributes["linear_before_reset"] = 1
            if operator == "RNN":
                self.attributes["activations"] = ["Relu" if layer.mode == "RNN_RELU" else "Tanh"]

        def forward(self, x_BTI: Tensor, before: Any = None) -> tuple[Tensor, Any]:
            rows, places = x_BTI.shape[0], x_BTI.shape[1]
            given = (
                () if before is None else tuple(before) if isinstance(before, tuple) else (before,)
            )
            state = (1, rows, self.hidden)
            shapes = [
                (places, 1, rows, self.hidden),
                state,
                *([state] if operator == "LSTM" else []),
            ]
            found = torch.onnx.ops.symbolic_multi_out(
                f"ai.onnx::{operator}", (x_BTI.transpose(0, 1), self.w, self.r, self.b, None, *given), self.attributes,
                dtypes=[x_BTI.dtype] * len(shapes), shapes=shapes, version=14,
            )  # fmt: skip
            y_BTH = found[0].squeeze(1).transpose(0, 1)
            return y_BTH, (found[1], found[2]) if operator == "LSTM" else found[1]

    return Cell()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the exporter's talk of torchvision, of its own deprecations and of its passes."""
    loggers = [
        logging.getLogger(name)
        for name in ("", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    ]
    levels = [each.level for each in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def preprocessing(before: Graph, preprocessor: Any) -> tuple[dict[str, int], dict[str, str]]:
    """Write the chains into a graph: ({column: how many of its first transforms stay outside},
    {input of the network: value})."""
    ends: dict[str, list[Value]] = {}
    columns: dict[str, int] = {}
    for chain in preprocessor.chains:
        if chain.to not in _TABLE:
            continue
        schema = preprocessor.schema[chain.name]
        outside = outside_of(chain)
        columns[chain.name] = outside
        value = entered(before, chain, schema, outside)
        for part, state in chain.steps[outside:]:
            graph = registry.transform(part.name).graph
            assert graph is not None  # the steps without one stand before `outside`
            value = graph(part.options, state, before, value)
        ends.setdefault(chain.to, []).append(value)
    feeds = {}
    for name, values in ends.items():
        if name == "numbers":
            feeds[name] = before.beside([before.cast(each.at, "float32") for each in values])
        elif name == "categories":
            feeds[name] = before.beside([before.reshape(each.at, -1, 1) for each in values])
        else:
            feeds[name] = values[0].at
    return columns, feeds


def _tell_unusable(before: Graph, numbers: str) -> None:
    """An output that says which feature of a row is no finite number, -1 where all are."""
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


def outside_of(chain: Any) -> int:
    """How many of a chain's first transforms have no operators in a graph, or stand before one that
    has none."""
    last = 0
    for number, (part, _) in enumerate(chain.steps, 1):
        if registry.transform(part.name).graph is None:
            last = number
    return last


def entered(before: Graph, chain: Any, schema: Mapping[str, Any], outside: int) -> Value:
    """The value by which a column enters the graph, raw or after the transforms that stay
    outside."""
    kind, name = schema["kind"], f"column {chain.name}"
    if outside:
        made = chain.tried(outside, schema)
        if made.kind == "number":
            width = 1 if made.values.ndim == 1 else made.values.shape[1]
            return Value(before.input(name, "float64", ("rows", width)), "number", width)
        kind, dtype = (
            ("code", "int64") if outside == len(chain.steps) else (made.kind, _DTYPES[made.kind])
        )
        return Value(before.input(name, dtype, ("rows",)), kind)
    if kind == "number":
        width = schema.get("width", 1)
        at = before.input(name, "float64", ("rows", width) if "width" in schema else ("rows",))
        return Value(at if "width" in schema else before.reshape(at, -1, 1), "number", width)
    if kind == "image":
        return Value(before.input(name, "uint8", ("rows", *schema["shape"])), "image")
    return Value(before.input(name, _DTYPES[kind], ("rows",)), kind)


def stages(
    folder: Path, about: Mapping[str, Any]
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """As `start`, but what is run is the preprocessing alone: it gives the network's inputs. For
    finding where answers part."""
    import onnx
    import onnxruntime

    model = onnx.load(folder / FILE, load_external_data=False)
    types = {"numbers": onnx.TensorProto.FLOAT, "categories": onnx.TensorProto.INT64}
    made = {output for node in model.graph.node for output in node.output}
    names = [name for name in types if f"network/{name}" in made]
    if not names:  # images and prepared arrays enter the network as they are
        return lambda arrays: {}
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(f"network/{name}", types[name], None) for name in names
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    wanted = [each.name for each in session.get_inputs()]

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = session.run(
            [f"network/{name}" for name in names], {name: arrays[name] for name in wanted}
        )
        return {name: np.asarray(each) for name, each in zip(names, found, strict=True)}

    return run


def start(
    folder: Path, about: Mapping[str, Any]
) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """What runs the graph in `folder` with ONNX Runtime on the CPU."""
    try:
        import onnxruntime
    except ImportError:
        from danlu.errors import MissingExtra

        raise MissingExtra("onnxruntime", "onnx", "running an ONNX export") from None
    from danlu.exporting.exporters._onnx_guard import refuse_outside
    from danlu.system.atomic_files import read_regular

    data = read_regular(folder / FILE, LARGEST)
    refuse_outside(data)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime raises errors of its own of every kind
        raise ArtifactError(
            f"ONNX Runtime cannot open it: {str(error).splitlines()[0][:300]}.", where=FILE
        ) from None
    names = [each.name for each in session.get_inputs()]
    outputs = [each.name for each in session.get_outputs()]

    def run(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            found = session.run(outputs, {name: arrays[name] for name in names})
        except Exception as error:
            raise ArtifactError(
                f"ONNX Runtime stopped: {str(error).splitlines()[0][:300]}.", where=FILE
            ) from None
        return {name: np.asarray(each) for name, each in zip(outputs, found, strict=True)}

    return run
