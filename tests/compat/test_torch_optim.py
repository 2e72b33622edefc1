"""Optimizers without torch's wrappers update to the same bits, and never import the compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from danlu import registry
from danlu.compat.torch_optim import without_dynamo

SHAPES = [(7,), (5, 3), (3, 2, 5, 1)]
KINDS = {
    "SGD": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    "Adam": (torch.optim.Adam, {"lr": 0.1, "fused": True}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.3}),
    "Adagrad": (torch.optim.Adagrad, {"lr": 0.1}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.1, "momentum": 0.5}),
}


def trained(
    kind: type[torch.optim.Optimizer], options: dict[str, object], steps: int
) -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    draw = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]
    optimizer = kind([{"params": weights[:2]}, {"params": weights[2:], "lr": 0.01}], **options)
    for _ in range(steps):
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=draw)
        optimizer.step()
    optimizer.zero_grad()
    return weights, optimizer


@pytest.mark.parametrize("name", KINDS)
def test_a_lean_optimizer_updates_to_the_same_bits(name: str) -> None:
    kind, options = KINDS[name]
    plain, plain_optimizer = trained(kind, options, 9)
    slim, slim_optimizer = trained(without_dynamo(kind), options, 9)
    assert all(torch.equal(one, other) for one, other in zip(plain, slim))
    assert all(weight.grad is None for weight in slim)
    held, other = plain_optimizer.state_dict()["state"], slim_optimizer.state_dict()["state"]
    assert all(
        torch.equal(torch.as_tensor(held[number][key]), torch.as_tensor(other[number][key]))
        for number in held
        for key in held[number]
    )


def test_an_update_records_no_gradient_and_calls_the_hooks_of_its_own_optimizer() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = without_dynamo(torch.optim.SGD)([weight], lr=0.5)
    heard = []
    optimizer.register_step_pre_hook(lambda *_: heard.append("before"))
    optimizer.register_step_post_hook(lambda *_: heard.append("after"))
    weight.grad = torch.ones(3)
    optimizer.step()
    assert heard == ["before", "after"]
    assert weight.is_leaf and weight.tolist() == [0.5] * 3


def test_torch_itself_is_left_as_it_is() -> None:
    before = torch.optim.SGD.step, torch.optim.Optimizer.add_param_group
    without_dynamo(torch.optim.SGD)([nn.Parameter(torch.ones(1))], lr=0.1)
    assert (torch.optim.SGD.step, torch.optim.Optimizer.add_param_group) == before


PROGRAM = """
import sys, torch
from danlu import registry
from danlu.recipe import Part
for name in registry.names("optimizers"):
    weight = torch.nn.Parameter(torch.ones(3, 5))
    weight.grad = torch.ones(3, 5)
    optimizer = registry.build_optimizer(Part(name, registry.config("optimizers", name)()), [{"params": [weight]}])
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    print(name, *sorted(each for each in sys.modules if each in ("torch._dynamo", "torch._inductor")))
"""


def test_no_optimizer_of_the_shelf_imports_the_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:-1] == registry.names("optimizers")
