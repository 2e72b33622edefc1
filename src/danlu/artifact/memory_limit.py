"""A limit on the memory of tensors while a model is built from a file, whose sizes are not
trusted."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_META = torch.device("meta")


class AllocationLimit(TorchDispatchMode):
    """Inside the `with`, new tensors may take `most` bytes in all; MemoryError before one is made
    that would take more.

    Operators without tensors as inputs are counted, and those whose output may be larger than their
    inputs (tensors of different shapes)."""

    def __init__(self, most: int) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self.left = most
        self.most = most

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        shapes = {
            leaf.shape
            for leaf in pytree.tree_leaves((args, kwargs))
            if isinstance(leaf, torch.Tensor)
        }
        if len(shapes) != 1 or "new_" in str(func) or "repeat" in str(func):
            self._count(func, args, kwargs, bool(shapes))
        return func(*args, **kwargs)

    def _count(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], of_tensors: bool
    ) -> None:
        def bare(value: Any) -> Any:
            return (
                torch.empty_like(value, device=_META) if isinstance(value, torch.Tensor) else value
            )

        moved = pytree.tree_map(bare, kwargs)
        if not of_tensors or "new_" in str(func):
            moved["device"] = _META
        try:
            outputs = func(*pytree.tree_map(bare, args), **moved)
        except (
            RuntimeError,
            NotImplementedError,
            TypeError,
        ):  # a size that depends on values, or a fault that func itself will tell
            return
        wanted = sum(
            leaf.numel() * leaf.element_size()
            for leaf in pytree.tree_leaves(outputs)
            if isinstance(leaf, torch.Tensor)
        )
        self.left -= wanted
        if self.left < 0:
            raise MemoryError(
                f"its tensors take more than {self.most:,} bytes, which is out of proportion to "
                "its weights"
            )


# torch wraps the method so that a compiled program may meet it, and the wrapper imports the
# compiler (danlu/compat/torch_optim.py)
AllocationLimit.__torch_dispatch__ = inspect.unwrap(AllocationLimit.__torch_dispatch__)  # type: ignore[method-assign]
