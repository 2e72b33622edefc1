"""The layers of Transformers: what padding, causality, grouping and a cache promise, and gradients written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from danlu.layers.attention import kernel
from danlu.layers.attention.multi_head import Attention, padding_mask
from danlu.layers.attention.rotary import Rotary, normalise_and_rotate, rotate
from danlu.layers.generation.kv_cache import Cache
from danlu.layers.normalization import RMSNorm
from danlu.layers.transformer.blocks import Stack, StackSizes
from danlu.layers.transformer.feed_forward import FeedForward, inner_width, squared_relu

# float32 keeps 7 digits; kernels of other shapes sum in another order, and a stack passes the
# difference on
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def stack(*, causal: bool = True, positions: bool = True, **sizes: object) -> Stack:
    torch.manual_seed(3)
    chosen = StackSizes(**{"num_layers": 2, "width": 24, "num_heads": 4, "qk_norm": True, **sizes})  # type: ignore[arg-type]
    found = Stack(chosen, causal=causal, rotary=Rotary(24 // 4, 4) if positions else None).eval()
    with torch.no_grad():
        for (
            parameter
        ) in found.parameters():  # away from the start, where blocks are close to the identity
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return found


def extended(
    module: Stack, x_BTD: torch.Tensor, cache: Cache, sizes: list[int] | None = None
) -> torch.Tensor:
    y = module.extend(x_BTD, cache, cache.places(x_BTD.shape[1], x_BTD.device))
    cache.advance(x_BTD.shape[1], sizes)
    return y


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("kind", ["gelu", "swiglu", "relu_squared"])
def test_a_causal_stack_does_not_look_ahead(kind, groups):
    module = stack(feed_forward=kind, num_key_value_heads=groups)
    x = torch.randn(2, 9, 24)
    changed = x.clone()
    changed[:, 5:] = torch.randn(2, 4, 24)
    torch.testing.assert_close(module(x)[:, :5], module(changed)[:, :5], **CLOSE)
    assert not torch.allclose(module(x)[:, 5:], module(changed)[:, 5:])


@pytest.mark.parametrize("normalization", ["rms", "layer"])
def test_a_padded_place_changes_nothing(normalization):
    module = stack(causal=False, normalization=normalization, bias=True)
    x, present = torch.randn(3, 9, 24), torch.ones(3, 9, dtype=torch.bool)
    present[1, 6:] = False
    whole = module(x, present)
    torch.testing.assert_close(whole[1:2, :6], module(x[1:2, :6]), **CLOSE)
    x[1, 6:] = 99.0
    torch.testing.assert_close(module(x, present)[:, :6], whole[:, :6], **CLOSE)


def test_a_row_of_padding_only_gives_finite_outputs_and_gradients():
    tokens = torch.tensor([[4, 5, 0], [0, 0, 0]])
    mask = padding_mask(tokens)
    assert mask is not None
    assert mask.flatten(1).tolist() == [[True, True, False], [True, False, False]]
    assert padding_mask(tokens[:1, :2]) is None
    module = stack(causal=False)
    y = module(torch.randn(2, 3, 24), tokens != 0)
    y.sum().backward()
    assert torch.isfinite(y).all()
    assert all(
        each.grad is not None and torch.isfinite(each.grad).all() for each in module.parameters()
    )


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("groups", [4, 2])
def test_a_cache_gives_what_the_whole_gives(positions, groups):
    module, x = stack(positions=positions, num_key_value_heads=groups), torch.randn(3, 11, 24)
    cache = module.cache(3, 2)  # it grows
    with torch.no_grad():
        pieces = [extended(module, piece, cache) for piece in x.split([3, 1, 1, 4, 2], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), module(x), **CLOSE)
    assert cache.lengths.tolist() == [11, 11, 11]


def test_rows_of_a_cache_may_differ_in_length_and_come_and_go():
    module, x = stack(num_key_value_heads=2), torch.randn(3, 12, 24)
    with torch.no_grad():
        whole, sizes, cache = module(x), [2, 5, 3], module.cache(3, 4)
        first = extended(module, x[:, :5], cache, sizes)
        for row, size in enumerate(sizes):
            torch.testing.assert_close(first[row, :size], whole[row, :size], **CLOSE)
        following = torch.stack([x[row, size : size + 3] for row, size in enumerate(sizes)])
        second = extended(module, following, cache)
        for row, size in enumerate(sizes):
            torch.testing.assert_close(second[row], whole[row, size : size + 3], **CLOSE)
        other = module.cache(1, 64)
        extended(module, x[:1, :1], other)
        cache = cache.keep([2, 0, 2]).join(other)
        assert cache.lengths.tolist() == [6, 5, 6, 1]
        last = extended(module, torch.stack([x[2, 6:7], x[0, 5:6], x[2, 6:7], x[0, 1:2]]), cache)
        torch.testing.assert_close(
            last[:, 0], torch.stack([whole[2, 6], whole[0, 5], whole[2, 6], whole[0, 1]]), **CLOSE
        )


def test_a_memory_is_looked_at_with_and_without_a_cache():
    module, x, memory = stack(memory=10), torch.randn(2, 6, 24), torch.randn(2, 7, 10)
    present = torch.ones(2, 7, dtype=torch.bool)
    present[1, 4:] = False
    with torch.no_grad():
        whole, cache = module(x, None, memory, present), module.cache(2, 6)
        module.remember(memory, present, cache)
        kept = torch.cat(
            [extended(module, piece, cache) for piece in x.split([2, 1, 3], dim=1)], dim=1
        )
        torch.testing.assert_close(kept, whole, **CLOSE)
        torch.testing.assert_close(module(x[1:], None, memory[1:, :4]), whole[1:], **CLOSE)
        assert not torch.allclose(module(x, None, memory + 1, present), whole)


def test_a_memory_needs_attention_to_it():
    with pytest.raises(ValueError, match="memory"):
        stack()(torch.randn(1, 2, 24), None, torch.randn(1, 2, 24))


def test_grouped_queries_are_full_attention_with_repeated_keys_and_values():
    torch.manual_seed(1)
    grouped, full, x = Attention(24, 4, 2), Attention(24, 4), torch.randn(2, 5, 24)
    with torch.no_grad():
        full.query.weight.copy_(grouped.query.weight)
        full.output.weight.copy_(grouped.output.weight)
        for one, other in ((full.key, grouped.key), (full.value, grouped.value)):
            one.weight.copy_(other.weight.view(2, 6, 24).repeat_interleave(2, 0).reshape(24, 24))
    torch.testing.assert_close(grouped(x, causal=True), full(x, causal=True), **CLOSE)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="do not divide"):
        Attention(24, 5)
    with pytest.raises(ValueError, match="do not divide"):
        Attention(24, 4, 3)
    with pytest.raises(ValueError, match="in pairs"):
        Rotary(3, 4)


def test_rotary_products_depend_on_the_distance_alone():
    rotary = Rotary(8, 4)
    q, k = torch.randn(8), torch.randn(8)
    angles = rotary.angles(32)  # longer than the table: it grows
    turned_q, turned_k = (rotate(each.expand(1, 32, 1, 8), angles)[0, :, 0] for each in (q, k))
    products = turned_q @ turned_k.T
    for distance in (0, 3, 17):
        along = products.diagonal(distance)
        torch.testing.assert_close(
            along, along[:1].expand_as(along), rtol=1e-4, atol=1e-4
        )  # products of 8 numbers of size 1
    positions = torch.tensor([[3, 4], [0, 30]])
    picked = rotate(q.expand(2, 2, 1, 8), rotary.angles(31, positions))[:, :, 0]
    torch.testing.assert_close(picked, turned_q[positions])


def test_a_table_that_grew_while_answering_serves_training():
    rotary = Rotary(8, 4)
    with torch.inference_mode():
        rotary.angles(9)
    q = torch.randn(1, 9, 1, 8, requires_grad=True)
    rotate(q, rotary.angles(9)).sum().backward()
    assert q.grad is not None


def test_rotary_turns_halves_as_llama_does():
    cosines, sines = Rotary(4, 3).angles(3)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    angle = torch.tensor([2.0, 2.0 * 10_000.0**-0.5])
    expected = torch.cat(
        [x[:2] * angle.cos() - x[2:] * angle.sin(), x[2:] * angle.cos() + x[:2] * angle.sin()]
    )
    torch.testing.assert_close(rotate(x.expand(1, 3, 1, 4), (cosines, sines))[0, 2, 0], expected)


def test_the_usual_inner_widths():
    assert inner_width("gelu", 128) == 512
    assert inner_width("swiglu", 768) == 2048
    assert FeedForward(12, "swiglu", 7).down.weight.shape == (12, 7)


# --- gradients written out by hand, against differences and against torch's own ------------------------------------------------


def test_the_gradient_of_rms_norm_is_that_of_torch():
    torch.manual_seed(0)
    own, torchs = RMSNorm(6).double(), nn.RMSNorm(6, eps=1e-5).double()
    with torch.no_grad():
        torchs.weight.copy_(own.weight.normal_())
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    for weight, norm in ((own.weight, own), (torchs.weight, torchs)):
        norm(x).square().sum().mul(0.5).backward()
        weight.last = (x.grad.clone(), weight.grad.clone())
        x.grad = None
    torch.testing.assert_close(own.weight.last, torchs.weight.last)
    with torch.no_grad():
        torch.testing.assert_close(own(x), torchs(x))


def test_the_other_gradients_are_those_of_differences(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(kernel, "PIECE", 3)
    x = torch.randn(2, 5, 3, 6, dtype=torch.float64, requires_grad=True)
    angles = tuple(each.double() for each in Rotary(6, 5).angles(5))
    assert torch.autograd.gradcheck(lambda x: normalise_and_rotate(x, angles, 1e-12), (x,))
    assert torch.autograd.gradcheck(squared_relu, (x,))
    three = [torch.randn(1, 2, 7, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = torch.rand(1, 1, 1, 7) > 0.4
    for given, causal in ((None, True), (None, False), (mask, False)):
        assert torch.autograd.gradcheck(
            lambda *each, m=given, c=causal: kernel._by_products(*each, m, c), three
        )


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 5, 300])
def test_batched_products_are_torchs_attention(length, causal):
    torch.manual_seed(0)
    three = [torch.randn(2, 3, length, 8) for _ in range(3)]
    mask = None if causal else torch.rand(2, 1, 1, length) > 0.3
    if mask is not None:
        mask[..., 0] = True
    expected = functional.scaled_dot_product_attention(*three, attn_mask=mask, is_causal=causal)
    torch.testing.assert_close(kernel._by_products(*three, mask, causal), expected, **CLOSE)
    narrow = kernel.attention(*(each.bfloat16() for each in three), mask, causal)
    assert narrow.dtype == torch.bfloat16
    # scores of size 3 and their weights are rounded to 8 bits: 2 ** -8 of each
    torch.testing.assert_close(narrow.float(), expected, rtol=0.05, atol=0.05)
