"""What several augmentations share: the images among the inputs, boxes, and mixed targets.

B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from danlu.errors import PartError
from danlu.terms import Batch, InputSpec, OutputSpec


def images_of(part: str, inputs: Mapping[str, InputSpec]) -> list[str]:
    """The names of the image inputs. PartError where there is none for `part` to change."""
    names = [name for name, spec in inputs.items() if spec.kind == "image"]
    if not names:
        raise PartError(
            f"the augmentation {part} changes images, and the inputs hold none.",
            hint=f"leave {part} out",
        )
    return names


def with_inputs(batch: Batch, changed: Mapping[str, Tensor]) -> Batch:
    """The batch with some inputs replaced; `batch` itself keeps its own."""
    return replace(batch, inputs={**batch.inputs, **changed})


def partners(generator: torch.Generator, like: Tensor) -> Tensor:
    """A row of the batch for each row, int64 (B,): a random permutation."""
    return torch.randperm(len(like), generator=generator, device=generator.device).to(like.device)


def mixed_target(
    part: str,
    target: Tensor | Mapping[str, Tensor],
    output: OutputSpec,
    partner_B: Tensor,
    share_B: Tensor,
) -> Tensor:
    """share * target + (1 - share) * the partner's target, float32 (B, K); classes become
    probabilities.

    PartError for a batch of several tasks, and for targets that cannot be blended (tokens, say).
    """
    if not isinstance(target, Tensor):
        raise PartError(
            f"{part} mixes the target of one task, and this batch has several or none.",
            hint=f"leave {part} out",
        )
    if target.is_floating_point():
        whole = target
    elif output.size > 1:
        whole = functional.one_hot(target, output.size).float()
    else:
        raise PartError(
            f"{part} mixes classes or numbers, and the target is neither.", hint=f"leave {part} out"
        )
    return torch.lerp(
        whole[partner_B], whole, share_B.to(whole.dtype).view(-1, *(1,) * (whole.ndim - 1))
    )


def box_mask(
    top_B: Tensor, left_B: Tensor, height_B: Tensor, width_B: Tensor, image: Tensor
) -> Tensor:
    """True inside each row's box, bool (B, 1, H, W); sizes and positions (B,) in whole pixels."""
    y_H = torch.arange(image.shape[2], device=image.device)
    x_W = torch.arange(image.shape[3], device=image.device)
    inside_BH = (y_H >= top_B[:, None]) & (y_H < (top_B + height_B)[:, None])
    inside_BW = (x_W >= left_B[:, None]) & (x_W < (left_B + width_B)[:, None])
    return (inside_BH[:, :, None] & inside_BW[:, None, :])[:, None]
