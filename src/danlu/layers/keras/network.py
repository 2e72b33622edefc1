"""A Keras 3 network as a torch module: Keras' layers compute, this module owns the weights.

Keras runs on its torch backend and is called statelessly: every call passes the values of its
variables, which are plain parameters and buffers here. So a checkpoint, an average of weights or an
export treats the module like any other; dropout and batch normalization follow train() and eval();
and every random draw comes from torch's own generator, which the update has seeded.

B batch, C channels, H height, W width, F numbers, T places, S numbers of an output.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.errors import DataError, MissingExtra, PartError
from danlu.reading import keras_file
from danlu.system.private_files import keep_inside_cache
from danlu.terms import InputSpec, OutputSpec

Pixels = Literal["normalised", "unit", "bytes"]
_ENDS = {"softmax": "classes", "sigmoid": "labels"}


def library() -> Any:
    """The library Keras on its torch backend. Raises MissingExtra where it is not installed,
    PartError where it is no Keras 3 or runs on another backend."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    keep_inside_cache("MPLCONFIGDIR", "matplotlib", ".config/matplotlib")  # Keras imports it
    try:
        with _own_home():
            keras = importlib.import_module("keras")
    except ImportError:
        raise MissingExtra("the library keras", "keras", "a Keras network") from None
    # getattr, because a stray module called keras may have no version
    if not str(getattr(keras, "__version__", "0")).startswith("3."):
        raise PartError(
            f"this is Keras {keras.__version__}, and danlu works with Keras 3.",
            hint="pip install 'danlu[keras]'",
        )
    if keras.config.backend() != "torch":
        raise PartError(
            f"Keras was imported on its backend {keras.config.backend()} before, and danlu trains "
            "its networks on torch.",
            hint="set the environment variable KERAS_BACKEND to torch before Keras is imported",
        )
    return keras


@contextlib.contextmanager
def _own_home() -> Iterator[None]:
    """While Keras is imported, its settings are in an empty folder: it would write a file into the
    user's home folder, or read one below /tmp that any user can have written. Settings that the
    user has made (KERAS_HOME, ~/.keras/keras.json) are used."""
    if "KERAS_HOME" in os.environ or Path("~/.keras/keras.json").expanduser().is_file():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="danlu-keras-") as folder:
        os.environ["KERAS_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["KERAS_HOME"]


class TensorTree(nn.Module):
    """A tree of tensors under the names that they have in the Keras file."""

    def put(self, path: Sequence[str], tensor: Tensor, *, learns: bool) -> tuple[TensorTree, str]:
        """Register a tensor under a path; gives the node and the name that it got there."""
        *groups, last = path
        node: TensorTree = self
        for group in groups:
            within = {
                key: child for key, child in node._modules.items() if isinstance(child, TensorTree)
            }
            name = node._free(group, set(within))
            if name not in within:
                within[name] = TensorTree()
                node.add_module(name, within[name])
            node = within[name]
        name = node._free(last, set())
        if learns:
            node.register_parameter(name, nn.Parameter(tensor))
        else:
            node.register_buffer(name, tensor)
        return node, name

    def _free(self, wanted: str, shared: set[str]) -> str:
        """The wanted name, or with a number appended where something else has that name."""
        plain, number = re.sub(r"\W", "_", wanted) or "_", 1
        name = plain
        # hasattr, because names of nn.Module's own methods are taken too
        while name not in shared and hasattr(self, name):
            number += 1
            name = f"{plain}_{number}"
        return name


class KerasNetwork(nn.Module):
    """inputs -> (B, S), or as danlu.terms.OutputSpec says, by a checked architecture
    (danlu.reading.keras_file). Weights start at zero.

    A last activation that makes probabilities is removed, because the losses take logits. A network
    with one sigmoid output is one of two classes. Raises PartError where inputs or outputs do not
    fit the task.
    """

    def __init__(
        self,
        architecture: Mapping[str, Any],
        inputs: Mapping[str, InputSpec],
        output: OutputSpec,
        pixels: Pixels,
    ) -> None:
        super().__init__()
        keras = library()
        self.output = output
        self.pixels: Pixels = pixels
        body, learning, self.still = _built(keras, _without_end(architecture, output))
        self.wants = [
            (name, tuple(keras_input.shape[1:]))
            for name, keras_input in zip(_names(body), body.inputs)
        ]
        self.matched = _matched(self.wants, inputs)
        self.described = {name: inputs[name] for name in self.matched}
        self.keys = _keys(architecture)
        self.two = _refuse_other_output(body, output)
        for (name, shape), ours in zip(self.wants, self.matched):
            _refuse_other_input(name, shape, ours, inputs[ours])
        self.weights = TensorTree()
        layer_names = {
            str(layer["config"]["name"])
            for layer in keras_file.objects_in(dict(architecture))
            if "name" in layer["config"]
        }
        nodes = []
        for variable in body.variables:
            if variable.name == "seed_generator_state":
                continue
            dtype = torch.float32 if "float" in str(variable.dtype) else torch.int64
            tensor = torch.zeros(tuple(variable.shape), dtype=dtype)
            learns = id(variable) in learning
            node, name = self.weights.put(_path(variable.path, layer_names), tensor, learns=learns)
            if learns and not variable.trainable:
                getattr(node, name).requires_grad_(False)
            nodes.append((variable, node, name))
        seeds = [seed for seed in body.variables if seed.name == "seed_generator_state"]
        # in a tuple, so that it is no submodule: Keras' own copies of the weights are never used
        self.keras_parts = (body, [variable for variable, _, _ in nodes], seeds)
        self.places = _Places([(node, name) for _, node, name in nodes])

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        body, variables, seeds = self.keras_parts
        keras = library()
        values = self.places.values()
        first = inputs[self.matched[0]]
        pairs = [*zip(variables, values), *((seed, self._seed(first.device)) for seed in seeds)]
        arranged = [
            self._arranged(input_name, shape, inputs[input_name])
            for input_name, (_, shape) in zip(self.matched, self.wants)
        ]
        with keras.device(str(first.device)), keras.StatelessScope(state_mapping=pairs) as scope:
            outputs = body(
                arranged[0] if self.keys is None else self.keys(arranged), training=self.training
            )
        if self.training:
            for (node, name), variable, value in zip(self.places.names, variables, values):
                new = scope.get_current_value(variable)
                if new is not value and name in node._buffers:
                    with torch.no_grad():
                        value.copy_(new)
        outputs = outputs.float()
        return torch.cat([torch.zeros_like(outputs), outputs], dim=1) if self.two else outputs

    def _seed(self, device: torch.device) -> Tensor:
        """The seed of the random draws of one layer in one update; from torch's generator, in
        training only."""
        if not self.training:
            return torch.zeros(2, dtype=torch.int64, device=device)
        return torch.randint(0, 2**31 - 1, (2,), dtype=torch.int64, device=device)

    def _arranged(self, name: str, shape: tuple[int | None, ...], x: Tensor) -> Tensor:
        """An input in the shape that the network's input of that name takes."""
        described = self.described[name]
        if described.kind == "image":
            return _image(self._scaled(described, x), shape, described)
        if described.kind == "tokens":
            places = shape[0] or described.shape[0]
            x = x[:, :places]
            return functional.pad(x, [0, 0] * (x.ndim - 2) + [0, places - x.shape[1]])
        return x

    def _scaled(self, described: InputSpec, x_BCHW: Tensor) -> Tensor:
        """Normalised pixels on the scale that the network was trained with."""
        if self.pixels == "normalised":
            return x_BCHW
        mean, std = (
            torch.tensor(numbers, device=x_BCHW.device)[:, None, None]
            for numbers in (described.mean, described.std)
        )
        unit_BCHW = x_BCHW * std + mean
        return unit_BCHW * 255 if self.pixels == "bytes" else unit_BCHW

    def load(self, weights: bytes, where: str) -> None:
        """Load the weights of an HDF5 file. Raises DataError where they are not of this network;
        `where` names the file."""
        body, variables, _ = self.keras_parts
        keras = library()
        keras_file.check_weights(weights, where)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.weights.h5"
            path.write_bytes(weights)
            try:
                with keras.device("cpu"), keras.StatelessScope() as scope:
                    body.load_weights(path)
            except (ValueError, KeyError, OSError, RuntimeError, TypeError) as error:
                reason = str(error).strip().split("\n")[0][:300]
                raise DataError(
                    f"its weights are not those of its layers: {reason}", where=where
                ) from None
        for variable, value in zip(variables, self.places.values()):
            loaded = scope.get_current_value(variable)
            if loaded is None or not torch.isfinite(loaded).all():
                reason = "is missing" if loaded is None else "holds NaN or infinite numbers"
                raise DataError(f"its weight {variable.path} {reason}.", where=where)
            with torch.no_grad():
                value.copy_(loaded)

    def __deepcopy__(self, memo: dict[int, Any]) -> KerasNetwork:
        """A module with tensors of its own; the Keras layers, which hold none, are shared."""
        memo[id(self.keras_parts)] = self.keras_parts
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


class _Places:
    """The current values of the network's variables: looked up at every call, because moving the
    module replaces its buffers."""

    def __init__(self, names: list[tuple[TensorTree, str]]) -> None:
        self.names = names

    def values(self) -> list[Tensor]:
        return [getattr(node, name) for node, name in self.names]


# --- what the network is


def _built(keras: Any, architecture: Mapping[str, Any]) -> tuple[Any, set[int], list[str]]:
    """(the Keras network, the ids of its trainable variables, the names of the layers that the file
    froze)."""
    try:
        with torch.random.fork_rng(devices=[]), keras.device("cpu"):
            body = keras.saving.deserialize_keras_object(
                copy.deepcopy(dict(architecture)), safe_mode=True
            )
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        RuntimeError,
        NotImplementedError,
        MemoryError,
    ) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise PartError(
            f"its config describes no network: {reason}",
            hint="save the network again with this version of Keras",
        ) from None
    if not isinstance(body, keras.Model) or not body.built or not body.inputs:
        raise PartError(
            "its layers are not built: the shape of its input is not known.",
            hint="begin the network with keras.Input(shape), or call it once before it is saved",
        )
    if len(body.outputs) != 1:
        raise PartError(f"it has {len(body.outputs)} outputs, and a task asks for one.")
    layers = [body, *body._flatten_layers(include_self=False)]
    was = [(layer, layer.trainable) for layer in layers]
    body.trainable = True
    learning = {id(variable) for variable in body.trainable_variables}
    for layer, trainable in was:
        layer.trainable = trainable
    return body, learning, [layer.name for layer, trainable in was if not trainable]


def _names(body: Any) -> list[str]:
    return [str(keras_input.name) for keras_input in body.inputs]


def _path(path: str, layer_names: set[str]) -> list[str]:
    """A variable's path without the numbers that Keras appends in the order in which a process
    builds layers."""
    return [step if step in layer_names else re.sub(r"_\d+$", "", step) for step in path.split("/")]


def _keys(architecture: Mapping[str, Any]) -> Any:
    """What brings the tensors of several inputs into the form that the network is called with (a
    dict or a list); None for one input."""
    input_layers = architecture["config"].get("input_layers")
    if isinstance(input_layers, dict):
        names = sorted(input_layers)  # as Keras flattens a dict
        return lambda given: dict(zip(names, given))
    several = (
        isinstance(input_layers, list) and bool(input_layers) and isinstance(input_layers[0], list)
    )
    return list if several else None


def _without_end(architecture: Mapping[str, Any], output: OutputSpec) -> dict[str, Any]:
    """The architecture with logits as outputs, where they are classes or labels."""
    changed = copy.deepcopy(dict(architecture))
    if len(output.means) != 1 or output.means[0][0] == "numbers":
        return changed
    config = changed["config"]
    layers = config["layers"]
    last = layers[-1] if layers else {}
    if "output_layers" in config:
        named = config["output_layers"]
        while isinstance(named, list) and named and isinstance(named[0], list):
            named = named[0]
        name = named[0] if isinstance(named, list) and named else ""
        last = next((layer for layer in layers if layer.get("name") == name), last)
    if last.get("class_name") in MODELS_WITHIN:  # a network whose end is another network
        inner = _without_end(last, output)
        last.update(inner)
    elif last.get("class_name") == "Softmax":
        last.update(
            class_name="Activation",
            config={"name": last["config"].get("name"), "activation": "linear"},
        )
        for node in last.get("inbound_nodes", []):
            node["kwargs"] = {}  # a mask, which Activation does not take
    elif last.get("config", {}).get("activation") in _ENDS:
        last["config"]["activation"] = "linear"
    return changed


MODELS_WITHIN = keras_file.MODELS


def _refuse_other_output(body: Any, output: OutputSpec) -> bool:
    """Whether the network has one output for two classes. Raises PartError where its outputs are
    not those of the task."""
    (keras_output,) = body.outputs
    shape = tuple(keras_output.shape[1:])
    wanted = (output.steps, output.size) if output.per == "step" else (output.size,)
    if output.per == "row" and shape == (1,) and output.means == (("classes", 2),):
        return True
    if shape != wanted:
        own_shape = "x".join(map(str, shape)) or "single numbers"
        raise PartError(
            f"its last layer gives {own_shape} numbers a row, and the task needs "
            f"{'x'.join(map(str, wanted))}.",
            hint=f"one for each of {', '.join(output.names[:5])}" if output.names else "",
        )
    return False


def _matched(
    wants: Sequence[tuple[str, tuple[int | None, ...]]], inputs: Mapping[str, InputSpec]
) -> list[str]:
    """The name of danlu's input for each input of the network."""
    if len(wants) == 1 and len(inputs) == 1:
        return list(inputs)
    missing = [name for name, _ in wants if name not in inputs]
    if missing or len(wants) != len(inputs):
        raise PartError(
            f"its inputs are {', '.join(name for name, _ in wants)}, and the data gives "
            f"{', '.join(inputs)}.",
            hint="name each input as danlu does: keras.Input(shape, name='numbers')",
        )
    return [name for name, _ in wants]


def _refuse_other_input(
    name: str, shape: tuple[int | None, ...], input_name: str, described: InputSpec
) -> None:
    if described.kind == "image":
        channels, height, width = described.shape
        forms = [
            (height, width, channels),
            (channels, height, width),
            (math.prod(described.shape),),
        ]
        forms += [(height, width)] if channels == 1 else []
    else:
        forms = [described.shape]
    if (
        described.kind == "tokens"
        and len(shape) == len(described.shape)
        and shape[1:] == described.shape[1:]
    ):
        return  # of any length
    if not any(
        len(shape) == len(form) and all(mine in (None, theirs) for mine, theirs in zip(shape, form))
        for form in forms
    ):
        own_shape = (
            "x".join("any" if length is None else str(length) for length in shape)
            or "a single number"
        )
        raise PartError(
            f"its input {name} takes {own_shape}, and {input_name} is "
            f"{' or '.join('x'.join(map(str, form)) for form in forms)} a row.",
            hint="bring the data to that form (data.columns, data.transforms), or make a network "
            "for this one",
        )


def _image(x_BCHW: Tensor, shape: tuple[int | None, ...], described: InputSpec) -> Tensor:
    channels, height, width = described.shape
    fits = [mine in (None, theirs) for mine, theirs in zip(shape, (height, width, channels))]
    if len(shape) == 1:
        return x_BCHW.permute(0, 2, 3, 1).flatten(1)
    if len(shape) == 2:
        return x_BCHW[:, 0]
    return x_BCHW.permute(0, 2, 3, 1) if all(fits) else x_BCHW


def open_network(file: keras_file.KerasFile, where: str) -> Any:
    """The Keras network of a checked file, with its weights; `where` names the file. Raises
    PartError or DataError where the file describes none."""
    keras = library()
    body, _, _ = _built(keras, file.architecture)
    keras_file.check_weights(file.weights, where)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        path.write_bytes(file.weights)
        try:
            with keras.device("cpu"):
                body.load_weights(path)
        except (ValueError, KeyError, OSError, RuntimeError, TypeError) as error:
            reason = str(error).strip().split("\n")[0][:300]
            raise DataError(
                f"its weights are not those of its layers: {reason}", where=where
            ) from None
    return body
