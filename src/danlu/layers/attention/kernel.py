"""The weighted mean of attention, softmax(query key' / sqrt(E) + mask) value, by the fastest way the device has.

B batch, H heads, T places that ask, S places that answer, E size of a head, N = B H.

Measured on a CPU with bfloat16 units, torch 2.13, B 8, H 6, T 256, E 64, forward and backward pass,
one thread: torch's fused kernel takes 36 ms in float32 and 96 ms in bfloat16, of which it makes no
fast products; batched products in bfloat16, causal ones in two pieces (half of a square is never
looked at), take 21 ms. In float32 the products take 85 ms. So: products for bfloat16 on a CPU, as
long as the weights fit in memory, else torch's kernel."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from danlu.compat.torch_vmap import ModelsTensor, on_stacked, under_vmap

HIDDEN = -1e4  # added to a score of what is not looked at: exp of it is 0 in every format
PIECE = 128  # places that ask at once, causal
LARGEST = 64 * 2**20  # bytes of weights kept for the gradient, of one layer


def attention(
    query_BHTE: Tensor, key_BHSE: Tensor, value_BHSE: Tensor, mask: Tensor | None, causal: bool
) -> Tensor:
    """(B, H, T, E). `mask` is bool, True where a place may be looked at, and broadcasts to (B, H,
    T, S); causal needs T = S."""
    if under_vmap():
        return _of_many(query_BHTE, key_BHSE, value_BHSE, mask, causal)
    by_place = mask is None or (mask.ndim == 4 and mask.shape[1:3] == (1, 1))
    if query_BHTE.device.type == "cpu" and query_BHTE.dtype == torch.bfloat16 and by_place:
        bytes_of_weights = query_BHTE.shape[:3].numel() * key_BHSE.shape[2] * 2
        if 0 < bytes_of_weights <= LARGEST:
            return _by_products(query_BHTE, key_BHSE, value_BHSE, mask, causal)
    return functional.scaled_dot_product_attention(
        query_BHTE, key_BHSE, value_BHSE, attn_mask=mask, is_causal=causal
    )


def _of_many(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool
) -> Tensor:
    """The same for K models, whose rows stand one after the other: torch has no rule for the fused
    kernel under vmap."""

    def attend(*models: ModelsTensor) -> Tensor:
        query, key, value, *mask = (tensor.stacked().flatten(0, 1) for tensor in models)
        attended = attention(query, key, value, mask[0] if mask else None, causal)
        return attended.unflatten(0, (models[0].count, -1))

    return on_stacked(attend, query, key, value, *([] if mask is None else [mask]))


def _by_products(
    query_BHTE: Tensor, key_BHSE: Tensor, value_BHSE: Tensor, mask: Tensor | None, causal: bool
) -> Tensor:
    batch, heads, count, _ = query_BHTE.shape
    bias = None
    if mask is not None:
        hidden_B1S = torch.where(mask, 0.0, HIDDEN).to(query_BHTE.dtype).reshape(batch, 1, -1)
        bias = hidden_B1S.repeat_interleave(heads, 0)
    flat = [
        each.reshape(batch * heads, *each.shape[2:]) for each in (query_BHTE, key_BHSE, value_BHSE)
    ]
    return _Products.apply(*flat, bias, causal).view(batch, heads, count, -1)  # type: ignore[no-any-return]


def _pieces(count: int, answering: int, causal: bool) -> list[tuple[int, int, int]]:
    """(first, end, reach) of places that ask together and of how many they look at."""
    if not causal:
        return [(0, count, answering)]
    number = max(1, round(count / PIECE))
    edges = [count * each // number for each in range(number + 1)]
    return [(first, end, end) for first, end in pairwise(edges)]


class _Products(torch.autograd.Function):
    """query_NTE, key_NSE, value_NSE, bias (N, 1, S) or None -> (N, T, E)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool
    ) -> Tensor:
        pieces = _pieces(query.shape[1], key.shape[1], causal)
        scale = query.shape[2] ** -0.5
        found, kept = [], []
        for first, end, reach in pieces:
            shape = (len(query), end - first, reach)
            added = _after(first, end, reach, query) if causal else bias
            transposed = key[:, :reach].mT
            if added is None:
                scores = torch.bmm(query[:, first:end] * scale, transposed)
            else:
                scores = torch.baddbmm(
                    added.expand(shape), query[:, first:end], transposed, alpha=scale
                )
            weights = scores.softmax(-1)
            kept.append(weights)
            found.append(torch.bmm(weights, value[:, :reach]))
        ctx.save_for_backward(query, key, value, *kept)
        ctx.pieces, ctx.scale = pieces, scale
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, *kept = ctx.saved_tensors
        dquery, dkey, dvalue = torch.empty_like(query), None, None
        scaled_query, scaled_key = query * ctx.scale, key * ctx.scale
        for (first, end, reach), weights in zip(
            reversed(ctx.pieces), reversed(kept)
        ):  # the last reaches every place that answers
            gradient = gradients[0][:, first:end]
            dweights = torch.bmm(gradient, value[:, :reach].mT)
            dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
            torch.bmm(dscores, scaled_key[:, :reach], out=dquery[:, first:end])
            for_key = torch.bmm(dscores.mT, scaled_query[:, first:end])
            for_value = torch.bmm(weights.mT, gradient)
            if dkey is None or dvalue is None:
                dkey, dvalue = for_key, for_value
            else:
                dkey[:, :reach] += for_key
                dvalue[:, :reach] += for_value
        return dquery, dkey, dvalue, None, None


def _after(first: int, end: int, reach: int, like: Tensor) -> Tensor:
    """(end - first, reach): HIDDEN where the place that answers comes after the one that asks, else
    0."""
    return torch.full((end - first, reach), HIDDEN, dtype=like.dtype, device=like.device).triu_(
        first + 1
    )
