"""The tensors of a module: each storage once, and how many bytes they hold."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, each storage once (tied weights appear under their
    first name)."""
    seen: dict[tuple[int, int, torch.Size], str] = {}
    result: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        key = (
            (tensor.data_ptr(), tensor.storage_offset(), tensor.shape)
            if tensor.numel()
            else (id(tensor), 0, tensor.shape)
        )
        if key not in seen:
            seen[key] = name
            result[name] = tensor.detach()
    return result


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """How many bytes the tensors hold."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
