"""A Keras 3 network, trained further from the weights of its .keras file.

`path` is a .keras file of a functional or sequential model that is built (its input shape is known)
from Keras' own layers in float32. It runs on Keras' torch backend. No code in the file is executed:
Lambda layers and custom classes are refused by name, and so are files with anything but config,
metadata and weights. Training starts from its weights; layers that the file froze stay frozen.

Inputs   a single input of the network reads the single input of the data; several are matched by
         name (numbers, categories, image, ...). An image may be height x width x channels,
         channels first, height x width or flat; a text is padded with 0, or cut, to the input's
         length
Outputs  one number per class or target, in danlu's order. A last softmax or sigmoid is left out,
         since losses take logits; one sigmoid output means two classes

Regularizers and constraints of its layers are left out: use the recipe's section regularization.
The artifact contains the network: it no longer needs the file. Needs the library keras: pip install
'danlu[keras]'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from danlu.errors import PartError
from danlu.reading import keras_file
from danlu.recipe import Options
from danlu.system.trust import lookups_are_allowed

if TYPE_CHECKING:
    from torch import nn

    from danlu.terms import InputSpec, OutputSpec

TAKES = ("numbers", "categories", "image", "tokens", "series")
GIVES = ("row", "step")
DEFAULTS = {
    "optimizer": {"name": "adam", "learning_rate": 0.001},
    "schedule": {"name": "constant"},
    "train.epochs": 10,
    "train.batch_size": 32,
}


class Config(Options):
    """The file, and the scale of its pixels."""

    path: str | None = Field(None, description="The .keras file.")
    pixels: Literal["auto", "normalised", "unit", "bytes"] = Field(
        "auto",
        description="The scale of pixels the file was trained with: bytes (0 to 255), unit (0 "
        "to 1), or danlu's (mean 0, standard deviation 1); "
        "auto: bytes where it has a layer Rescaling, else unit.",
    )
    architecture: dict[str, Any] | None = Field(
        None,
        description="The architecture, as an artifact stores it; null: read from the file.",
    )


def build(config: Config, inputs: Mapping[str, InputSpec], output: OutputSpec) -> nn.Module:
    """The network with weights 0; `begin` loads those of the file. PartError where it cannot do
    what the task asks."""
    from danlu.layers.keras.network import KerasNetwork

    architecture = _architecture(config)
    if output.causal:
        raise PartError(
            "danlu cannot check that a Keras network does not look ahead.",
            hint="choose model: gpt or rnn",
        )
    rescales = any(
        layer["class_name"] == "Rescaling" for layer in keras_file.objects_in(architecture)
    )
    pixels = ("bytes" if rescales else "unit") if config.pixels == "auto" else config.pixels
    return KerasNetwork(architecture, inputs, output, pixels)


def begin(config: Config, module: nn.Module) -> tuple[str, str, tuple[str, ...]]:
    """Load the file's weights into the module; returns (SHA-256, notice, ())."""
    from danlu.layers.keras.network import KerasNetwork

    if config.path is None:
        raise PartError(
            "a Keras network to train needs its weights.", hint="name its file: model.path"
        )
    assert isinstance(module, KerasNetwork)
    file = keras_file.read_keras_file(config.path)
    module.load(file.weights, config.path)
    notice = f"the weights are those of {config.path}"
    if module.still:
        notice += f"; {', '.join(module.still[:6])} stay as they are, since the file froze them"
    left = sorted(
        {layer["class_name"] for layer in keras_file.objects_in(file.architecture)} & _LEFT_OUT
    )
    if left:
        notice += (
            f"; the file's {' and '.join(left)} are left out (section regularization has "
            "such things)"
        )
    return file.digest, f"{notice}.", ()


_LEFT_OUT = keras_file.REGULARIZERS | keras_file.CONSTRAINTS


def settled(config: Config) -> Config:
    """The options with the architecture of the file instead of its path."""
    return Config(architecture=_architecture(config), pixels=config.pixels)  # type: ignore[call-arg]


def _architecture(config: Config) -> dict[str, Any]:
    if config.architecture is not None:
        return keras_file.checked_architecture(config.architecture)
    if config.path is None:
        raise PartError("the model keras needs a file.", hint="name it: model.path: FILE.keras")
    if not lookups_are_allowed():
        raise PartError(
            "this artifact does not contain its network's architecture, and the file that it "
            "names is not read."
        )
    return keras_file.read_keras_file(config.path).architecture
