"""One operator over many tensors in one call: torch's kernels for lists of tensors.

These are torch._foreach_*, which torch's optimizers use.

They are private to torch. Where a version lacks one, the same is done tensor by tensor, to the same
bits (tests/compat/test_torch_foreach.py); for a small model that takes several times as long.
Factors, limits and shares are numbers, or one tensor for each tensor of the list.

>>> tensors = [torch.tensor([1.0, -2.0]), torch.tensor([3.0])]
>>> foreach.clamp_(tensors, -1.5, 1.5)
>>> tensors
[tensor([ 1.0000, -1.5000]), tensor([1.5000])]
"""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

Factor = float | list[Tensor]


class Foreach(Protocol):
    """The operators, named as torch names them without `_foreach`; a trailing _ means in place."""

    def copy_(self, tensors: list[Tensor], sources: list[Tensor]) -> None: ...

    def add_(self, tensors: list[Tensor], others: list[Tensor], alpha: float = 1.0) -> None:
        """tensor += alpha * other."""
        ...

    def mul(self, tensors: list[Tensor], factors: list[Tensor]) -> list[Tensor]: ...

    def mul_(self, tensors: list[Tensor], factors: Tensor | list[Tensor]) -> None:
        """tensor *= factor; a Tensor () multiplies all of them."""
        ...

    def sign(self, tensors: list[Tensor]) -> list[Tensor]: ...

    def norm(self, tensors: list[Tensor]) -> list[Tensor]:
        """The Euclidean length of each, ()."""
        ...

    def clamp_(self, tensors: list[Tensor], least: Factor, most: Factor) -> None: ...

    def lerp_(self, tensors: list[Tensor], ends: list[Tensor], share: Factor) -> None:
        """tensor += share * (end - tensor)."""
        ...


class OneByOne:
    """The operators by public means, tensor by tensor."""

    def copy_(self, tensors: list[Tensor], sources: list[Tensor]) -> None:
        for tensor, source in zip(tensors, sources, strict=True):
            tensor.copy_(source)

    def add_(self, tensors: list[Tensor], others: list[Tensor], alpha: float = 1.0) -> None:
        for tensor, other in zip(tensors, others, strict=True):
            tensor.add_(other, alpha=alpha)

    def mul(self, tensors: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
        return [tensor * factor for tensor, factor in zip(tensors, factors, strict=True)]

    def mul_(self, tensors: list[Tensor], factors: Tensor | list[Tensor]) -> None:
        for index, tensor in enumerate(tensors):
            tensor.mul_(factors if isinstance(factors, Tensor) else factors[index])

    def sign(self, tensors: list[Tensor]) -> list[Tensor]:
        return [tensor.sign() for tensor in tensors]

    def norm(self, tensors: list[Tensor]) -> list[Tensor]:
        return [torch.linalg.vector_norm(tensor) for tensor in tensors]

    def clamp_(self, tensors: list[Tensor], least: Factor, most: Factor) -> None:
        for index, tensor in enumerate(tensors):
            tensor.clamp_(_at(least, index), _at(most, index))  # type: ignore[arg-type]

    def lerp_(self, tensors: list[Tensor], ends: list[Tensor], share: Factor) -> None:
        for index, (tensor, end) in enumerate(zip(tensors, ends, strict=True)):
            tensor.lerp_(end, _at(share, index))  # type: ignore[arg-type]


class TorchKernels:
    """The operators by torch's kernels for lists."""

    def copy_(self, tensors: list[Tensor], sources: list[Tensor]) -> None:
        torch._foreach_copy_(tensors, sources)

    def add_(self, tensors: list[Tensor], others: list[Tensor], alpha: float = 1.0) -> None:
        torch._foreach_add_(tensors, others, alpha=alpha)

    def mul(self, tensors: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
        return list(torch._foreach_mul(tensors, factors))

    def mul_(self, tensors: list[Tensor], factors: Tensor | list[Tensor]) -> None:
        torch._foreach_mul_(tensors, factors)  # type: ignore[arg-type]

    def sign(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(torch._foreach_sign(tensors))

    def norm(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(torch._foreach_norm(tensors))

    def clamp_(self, tensors: list[Tensor], least: Factor, most: Factor) -> None:
        torch._foreach_clamp_min_(tensors, least)  # type: ignore[arg-type]
        torch._foreach_clamp_max_(tensors, most)  # type: ignore[arg-type]

    def lerp_(self, tensors: list[Tensor], ends: list[Tensor], share: Factor) -> None:
        torch._foreach_lerp_(tensors, ends, share)  # type: ignore[arg-type]


def _at(factor: Factor, index: int) -> float | Tensor:
    return factor[index] if isinstance(factor, list) else factor


_NAMES = ("copy_", "add_", "mul", "mul_", "sign", "norm", "clamp_min_", "clamp_max_", "lerp_")

foreach: Foreach = (
    TorchKernels() if {f"_foreach_{name}" for name in _NAMES} <= vars(torch).keys() else OneByOne()
)
