"""A network as ONNX by torch's exporter, as the exporters onnx and openvino need it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from danlu.errors import ArtifactError
from danlu.parts.transforms._onnx_graph import OPSET

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from torch import Tensor, nn

    from danlu.exporting.traceable import TraceableModel


_REACH = 512  # places that rotary positions are tabulated for, at least


def onnx_network(model: TraceableModel) -> tuple[ModelProto, dict[str, int]]:
    """(the network as ONNX; by input, the one length that it must be padded to, {} where any length
    will do). Raises ArtifactError where torch cannot trace it or ONNX lacks an operator."""
    import torch

    from danlu.layers.attention.rotary import Rotary

    module = with_recurrent_operators(model.module)
    reach = max(_REACH, 4 * max(model.longest.values(), default=0))
    for layer in module.modules():
        if isinstance(layer, Rotary):  # its table becomes a constant of the graph, and cannot grow
            layer.angles(reach)
    try:
        with quiet_exporter():
            captured, fixed = replace(model, module=module).captured()
    except Exception as error:
        raise ArtifactError(
            f"torch cannot trace this network ({_first_line(error)}).",
            hint="--to safetensors",
        ) from None
    try:
        with quiet_exporter():
            exported = torch.onnx.export(
                captured,
                dynamo=True,
                opset_version=OPSET,
                input_names=list(model.inputs),
                output_names=list(model.outputs),
                verbose=False,
            )
    except Exception as error:
        raise ArtifactError(
            f"ONNX has no operators for this network ({_first_line(error)}).",
            hint="--to torch_export",
        ) from None
    assert exported is not None
    network = exported.model_proto
    remove_traces(network)
    return network, fixed


def remove_traces(model: ModelProto) -> None:
    """Remove, in place, what torch's exporter records of the source code, for debugging: stack
    traces with file paths of this machine, and names of classes."""
    model.ClearField("metadata_props")
    for graph in (model.graph, *model.functions):
        graph.ClearField("metadata_props")
        graph.ClearField("doc_string")
        _remove_traces_of_nodes(graph.node)
    for values in (model.graph.value_info, model.graph.input, model.graph.output):
        for value in values:
            value.ClearField("metadata_props")
            value.ClearField("doc_string")
    for tensor in model.graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")


def _remove_traces_of_nodes(nodes: Iterable[NodeProto]) -> None:
    for node in nodes:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
            for graph in (attribute.g, *attribute.graphs):
                _remove_traces_of_nodes(graph.node)


def _first_line(error: Exception) -> str:
    """The line of an error of torch's exporter that names its cause, at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("<class ")]
    return f"{type(error).__name__}: {(causes or lines or [''])[0][:200]}"


def with_recurrent_operators(module: nn.Module) -> nn.Module:
    """A copy of the module whose recurrent layers are single ONNX operators; torch would unroll
    them, one copy for each place."""
    import copy

    from torch import nn

    copied = copy.deepcopy(module)
    for parent in list(copied.modules()):
        for name, child in parent.named_children():
            if (
                isinstance(child, nn.RNNBase)
                and child.num_layers == 1
                and not child.bidirectional
                and child.batch_first
            ):
                setattr(parent, name, _recurrent_operator(child))
    return copied


_OPERATORS = {
    "LSTM": ("LSTM", (0, 3, 1, 2)),
    "GRU": ("GRU", (1, 0, 2)),
    "RNN": ("RNN", (0,)),
}  # (the operator, torch's gates in the order of ONNX)


def _recurrent_operator(layer: nn.RNNBase) -> nn.Module:
    """A recurrent layer of one direction as one operator. Source: ONNX operators LSTM, GRU
    (linear_before_reset) and RNN, opset 14."""
    import torch
    from torch import nn

    operator, order = _OPERATORS[layer.mode.partition("_")[0]]
    tensors = dict(layer.named_parameters())

    def in_onnx_order(name: str) -> Tensor:
        gates = tensors[name].detach().chunk(len(order), dim=0)
        return torch.cat([gates[gate] for gate in order], dim=0)

    class Cell(nn.Module):
        w: Tensor
        r: Tensor
        b: Tensor | None

        def __init__(self) -> None:
            super().__init__()
            self.hidden = layer.hidden_size
            self.register_buffer("w", in_onnx_order("weight_ih_l0")[None])
            self.register_buffer("r", in_onnx_order("weight_hh_l0")[None])
            if layer.bias:
                self.register_buffer(
                    "b",
                    torch.cat([in_onnx_order("bias_ih_l0"), in_onnx_order("bias_hh_l0")])[None],
                )
            else:
                self.b = None
            self.attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
            if operator == "GRU":
                self.attributes["linear_before_reset"] = 1
            if operator == "RNN":
                self.attributes["activations"] = ["Relu" if layer.mode == "RNN_RELU" else "Tanh"]

        def forward(
            self, x_BTI: Tensor, before: Tensor | tuple[Tensor, ...] | None = None
        ) -> tuple[Tensor, Tensor | tuple[Tensor, ...]]:
            rows, places = x_BTI.shape[0], x_BTI.shape[1]
            initial = (
                () if before is None else tuple(before) if isinstance(before, tuple) else (before,)
            )
            state = (1, rows, self.hidden)
            shapes = [
                (places, 1, rows, self.hidden),
                state,
                *([state] if operator == "LSTM" else []),
            ]
            outputs = torch.onnx.ops.symbolic_multi_out(
                f"ai.onnx::{operator}",
                (x_BTI.transpose(0, 1), self.w, self.r, self.b, None, *initial),
                self.attributes,
                dtypes=[x_BTI.dtype] * len(shapes),
                shapes=shapes,
                version=14,
            )
            y_BTH = outputs[0].squeeze(1).transpose(0, 1)
            return y_BTH, (outputs[1], outputs[2]) if operator == "LSTM" else outputs[1]

    return Cell()


@contextlib.contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silences what torch's exporter logs and warns of: missing torchvision, its own deprecations,
    its passes."""
    loggers = [
        logging.getLogger(name)
        for name in ("", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    ]
    levels = [logger.level for logger in loggers]
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
