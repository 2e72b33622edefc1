"""Layers that train with the weights they will have after compression: rounded or masked.

The full weight stays behind and is what the optimizer moves. The gradient passes a rounding as if
it were not there, where the number is within the range, and is 0 outside of it (the
straight-through estimator). A mask lets no gradient of a masked weight through; what an optimizer
adds to it anyway (weight decay, momentum) has no effect on the output.
Sources: Bengio et al., 2013, arXiv:1308.3432; Jacob et al., 2018, arXiv:1712.05877 (training for 8
bits).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.layers.quantization.int8 import LARGEST_INPUT_CODE, LARGEST_WEIGHT_CODE
from danlu.layers.selection import is_conv1d


class ChangedWeight(nn.Module, ABC):
    """A linear layer or convolution that multiplies by a changed form of its weight. Weight and
    bias keep their names in the state dict."""

    weight: Tensor

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias  # type: ignore[assignment]
        self._layer = (layer,)  # in a tuple: its weights must not be counted twice

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives for x with the changed weight, in the layer's own shapes."""
        layer, weight = self._layer[0], self.changed_weight()
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            return layer._conv_forward(self.changed_input(x), weight, self.bias)  # type: ignore[arg-type]
        matrix = weight.T if is_conv1d(layer) else weight
        return functional.linear(self.changed_input(x), matrix, self.bias)  # type: ignore[arg-type]

    @abstractmethod
    def changed_weight(self) -> Tensor:
        """The weight that the forward pass multiplies by, of the shape of `weight`."""

    def changed_input(self, x: Tensor) -> Tensor:
        """The input that the forward pass multiplies, of the shape of x."""
        return x

    def plain_layer(self) -> nn.Module:
        """The layer that this one was made of, with the changed weight as its weight."""
        layer = self._layer[0]
        with torch.no_grad():
            layer.weight.copy_(self.changed_weight())  # type: ignore[union-attr, operator]
        return layer


class MaskedLayer(ChangedWeight):
    """A layer with some of its weights set to 0: `mask` has the shape of the weight, 1 where a
    weight stays and 0 where it is pruned."""

    def __init__(self, layer: nn.Module, mask: Tensor) -> None:
        super().__init__(layer)
        self.register_buffer("mask", mask.to(torch.float32), persistent=False)

    def changed_weight(self) -> Tensor:
        return self.weight * self.mask  # type: ignore[operator]


class FakeQuantizedLayer(ChangedWeight):
    """A layer that computes as its static int8 form will: weights rounded to 8 bits with one scale
    for each output, inputs rounded to codes with a fixed scale and zero point."""

    def __init__(self, layer: nn.Module, scale: float, zero: int) -> None:
        super().__init__(layer)
        self.scale, self.zero = scale, zero

    def changed_weight(self) -> Tensor:
        weight, largest = self.weight, LARGEST_WEIGHT_CODE
        scales = weight.detach().flatten(1).abs().amax(1).div(largest).clamp_(min=1e-30)
        zeros = torch.zeros(len(scales), dtype=torch.int32, device=weight.device)
        return torch.fake_quantize_per_channel_affine(weight, scales, zeros, 0, -largest, largest)

    def changed_input(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(
            x, self.scale, self.zero, 0, LARGEST_INPUT_CODE
        )

    def plain_layer(self) -> nn.Module:
        """The layer with its full weight: the static int8 layer made of it rounds the weight
        itself."""
        return self._layer[0]


def restore_plain_layers(module: nn.Module) -> None:
    """Replace every ChangedWeight in the module, in place, by its plain layer."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, ChangedWeight):
            module.set_submodule(name, layer.plain_layer())
