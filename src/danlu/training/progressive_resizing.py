"""Progressive resizing: images are smaller early in training, where an update then costs less.

B batch, C channels, H height, W width.
Sources: Karras et al., 2017, arXiv:1710.10196; Howard, 2018 (fast.ai in DAWNBench); Tan and Le,
2021, arXiv:2104.00298."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from danlu.errors import PartError
from danlu.terms import Batch, InputSpec


class ProgressiveResizing:
    """resize(batch, n) -> the batch with its images at the size of update n, a function of n alone.

    Sides start at `start` times their full size, (0, 1], and grow in proportion to the steps done,
    to the full size after `until` steps; until then they are multiples of `multiple` pixels. Raises
    PartError where the inputs hold no image."""

    def __init__(
        self, inputs: Mapping[str, InputSpec], start: float, until: int, multiple: int
    ) -> None:
        self.full = {
            name: (spec.shape[1], spec.shape[2])
            for name, spec in inputs.items()
            if spec.kind == "image"
        }
        if not self.full:
            raise PartError(
                "train.progressive_resizing changes images, and the inputs hold none.",
                hint="leave it out",
            )
        self.start, self.until, self.multiple = start, until, multiple

    def size(self, name: str, n: int) -> tuple[int, int]:
        """(height, width) of the image `name` in update n."""
        height, width = self.full[name]
        share = self.start + (1 - self.start) * min(n / self.until, 1.0) if self.until else 1.0
        return self._side(height, share), self._side(width, share)

    def _side(self, full: int, share: float) -> int:
        if share >= 1:
            return full
        return min(full, max(self.multiple, round(full * share / self.multiple) * self.multiple))

    def __call__(self, batch: Batch, n: int) -> Batch:
        changed = {name: resized(batch.inputs[name], self.size(name, n)) for name in self.full}
        return replace(batch, inputs={**batch.inputs, **changed})

    def refuse_unable(self, module: nn.Module, one: Mapping[str, Tensor]) -> None:
        """Raise PartError unless the module takes the smallest images, tried on the inputs of one
        row."""
        small = {**one, **{name: resized(one[name], self.size(name, 0)) for name in self.full}}
        training = module.training
        module.eval()
        try:
            with torch.no_grad():
                module(small)
        except (RuntimeError, ValueError, IndexError) as error:
            height, width = next(iter(small[name] for name in self.full)).shape[2:]
            raise PartError(
                f"train.progressive_resizing starts with images of {height}x{width}, and this "
                "model takes only the size it was built for.",
                hint="leave progressive_resizing out, or choose a model such as cnn, resnet or vit",
            ) from error
        finally:
            module.train(training)


def resized(x_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """The images at another (height, width): each pixel a weighted mean of those it covers
    (bilinear, antialiased).

    >>> tuple(resized(torch.zeros(1, 3, 8, 8), (4, 6)).shape)
    (1, 3, 4, 6)
    """
    if tuple(x_BCHW.shape[2:]) == size:
        return x_BCHW
    return functional.interpolate(x_BCHW, size, mode="bilinear", antialias=True)
