"""Whether a forward pass runs for many models at once (torch.func.vmap).

Functions with a hand-written gradient have no rule for that and step aside for torch's own
operators, to the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter


def under_vmap() -> bool:
    """Whether the code that asks is run by torch.func.vmap."""
    return bool(torch._C._are_functorch_transforms_active())


def unwrap(tensor: Tensor) -> tuple[Tensor, int | None]:
    """(the tensor of all models, the dimension that counts them; None where all share it)."""
    if not _functorch.is_batchedtensor(tensor):
        return tensor, None
    return _functorch.get_unwrapped(tensor), _functorch.maybe_get_bdim(tensor)


def stacked_or_none(tensor: Tensor) -> Tensor | None:
    """The tensor of all models with their dimension in front; None where all share it."""
    held, place = unwrap(tensor)
    return None if place is None else held.movedim(place, 0)


def on_stacked(compute: Callable[[], Any], place: int = 0) -> Any:
    """What `compute` makes of unwrapped tensors, as vmap sees it; `place` is the dimension of the
    result that counts the models.

    torch.autograd.Function with a vmap rule of its own does the same in 300 to 600 microseconds a
    call (torch 2.13), this in 15."""
    interpreter = retrieve_current_functorch_interpreter()
    with interpreter.lower():
        found = compute()
    level = interpreter.level()
    if isinstance(found, tuple):
        return tuple(_functorch._add_batch_dim(each, place, level) for each in found)
    return _functorch._add_batch_dim(found, place, level)


def model_count() -> int:
    """How many models run together."""
    return int(retrieve_current_functorch_interpreter().batch_size())  # type: ignore[attr-defined]


class VmapLevel:
    """A call of torch.func.vmap by hand: inside the `with`, `split` gives a tensor (K, ...) as each
    of K models sees it, and `join` the tensor of all models back.

    vmap and functional_call walk trees of arguments around every call, which is a millisecond for a
    small model (torch 2.13)."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.level = -1

    def __enter__(self) -> VmapLevel:
        self.level = _functorch._vmap_increment_nesting(self.count, "different")
        return self

    def __exit__(self, *raised: object) -> None:
        _functorch._vmap_decrement_nesting()

    def split(self, held: Any) -> Any:
        """Of a tensor (K, ...), or of every tensor of a dict, a model's own."""
        if isinstance(held, dict):
            return {name: self.split(each) for name, each in held.items()}
        return _functorch._add_batch_dim(held, 0, self.level)

    def join(self, found: Tensor) -> Tensor:
        """(K, ...)."""
        return _functorch._remove_batch_dim(found, self.level, self.count, 0)


def expanded(tensor: Tensor) -> Tensor:
    """(K, ...), a view where all models share it."""
    held = stacked_or_none(tensor)
    return tensor.expand(model_count(), *tensor.shape) if held is None else held
