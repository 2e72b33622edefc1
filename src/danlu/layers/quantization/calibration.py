"""What layers read on real rows: the range that 8 bits should cover, and how much work a layer is.

A range is the one whose rounding and cutting off moves the numbers least, in squares, of 21 ranges
between half and all of what was seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from danlu.layers.quantization.int8 import CODES, seen

_SAMPLES = 8192  # numbers remembered of what a layer reads in one batch
_SHARES = 20


@dataclass
class Reading:
    """What one layer reads: the range, evenly spaced samples, and the multiplications a row
    costs."""

    least: float = 0.0
    most: float = 0.0
    samples: list[Tensor] = field(default_factory=list)
    work: float = 0.0

    def note(self, x: Tensor) -> None:
        """Look at one batch of inputs."""
        flat = x.detach().float().reshape(-1)
        self.least, self.most = (
            min(self.least, float(flat.min())),
            max(self.most, float(flat.max())),
        )
        self.samples.append(flat[:: max(1, len(flat) // _SAMPLES)].clone())

    def codes(self) -> tuple[float, int]:
        """(scale, zero): x is about scale * (code - zero)."""
        x = torch.cat(self.samples)
        best: tuple[float, float, int] | None = None
        for place in range(_SHARES // 2, _SHARES + 1):
            scale, zero = affine(self.least * place / _SHARES, self.most * place / _SHARES)
            lost = float((seen(x, scale, zero) - x).square().mean())
            if best is None or lost < best[0]:
                best = lost, scale, zero
        assert best is not None
        return best[1], best[2]


def affine(least: float, most: float) -> tuple[float, int]:
    """(scale, zero) of codes 0 to 255 over a range that holds 0; the scale as float32 holds it."""
    least, most = min(least, 0.0), max(most, 0.0)
    scale = float(torch.tensor(max((most - least) / CODES, 1e-12), dtype=torch.float32))
    return scale, min(CODES, max(0, round(-least / scale)))


def readings(
    module: nn.Module, layers: Mapping[str, nn.Module], batches: Iterable[Mapping[str, Tensor]]
) -> dict[str, Reading]:
    """What each of `layers` reads while the module answers batches of inputs; a layer that reads
    nothing is left out."""
    found: dict[str, Reading] = {}

    def listen(name: str) -> Any:
        def hear(layer: nn.Module, given: tuple[Any, ...], answer: Tensor) -> None:
            reading = found.setdefault(name, Reading())
            reading.note(given[0])
            weight = layer.weight
            assert isinstance(weight, Tensor)
            if not reading.work:
                places = answer.numel() / max(1, answer.shape[0])
                reading.work = places * weight.numel() / max(1, int(_outputs(layer)))

        return hear

    hooks = [layer.register_forward_hook(listen(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for inputs in batches:
                module(dict(inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _outputs(layer: nn.Module) -> int:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.shape[1] if type(layer).__name__ == "Conv1D" else weight.shape[0]
