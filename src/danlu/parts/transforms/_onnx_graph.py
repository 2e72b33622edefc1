"""A builder of ONNX graphs for the preprocessing before a network.

Nodes are added by the name of their operator; a value is its name in the graph.

    graph = Graph()
    x = graph.input("age", "float64", (ROWS,))
    y = graph.add("Div", [x, graph.constant(np.array([2.0]))])

Source: the ONNX operators of opset 20 and of ai.onnx.ml 4 (onnx.ai/onnx/operators), as ONNX Runtime
runs them on a CPU.
"""

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
    """A column of N rows inside a graph: the name of its value, its kind, its width D.

    number    float64 (N, D), NaN where missing
    category  strings (N,), "" where missing
    code      int64 (N,), the code of a category
    boolean   int8 (N,), -1 where missing
    datetime  int64 (N,), microseconds since 1970, -2**63 where missing
    image     uint8 (N, H, W, C)
    """

    at: str
    kind: str
    width: int = 1


@dataclass
class Graph:
    """The nodes, constants, inputs and outputs of a model under construction."""

    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """A new input of the graph; returns its name."""
        from onnx import helper

        self.inputs.append(helper.make_tensor_value_info(name, TYPES[dtype], list(shape)))
        return name

    def output(self, value: str, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Make a value an output of the graph, called `name`."""
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
        """A new node that applies an operator to values; returns the name of its output."""
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

    # --- operations that several transforms need

    def cast(self, value: str, dtype: str) -> str:
        """The value converted to another type."""
        return self.add("Cast", [value], to=TYPES[dtype])

    def reshape(self, value: str, *shape: int) -> str:
        """The value in another shape; -1 is inferred."""
        return self.add("Reshape", [value, self.constant(np.array(shape, dtype=np.int64))])

    def beside(self, values: Sequence[str], axis: int = 1) -> str:
        """The matrices concatenated along `axis`."""
        return values[0] if len(values) == 1 else self.add("Concat", values, axis=axis)

    def lookup(self, value: str, table: Mapping[str, int], otherwise: int) -> str:
        """The int64 number of each string in `table`, `otherwise` for strings that it does not
        hold."""
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
        """The number column whose value is called `at`, of `width` features (None: as `value`)."""
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
    """One model of a graph and the network after it; `feeds` maps each input of the network to a
    value of `before`.

    The network's inner names get the prefix "network/", so that no column of a table can have the
    same name. Its outputs keep their names.
    """
    from onnx import compose, helper

    inner = compose.add_prefix(network, "network/", rename_functions=False)
    outputs = {f"network/{tensor.name}": tensor.name for tensor in network.graph.output}
    entries = [
        helper.make_node("Identity", [feeds[tensor.name]], [f"network/{tensor.name}"])
        for tensor in network.graph.input
    ]
    exits = [helper.make_node("Identity", [old], [new]) for old, new in outputs.items()]
    whole = helper.make_graph(
        [*before.nodes, *entries, *inner.graph.node, *exits],
        "danlu",
        before.inputs,
        [*network.graph.output, *before.outputs],
        [*before.constants.values(), *inner.graph.initializer],
    )
    imports = {tensor.domain: tensor.version for tensor in network.opset_import}
    imports |= {"": max(OPSET, imports.get("", 0)), ML: ML_OPSET}
    opsets = [helper.make_opsetid(domain, version) for domain, version in imports.items()]
    model = helper.make_model(whole, opset_imports=opsets, producer_name="danlu", ir_version=10)
    model.functions.extend(inner.functions)
    return model
