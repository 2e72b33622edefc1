"""Calibration: the range of a layer's inputs on real rows, and how much work the layer does.

A range is the one whose rounding and clipping changes the inputs least, in mean squared error, of
11 ranges between half and all of what was observed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from danlu.layers.quantization.int8 import LARGEST_INPUT_CODE, fake_quantize
from danlu.layers.selection import is_conv1d

_SAMPLES = 8192  # numbers remembered of a layer's inputs in one batch
_STEPS = 20  # of the observed range; ranges of 10 to 20 of them are tried


@dataclass
class InputStatistics:
    """What calibration observed of one layer's inputs.

    minimum, maximum  of all inputs, and of 0
    samples           some of the inputs, evenly spaced, one tensor for each batch
    work              multiplications that the layer does for one row
    """

    minimum: float = 0.0
    maximum: float = 0.0
    samples: list[Tensor] = field(default_factory=list)
    work: float = 0.0

    def observe(self, x: Tensor) -> None:
        """Take one batch of inputs, of any shape, into account."""
        flat = x.detach().float().reshape(-1)
        self.minimum = min(self.minimum, float(flat.min()))
        self.maximum = max(self.maximum, float(flat.max()))
        self.samples.append(flat[:: max(1, len(flat) // _SAMPLES)].clone())

    def scale_and_zero_point(self) -> tuple[float, int]:
        """(scale, zero point): x is about scale * (code - zero point), codes 0 to 255."""
        x = torch.cat(self.samples)
        best: tuple[float, float, int] | None = None
        for step in range(_STEPS // 2, _STEPS + 1):
            scale, zero = scale_and_zero_point(
                self.minimum * step / _STEPS, self.maximum * step / _STEPS
            )
            error = float((fake_quantize(x, scale, zero) - x).square().mean())
            if best is None or error < best[0]:
                best = error, scale, zero
        assert best is not None
        return best[1], best[2]


def scale_and_zero_point(minimum: float, maximum: float) -> tuple[float, int]:
    """(scale, zero point) of the codes 0 to 255 over a range, widened to hold 0; the scale as
    float32 holds it.

    >>> scale_and_zero_point(0.0, 255.0)
    (1.0, 0)
    """
    minimum, maximum = min(minimum, 0.0), max(maximum, 0.0)
    step = max((maximum - minimum) / LARGEST_INPUT_CODE, 1e-12)
    scale = float(torch.tensor(step, dtype=torch.float32))
    return scale, min(LARGEST_INPUT_CODE, max(0, round(-minimum / scale)))


def observe_inputs(
    module: nn.Module, layers: Mapping[str, nn.Module], batches: Iterable[Mapping[str, Tensor]]
) -> dict[str, InputStatistics]:
    """The statistics of the inputs of each of `layers` (parts of `module`, by name) while the
    module answers `batches` of inputs. A layer that is never called is left out."""
    statistics: dict[str, InputStatistics] = {}

    def observer(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def observe(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            entry = statistics.setdefault(name, InputStatistics())
            entry.observe(inputs[0])
            weight = layer.weight
            assert isinstance(weight, Tensor)
            if not entry.work:
                places = output.numel() / max(1, output.shape[0])
                entry.work = places * weight.numel() / max(1, int(_outputs(layer)))

        return observe

    hooks = [layer.register_forward_hook(observer(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for inputs in batches:
                module(dict(inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return statistics


def _outputs(layer: nn.Module) -> int:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.shape[1] if is_conv1d(layer) else weight.shape[0]
