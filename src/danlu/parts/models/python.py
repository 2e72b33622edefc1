"""A torch.nn.Module of your own, named as package.module:Class; only with --allow-code.

The class is called with `options` as keyword arguments. If its constructor has parameters called
inputs or output that `options` does not set, they get the specs of the inputs (a dict of
danlu.terms.InputSpec) and of the output (danlu.terms.OutputSpec).

forward gets a tensor if there is one input (forward(x)), the dict of all inputs if its first
parameter is called inputs or annotated as a dict, or each input by name (forward(numbers,
categories)). It returns float32 (B, output size): one number per class or target. This is tested on
two rows of zeros when the model is built.

Importing the module executes its file. A recipe or artifact that names one is therefore refused
unless the caller allows code: danlu train --allow-code, or danlu.system.trust.allow_code().
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from danlu.errors import PartError
from danlu.recipe import Options
from danlu.system.trust import code_is_allowed

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "categories", "image")
DEFAULTS = {
    "optimizer": {"name": "adamw", "learning_rate": 0.001},
    "schedule": {"name": "cosine", "warmup": 0.05},
}


class Config(Options):
    """The class, and the arguments of its constructor."""

    object: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$",
        description="The class as package.module:Class; its module must be on the Python path "
        "or in the working folder.",
    )
    options: dict[str, Any] = Field({}, description="Keyword arguments of the constructor.")

    @field_validator("object")
    @classmethod
    def _code_is_allowed(cls, value: str) -> str:
        if not code_is_allowed():
            raise ValueError(
                "must be permitted with --allow-code (in Python: "
                "danlu.system.trust.allow_code()), since importing it runs its code"
            )
        return value


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The user's module, tested on two rows. PartError for a module that cannot be imported,
    constructed or called."""
    from danlu.parts.models._user_module import Outside

    if not code_is_allowed():  # the options may have been checked while code was allowed
        raise PartError(
            f"the model {config.object} is code of your own, and code is not allowed.",
            hint="add --allow-code",
        )
    network = _construct(config, inputs, output)
    module = Outside(network, list(inputs))
    _try(config.object, module, inputs, output)
    return module


def _construct(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    import inspect

    from torch import nn

    kind = _import(config.object)
    if not callable(kind):
        raise PartError(
            f"{config.object} is no class derived from torch.nn.Module but an object of type "
            f"{type(kind).__name__}."
        )
    options = dict(config.options)
    try:
        parameters = inspect.signature(kind).parameters
    except (TypeError, ValueError):
        parameters = {}
    described = {"inputs": dict(inputs), "output": output}
    options |= {
        name: value
        for name, value in described.items()
        if name in parameters and name not in options
    }
    try:
        module = kind(**options)
    except Exception as error:
        raise PartError(
            f"{config.object} could not be made with the options "
            f"{', '.join(options) or '(none)'}: {_say(error)}.",
            hint="model.options holds the arguments of its constructor",
        ) from error
    if not isinstance(module, nn.Module):
        raise PartError(
            f"{config.object} gave an object of type {type(module).__name__}, not a "
            "torch.nn.Module."
        )
    return module


def _import(path: str) -> Any:
    module, _, names = path.partition(":")
    try:
        target: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise PartError(
            f"there is no Python module {error.name} (for model.object {path}).",
            hint="start danlu in the folder that holds it, or put that folder on PYTHONPATH",
        ) from error
    except Exception as error:
        raise PartError(
            f"the module {module} failed while it was imported: {_say(error)}."
        ) from error
    for name in names.split("."):
        if not hasattr(target, name):  # a module or class of the user's, of unknown type
            from danlu.errors import did_you_mean

            raise PartError(
                f"{module} has no {name} (for model.object {path}).",
                hint=did_you_mean(name, vars(target)),
            )
        target = getattr(target, name)
    return target


def _try(path: str, module: nn.Module, inputs: Mapping[str, InputSpec], output: OutputSpec) -> None:
    """One forward pass of two rows in evaluation; it also gives lazy layers their shapes."""
    import torch

    rows = {
        name: torch.zeros(
            2, *spec.shape, dtype=torch.int64 if spec.kind == "categories" else torch.float32
        )
        for name, spec in inputs.items()
    }
    shapes = ", ".join(f"{name} {tuple(spec.shape)}" for name, spec in rows.items())
    module.eval()
    try:
        with torch.no_grad():
            outputs = module(rows)
    except Exception as error:
        raise PartError(
            f"{path} failed on two rows ({shapes}): {_say(error)}.",
            hint="B is the first dimension of every input",
        ) from error
    finally:
        module.train()
    if not isinstance(outputs, torch.Tensor):
        raise PartError(
            f"{path} returned an object of type {type(outputs).__name__}; its forward must "
            f"return a tensor of shape (B, {output.size})."
        )
    if tuple(outputs.shape) != (2, output.size):
        raise PartError(
            f"{path} made {tuple(outputs.shape)} of two rows ({shapes}); it must make (B, "
            f"{output.size}), here (2, {output.size}).",
            hint=f"one number a row for each of {', '.join(output.names[:5])}"
            if output.names
            else "",
        )
    if not outputs.is_floating_point():
        raise PartError(f"{path} returned {outputs.dtype}; its forward must return float32.")
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise PartError(f"{path} has no parameter to train.")


def _say(error: Exception) -> str:
    """'TypeError: the message (net.py:12)', with the last line of the user's own code."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame
        for frame in frames
        if "/torch/" not in frame.filename
        and "/danlu/" not in frame.filename
        and "importlib" not in frame.filename
    ]
    where = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return (
        f"{type(error).__name__}: "
        f"{str(error).splitlines()[0] if str(error) else 'no message'}{where}"
    )
