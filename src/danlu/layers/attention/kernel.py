"""Attention, softmax(query key' / sqrt(E) + mask) value, by the fastest way the device has.

B batch, H heads, T places of queries, S places of keys, E size of a head, N = B H.

Measured on a CPU with bfloat16 units, torch 2.13, B 8, H 6, T 256, E 64, forward and backward pass,
one thread: torch's fused kernel takes 36 ms in float32 and 96 ms in bfloat16, which it does not
multiply with the fast units; batched products in bfloat16, causal ones in two pieces (half of the
square is never computed), take 21 ms. In float32 the products take 85 ms. So products are used for
bfloat16 on a CPU, as long as the weights fit in memory, else torch's kernel.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from danlu.compat.torch_vmap import ModelsTensor, on_stacked, under_vmap

HIDDEN = -1e4  # added to the score of a masked place: its exp is 0 in every format
PIECE = 128  # places of queries that are multiplied at once, where attention is causal
LARGEST = 64 * 2**20  # bytes of the weights that one layer keeps for the gradient


def attention(
    query_BHTE: Tensor, key_BHSE: Tensor, value_BHSE: Tensor, mask: Tensor | None, causal: bool
) -> Tensor:
    """The attention of queries to keys and values, (B, H, T, E). `mask` is bool, True where a query
    may see a key, and broadcasts to (B, H, T, S); `causal` needs T = S and no mask."""
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
    """The same for K models under vmap, whose rows are laid one after the other: torch has no
    batching rule for the fused kernel."""

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
        tensor.reshape(batch * heads, *tensor.shape[2:])
        for tensor in (query_BHTE, key_BHSE, value_BHSE)
    ]
    return _Products.apply(*flat, bias, causal).view(batch, heads, count, -1)  # type: ignore[no-any-return]


def _pieces(count: int, key_count: int, causal: bool) -> list[tuple[int, int, int]]:
    """(first, end, reach): queries first to end are multiplied at once, and see keys 0 to
    reach."""
    if not causal:
        return [(0, count, key_count)]
    number = max(1, round(count / PIECE))
    edges = [count * piece // number for piece in range(number + 1)]
    return [(first, end, end) for first, end in pairwise(edges)]


class _Products(torch.autograd.Function):
    """query_NTE, key_NSE, value_NSE, bias (N, 1, S) or None -> (N, T, E)."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool
    ) -> Tensor:
        pieces = _pieces(query.shape[1], key.shape[1], causal)
        scale = query.shape[2] ** -0.5
        outputs, kept = [], []
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
            outputs.append(torch.bmm(weights, value[:, :reach]))
        ctx.save_for_backward(query, key, value, *kept)
        ctx.pieces, ctx.scale = pieces, scale
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, *kept = ctx.saved_tensors
        dquery, dkey, dvalue = torch.empty_like(query), None, None
        scaled_query, scaled_key = query * ctx.scale, key * ctx.scale
        for (first, end, reach), weights in zip(
            reversed(ctx.pieces), reversed(kept)
        ):  # the last reaches every key
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
    """(end - first, reach): HIDDEN where a key comes after its query, else 0."""
    return torch.full((end - first, reach), HIDDEN, dtype=like.dtype, device=like.device).triu_(
        first + 1
    )
