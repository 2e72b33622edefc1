"""A module of the user's own, called with the arguments that its forward takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

Call = Literal["dict", "names", "tensor"]


def way_to_call(module: nn.Module, names: list[str]) -> Call:
    """How the module's forward takes the inputs called `names`: "dict", "names" or "tensor".

    dict     forward(inputs): its first parameter is called inputs or annotated as a dict or Mapping
    names    forward(numbers, categories): every input's name is a parameter
    tensor   forward(x): there is one input
    Several inputs that are no parameters are passed as a dict.
    """
    try:
        parameters = inspect.signature(module.forward).parameters
    except (TypeError, ValueError):  # a scripted module has no signature
        return "tensor" if len(names) == 1 else "dict"
    first = next(iter(parameters.values()), None)
    annotation = (
        ""
        if first is None or first.annotation is inspect.Parameter.empty
        else str(first.annotation).lower()
    )
    if first is not None and (
        first.name == "inputs" or "dict" in annotation or "mapping" in annotation
    ):
        return "dict"
    if all(name in parameters for name in names):
        return "names"
    return "tensor" if len(names) == 1 else "dict"


class Outside(nn.Module):
    """forward(inputs) -> the outputs of the user's module."""

    def __init__(self, module: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.module = module
        self.names = names
        self.call: Call = way_to_call(module, names)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        if self.call == "tensor":
            return self.module(inputs[self.names[0]])
        if self.call == "names":
            return self.module(**{name: inputs[name] for name in self.names})
        return self.module(dict(inputs))
