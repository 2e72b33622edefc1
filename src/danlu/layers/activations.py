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
    """A new activation module. ReLU and SiLU overwrite their input, which no layer of danlu reads
    again.

    >>> activation("gelu")
    GELU(approximate='none')
    """
    kind = _MODULES[name]
    return kind(inplace=True) if name in ("relu", "silu") else kind()


def init_linear(layer: nn.Linear | nn.Conv1d | nn.Conv2d, name: Activation) -> None:
    """Draw weights that keep the variance of the signal through the activation `name`, in place,
    and set the bias to zero.

    The weights are normal with variance gain^2 / fan_in. Sources: He et al., 2015, arXiv:1502.01852
    (rectifiers); Glorot and Bengio, 2010 (tanh)."""
    gain = "tanh" if name == "tanh" else "relu"  # GELU and SiLU halve the signal much as ReLU does
    nn.init.kaiming_normal_(layer.weight, nonlinearity=gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
