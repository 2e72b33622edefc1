"""The tensors of a module: each storage once, their bytes, and layers that act after loading."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn


class AfterLoad(nn.Module, ABC):
    """A layer that must act once its weights have been loaded."""

    @abstractmethod
    def after_load(self) -> None:
        """Called once, after all weights of the model have been loaded."""


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name, detached, each storage once: tied weights appear
    under their first name.

    >>> layer = nn.Linear(2, 1)
    >>> list(unique_tensors(nn.ModuleDict({"a": layer, "b": layer})))
    ['a.weight', 'a.bias']
    """
    seen: dict[tuple[int, int, torch.Size], str] = {}
    unique: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        key = (
            (tensor.data_ptr(), tensor.storage_offset(), tensor.shape)
            if tensor.numel()
            else (id(tensor), 0, tensor.shape)
        )
        if key not in seen:
            seen[key] = name
            unique[name] = tensor.detach()
    return unique


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """The size of the tensors in bytes.

    >>> bytes_of({"weight": torch.zeros(2, 3)})
    24
    """
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def as_ints(tensor: Tensor) -> list[int]:
    """The entries of an integer tensor (N,); torch leaves the type of `tolist` open.

    >>> as_ints(torch.arange(3))
    [0, 1, 2]
    """
    return cast("list[int]", tensor.tolist())  # pyright: ignore[reportUnknownMemberType]


def as_floats(tensor: Tensor) -> list[float]:
    """The entries of a floating-point tensor (N,).

    >>> as_floats(torch.tensor([0.5, 1.0]))
    [0.5, 1.0]
    """
    return cast("list[float]", tensor.tolist())  # pyright: ignore[reportUnknownMemberType]


def from_array(array: np.ndarray) -> Tensor:
    """The array as a tensor that shares its memory.

    >>> from_array(np.array([1, 2]))
    tensor([1, 2])
    """
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]


def split(tensor: Tensor, sizes: int | list[int], dim: int = 0) -> list[Tensor]:
    """The tensor in pieces along `dim`, of one size or of several.

    >>> [len(piece) for piece in split(torch.zeros(5), 2)]
    [2, 2, 1]
    """
    return list(tensor.split(sizes, dim))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
