"""torch's autograd engine, called below Tensor.backward."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Private to torch. Where a version has it no longer, `backward` is the public form, to the same
# bits (tests/compat/test_torch_engine.py).
try:
    from torch.autograd.graph import _engine_run_backward  # pyright: ignore[reportPrivateUsage]
except ImportError:  # pragma: no cover - a version of torch to come
    _engine_run_backward = None


def public_backward(total: Tensor, share: Tensor) -> None:
    """`backward` by Tensor.backward, whose checks take 5 microseconds and import a computer
    algebra system (0.3 s)."""
    torch.autograd.backward((total,), (share,))


def private_backward(total: Tensor, share: Tensor) -> None:
    """`backward` by the engine itself, where Tensor.backward ends after its checks of shapes."""
    assert _engine_run_backward is not None
    _engine_run_backward(
        (total,), (share,), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


# backward(total, share): add the gradient of (total * share).sum() to every parameter's gradient.
# `total` is a sum over rows, () or one value per task; `share`, of its shape, is 1 / count, so that
# the gradient is that of the mean, to the bit. A division in the recorded graph instead is 8
# microseconds slower.
backward: Callable[[Tensor, Tensor], None] = (
    private_backward if _engine_run_backward is not None else public_backward
)
