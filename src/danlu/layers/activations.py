"""Activations by the names that recipes use."""

from __future__ import annotations

from typing import Literal

from torch import nn

Activation = Literal["relu", "gelu", "silu", "tanh"]

_MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def activation(name: Activation) -> nn.Module:
    """A new activation module; the ReLU and SiLU write over their argument, which no layer of danlu
    needs again."""
    kind = _MODULES[name]
    return kind(inplace=True) if name in ("relu", "silu") else kind()


def init_linear(layer: nn.Linear | nn.Conv1d | nn.Conv2d, name: Activation) -> None:
    """Draws weights that keep the size of the signal through the activation `name`, and sets the
    bias to zero.

    Normal with variance gain^2 / fan_in. Sources: He et al., 2015, arXiv:1502.01852 (rectifiers);
    Glorot and Bengio, 2010 (tanh)."""
    gain = "tanh" if name == "tanh" else "relu"  # GELU and SiLU halve the signal much as ReLU does
    nn.init.kaiming_normal_(layer.weight, nonlinearity=gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
