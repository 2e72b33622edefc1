"""The private and the public way to run K models at once give the same bits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from danlu.compat import torch_vmap
from danlu.compat.torch_vmap import ModelsTensor
from danlu.layers.attention import kernel
from danlu.layers.dropout import Dropout
from danlu.recipe import Train
from danlu.system.placement import placement_for
from danlu.training.population import batched_layers, stack
from danlu.training.population.stack import Stack

K = 3


class Reader(nn.Module):
    """Every kind of layer that has a form of its own for many models."""

    def __init__(self, shared_input: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.dropout = Dropout(0.3)
        self.recurrent = nn.GRU(8, 4, batch_first=True)
        self.last = nn.Linear(4, 2)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        x_BTD = self.dropout(self.first(inputs["numbers"]).relu())
        return self.last(self.recurrent(x_BTD)[0][:, -1])


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Everything that runs models together does so by public means."""
    for module in (batched_layers, stack, kernel):
        for name in ("under_vmap", "over_models", "on_stacked"):
            if name in vars(module):
                monkeypatch.setattr(module, name, getattr(torch_vmap, f"public_{name}"))
    yield monkeypatch


def step(shared: bool) -> list[Tensor]:
    """Outputs of K models and the gradients of their weights."""
    torch.manual_seed(0)
    models = [Reader() for _ in range(K)]
    together = Stack(models, placement_for(Train(device="cpu", threads=1)), averaged=False)
    together.template.train()
    together.generators.seed([5, 6, 7])
    shape = (4, 5, 6) if shared else (K, 4, 5, 6)
    outputs = together.forward({"numbers": torch.randn(shape)}, shared=shared)
    outputs.square().sum().backward()
    return [outputs.detach(), *together.gradients().values()]


@pytest.mark.parametrize("shared", [True, False])
def test_a_stack_of_models_runs_to_the_same_bits(
    shared: bool, request: pytest.FixtureRequest
) -> None:
    private = step(shared)
    request.getfixturevalue("public")
    by_public_means = step(shared)
    assert len(private) == 1 + 8
    assert all(torch.equal(a, b) for a, b in zip(private, by_public_means, strict=True))


def test_attention_of_many_models_is_the_same_to_the_bit(request: pytest.FixtureRequest) -> None:
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(K, 2, 2, 5, 4, generator=draw) for _ in range(3))

    def attend(own: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        return kernel.attention(*own, None, True)

    private = torch_vmap.private_over_models(K, attend, (query, key, value))
    request.getfixturevalue("public")
    assert torch.equal(private, torch_vmap.public_over_models(K, attend, (query, key, value)))
    alone = torch.stack(
        [kernel.attention(q, k, v, None, True) for q, k, v in zip(query, key, value)]
    )
    assert torch.allclose(private, alone, atol=1e-6)


@pytest.mark.parametrize("form", ["private", "public"])
def test_what_runs_stacked_sees_the_tensors_of_all_models(form: str) -> None:
    over_models = getattr(torch_vmap, f"{form}_over_models")
    on_stacked = getattr(torch_vmap, f"{form}_on_stacked")
    under_vmap = getattr(torch_vmap, f"{form}_under_vmap")
    shared, seen = torch.arange(2.0), []

    def add(own: ModelsTensor, all_share: ModelsTensor) -> ModelsTensor:
        seen.append((own.axis, tuple(own.tensor.shape), all_share.axis, own.count))
        result = own.stacked() + all_share.stacked()  # (K, 2)
        return ModelsTensor(result.T, 1, own.count)

    def run(own: Tensor) -> tuple[Tensor, Tensor]:
        assert under_vmap()
        return on_stacked(add, own, shared), own.sum()

    assert not under_vmap()
    sums, totals = over_models(K, run, torch.ones(K, 2))
    assert seen == [(0, (K, 2), None, K)]
    assert sums.tolist() == [[1.0, 2.0]] * K
    assert totals.tolist() == [2.0] * K
    assert not under_vmap()


def test_the_private_form_is_used_where_torch_has_it() -> None:
    assert torch_vmap.over_models is torch_vmap.private_over_models
