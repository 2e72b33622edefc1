"""Test-time augmentation: the mean of a model's outputs for several views of each image.

B batch, C channels, H height, W width, K views.
Source: Krizhevsky et al., 2012 (the mean over crops and reflections).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from danlu.errors import PartError
from danlu.layers.averaging import average_outputs
from danlu.terms import InputSpec, OutputSpec

View = Literal["flip", "shift"]
Inputs = Mapping[str, Tensor]


class AveragedViews:
    """averaged(forward, inputs) -> float32 (B, S): the mean of the outputs for several views of the
    images: as they are; mirrored ("flip"); shifted by one pixel to the upper left and to the lower
    right, the edge repeated ("shift"); with both also mirrored and shifted.

    Raises PartError where there is no image, or where the output is not one for each row.
    """

    def __init__(
        self, views: Sequence[View], inputs: Mapping[str, InputSpec], output: OutputSpec
    ) -> None:
        self.views = tuple(views)
        self.output = output
        self.images = [name for name, spec in inputs.items() if spec.kind == "image"]
        if self.views and not self.images:
            raise PartError(
                "data.test_time_augmentation changes images, and the inputs hold none.",
                hint="leave test_time_augmentation out",
            )
        if self.views and output.per != "row":
            raise PartError(
                "data.test_time_augmentation needs one answer a row, and the task has one a "
                f"{output.per}.",
                hint="leave test_time_augmentation out",
            )

    def __call__(self, forward: Callable[[dict[str, Tensor]], Tensor], inputs: Inputs) -> Tensor:
        if not self.views:
            return forward(dict(inputs))
        return average_outputs(
            torch.stack(
                [forward({**inputs, **changed}).float() for changed in self._views(inputs)]
            ),
            self.output,
        )

    def _views(self, inputs: Inputs) -> list[dict[str, Tensor]]:
        views = [{name: inputs[name] for name in self.images}]
        if "shift" in self.views:
            views += [
                {name: shift_image(inputs[name], by) for name in self.images} for by in (1, -1)
            ]
        if "flip" in self.views:
            views += [{name: image.flip(3) for name, image in view.items()} for view in views]
        return views


def shift_image(x_BCHW: Tensor, by: int) -> Tensor:
    """The image shifted down and to the right by `by` pixels (up and to the left where it is
    negative); the edge is repeated.

    >>> shift_image(torch.tensor([[[[1.0, 2.0]]]]), 1).tolist()
    [[[[1.0, 1.0]]]]
    """
    far = abs(by)
    padded = functional.pad(x_BCHW, (far, far, far, far), mode="replicate")
    start, (height, width) = far - by, x_BCHW.shape[2:]
    return padded[:, :, start : start + height, start : start + width]
