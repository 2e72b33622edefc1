"""The features that a trained network decides by: the input of its last linear layer.

B batch, D features, S outputs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class PenultimateLayer:
    """layer(inputs) -> (features (B, D), outputs (B, S)), both float32, in evaluation mode and
    without gradients.

    The last linear layer is the one called last. Raises ValueError where the network has none, or
    one whose input is not one vector per row."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()
        self._seen: Tensor | None = None
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(self._keep_input)

    def _keep_input(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen = inputs[0]

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        self._seen = None
        with torch.no_grad():
            outputs = self.module(inputs)
        if self._seen is None or self._seen.ndim != 2 or len(self._seen) != len(outputs):
            raise ValueError("it has no linear layer at its end with one vector per row")
        return self._seen.float(), outputs.float()
