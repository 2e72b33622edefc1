"""Layers that train as what they will be: their weights seen through a rounding or a mask, while the full ones behind it move.

The gradient goes through a rounding as if it were not there, where the number is within the range,
and stops outside of it (the straight-through estimator). A mask lets no gradient of what it hides
through, and what optimizers add there anyway is not seen.
Sources: Bengio et al., 2013, arXiv:1308.3432; Jacob et al., 2018, arXiv:1712.05877 (training for 8
bits)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.quantization.int8 import CODES, LARGEST


class SeenThrough(nn.Module):
    """A linear layer or convolution whose weight is changed on the way; weight and bias keep their
    names."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self._layer = (layer,)  # in a tuple: its weights must not be counted twice

    def forward(self, x: Tensor) -> Tensor:
        """What the layer makes of x with the changed weight."""
        layer, weight = self._layer[0], self.changed()
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            return layer._conv_forward(self.read(x), weight, self.bias)  # type: ignore[arg-type]
        turned = type(layer).__name__ == "Conv1D"
        return functional.linear(self.read(x), weight.T if turned else weight, self.bias)  # type: ignore[arg-type]

    def changed(self) -> Tensor:
        """The weight as it is multiplied by."""
        raise NotImplementedError

    def read(self, x: Tensor) -> Tensor:
        """What is read, as it is multiplied by."""
        return x

    def settled(self) -> nn.Module:
        """The layer, the change put into its weight."""
        layer = self._layer[0]
        with torch.no_grad():
            layer.weight.copy_(self.changed())  # type: ignore[union-attr, operator]
        return layer


class Masked(SeenThrough):
    """A layer of whose weights only some are there."""

    def __init__(self, layer: nn.Module, mask: Tensor) -> None:
        super().__init__(layer)
        self.register_buffer("mask", mask.to(torch.float32), persistent=False)

    def changed(self) -> Tensor:
        return self.weight * self.mask  # type: ignore[operator]


class Rounded(SeenThrough):
    """A layer as its static int8 form will be: weights to 8 bits, an output's by its largest;
    inputs to codes at a fixed scale."""

    def __init__(self, layer: nn.Module, scale: float, zero: int) -> None:
        super().__init__(layer)
        self.scale, self.zero = scale, zero

    def changed(self) -> Tensor:
        weight = self.weight
        assert isinstance(weight, Tensor)
        scales = weight.detach().flatten(1).abs().amax(1).div(LARGEST).clamp_(min=1e-30)
        zeros = torch.zeros(len(scales), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -LARGEST, LARGEST)

    def read(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, 0, CODES)

    def settled(self) -> nn.Module:
        """The layer with its full weight: what is static int8 rounds it itself."""
        return self._layer[0]


def settle(module: nn.Module) -> None:
    """Put every layer of the kind back as the plain layer it stands for."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, SeenThrough):
            module.set_submodule(name, layer.settled())
