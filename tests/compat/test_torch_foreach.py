"""torch's kernels for lists of tensors and the public operators give the same bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from danlu.compat.torch_foreach import Foreach, OneByOne, TorchKernels, foreach

SHAPES = [(7,), (5, 3), (64, 33), (3, 2, 3, 3)]
Call = Callable[[Foreach, list[torch.Tensor], list[torch.Tensor]], object]


def per_model(low: float, high: float) -> list[torch.Tensor]:
    """One number for each row of the first dimension, shaped for each tensor."""
    draw = torch.Generator().manual_seed(5)
    return [
        low + (high - low) * torch.rand(shape[0], *(1,) * (len(shape) - 1), generator=draw)
        for shape in SHAPES
    ]


CALLS: dict[str, Call] = {
    "copy": lambda ops, a, b: ops.copy_(a, b),
    "add": lambda ops, a, b: ops.add_(a, b, 0.003),
    "mul": lambda ops, a, b: ops.mul(a, per_model(0.1, 2.0)),
    "mul in place by one number": lambda ops, a, b: ops.mul_(a, torch.tensor(0.37)),
    "mul in place": lambda ops, a, b: ops.mul_(a, per_model(0.1, 2.0)),
    "sign": lambda ops, a, b: ops.sign(a),
    "norm": lambda ops, a, b: ops.norm(a),
    "clamp": lambda ops, a, b: ops.clamp_(a, -0.5, 0.7),
    "clamp by model": lambda ops, a, b: ops.clamp_(a, per_model(-1, -0.1), per_model(0.1, 1)),
    "lerp": lambda ops, a, b: ops.lerp_(a, b, 0.01),
    "lerp by model": lambda ops, a, b: ops.lerp_(a, b, per_model(0.0, 1.0)),
}


@pytest.mark.parametrize("name", CALLS)
def test_both_forms_give_the_same_bits(name: str) -> None:
    outcomes = []
    for operators in (TorchKernels(), OneByOne()):
        draw = torch.Generator().manual_seed(0)
        first, second = ([torch.randn(s, generator=draw) for s in SHAPES] for _ in range(2))
        returned = CALLS[name](operators, first, second)
        outcomes.append([*first, *(returned if isinstance(returned, list) else [])])
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


def test_the_kernels_are_used_where_torch_has_them() -> None:
    assert isinstance(foreach, TorchKernels)
