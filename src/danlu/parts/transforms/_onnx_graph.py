"""A builder of ONNX graphs, for what transforms do before a network: nodes are added by name of the operator, values are names.

    graph = Graph(); x = graph.input("age", "float64", (ROWS,)); y = graph.add("Div", [x, graph.constant(np.array([2.0]))])

Source: ONNX operators of opset 20 and of ai.onnx.ml 4 (onnx.ai/onnx/operators), as ONNX Runtime
runs them on a CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

OPSET, ML_OPSET = 20, 4
ROWS = "rows"
ML = "ai.onnx.ml"
TYPES = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "str": 8,
    "bool": 9,
    "float64": 11,
}  # TensorProto


@dataclass(frozen=True)
class Value:
    """A column on its way through a graph, N rows.

    number    float64 (N, D), NaN where missing; `names` of the D features       category   strings (N,), "" where missing
    code      int64 (N,), a category as its number                               boolean    int8 (N,), -1 where missing
    datetime  int64 (N,), microseconds, -2**63 where missing                     image      uint8 (N, H, W, C)
    """

    at: str
    kind: str
    width: int = 1


@dataclass
class Graph:
    """Nodes, constants and inputs that a model is made of."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """A value that whoever runs the graph gives."""
        from onnx import helper

        self.inputs.append(helper.make_tensor_value_info(name, TYPES[dtype], list(shape)))
        return name

    def output(self, value: str, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """A value that whoever runs the graph receives, under a name."""
        from onnx import helper

        self.add("Identity", [value], called=name)
        self.outputs.append(helper.make_tensor_value_info(name, TYPES[dtype], list(shape)))

    def constant(self, array: Any) -> str:
        """A constant of the graph: an array, a number (int64 or float64), or strings."""
        from onnx import helper, numpy_helper

        name = f"before/constant_{len(self.constants)}"
        array = np.asarray(array)
        if array.dtype.kind in "UO":
            words = [str(word).encode() for word in array.reshape(-1).tolist()]
            self.constants[name] = helper.make_tensor(name, TYPES["str"], list(array.shape), words)  # type: ignore
        else:
            self.constants[name] = numpy_helper.from_array(
                np.ascontiguousarray(array).reshape(array.shape), name
            )
        return name

    def add(
        self,
        operator: str,
        values: Sequence[str],
        *,
        domain: str = "",
        called: str | None = None,
        **attributes: Any,
    ) -> str:
        """The value that an operator gives of values."""
        from onnx import helper

        name = called or f"before/{operator}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(
                operator,
                list(values),
                [name],
                name=f"before/node_{len(self.nodes)}",
                domain=domain,
                **attributes,
            )
        )
        return name

    # --- what many transforms need

    def cast(self, value: str, dtype: str) -> str:
        """The value in another type."""
        return self.add("Cast", [value], to=TYPES[dtype])

    def reshape(self, value: str, *shape: int) -> str:
        """The value in another shape; -1 for what is left."""
        return self.add("Reshape", [value, self.constant(np.array(shape, dtype=np.int64))])

    def beside(self, values: Sequence[str], axis: int = 1) -> str:
        """Matrices side by side."""
        return values[0] if len(values) == 1 else self.add("Concat", values, axis=axis)

    def lookup(self, value: str, table: Mapping[str, int], otherwise: int) -> str:
        """The number of each string, int64."""
        if not table:
            empty = self.add("Equal", [value, value])
            return self.add(
                "Where",
                [empty, self.constant(np.int64(otherwise)), self.constant(np.int64(otherwise))],
            )
        return self.add(
            "LabelEncoder",
            [value],
            domain=ML,
            keys_strings=list(table),
            values_int64s=list(table.values()),
            default_int64=otherwise,
        )

    def numbers(self, value: Value, at: str, width: int | None = None) -> Value:
        """A number value over other numbers."""
        return replace(value, at=at, kind="number", width=value.width if width is None else width)

    def model(self, producer: str) -> Any:
        """The onnx.ModelProto."""
        from onnx import helper

        graph = helper.make_graph(
            self.nodes, "danlu", self.inputs, self.outputs, list(self.constants.values())
        )
        imports = [helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)]
        return helper.make_model(
            graph, opset_imports=imports, producer_name=producer, ir_version=10
        )


def joined(before: Graph, network: Any, feeds: Mapping[str, str]) -> Any:
    """One model of a graph and the network behind it; `feeds` tells which value of `before` each
    input of the network is.

    The network's other names are put behind "network/", so that no column of a table can share one.
    Its outputs keep theirs."""
    from onnx import compose, helper

    inner = compose.add_prefix(network, "network/", rename_functions=False)
    outputs = {f"network/{tensor.name}": tensor.name for tensor in network.graph.output}
    whole = helper.make_graph(
        [*before.nodes, *(helper.make_node("Identity", [feeds[tensor.name]], [f"network/{tensor.name}"]) for tensor in network.graph.input),
         *inner.graph.node, *(helper.make_node("Identity", [old], [new]) for old, new in outputs.items())],
        "danlu", before.inputs, [*network.graph.output, *before.outputs], [*before.constants.values(), *inner.graph.initializer],
    )  # fmt: skip
    imports = {tensor.domain: tensor.version for tensor in network.opset_import}
    imports |= {"": max(OPSET, imports.get("", 0)), ML: ML_OPSET}
    opsets = [helper.make_opsetid(domain, version) for domain, version in imports.items()]
    model = helper.make_model(whole, opset_imports=opsets, producer_name="danlu", ir_version=10)
    model.functions.extend(inner.functions)
    return model
