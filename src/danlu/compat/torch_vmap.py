"""A function run for K models at once: torch.func.vmap, entered below its wrappers.

`over_models` is a call of vmap; `on_stacked` leaves vmap inside of one, for layers that have a
faster way for K models than vmap finds. Both have a public form, which gives the same bits
(tests/compat/test_torch_vmap.py) and is used where torch lacks the private names:

  over_models   vmap walks trees of arguments around every call, a millisecond for a small model
                (torch 2.13)
  on_stacked    torch.autograd.Function with a vmap rule takes 300 to 600 microseconds a call, the
                private form 15

Functions with a hand-written gradient have no rule for vmap. They ask `under_vmap()` and then use
torch's own operators, which give the same numbers."""

# pyright: reportPrivateUsage=false, reportAttributeAccessIssue=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportOptionalMemberAccess=false, reportOptionalCall=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor

try:
    from torch._C import _functorch
    from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
except ImportError:  # pragma: no cover - a version of torch to come
    _functorch = retrieve_current_functorch_interpreter = None

_NAMES = (
    "_add_batch_dim",
    "_remove_batch_dim",
    "_vmap_increment_nesting",
    "_vmap_decrement_nesting",
    "get_unwrapped",
    "is_batchedtensor",
    "maybe_get_bdim",
)
PRIVATE_NAMES_EXIST = _functorch is not None and (
    set(_NAMES) <= vars(_functorch).keys() and "_are_functorch_transforms_active" in vars(torch._C)
)

# Tensors, in tuples and dicts.
TreeT = TypeVar("TreeT")
ResultT = TypeVar("ResultT", Tensor, tuple[Tensor, Tensor])


class ModelsTensor(NamedTuple):
    """A tensor as it is outside of vmap.

    tensor   of all models, or one that they share
    axis     the dimension that counts the models; None where they share the tensor
    count    K, how many models run
    """

    tensor: Tensor
    axis: int | None
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]

    def stacked(self) -> Tensor:
        """(K, ...); a view where all models share it."""
        if self.axis is None:
            return self.tensor.expand(self.count, *self.tensor.shape)
        return self.tensor.movedim(self.axis, 0)


# --- the private form


def private_under_vmap() -> bool:
    """Whether the code that asks is run by torch.func.vmap."""
    return bool(torch._C._are_functorch_transforms_active())


def private_over_models(count: int, compute: Callable[[TreeT], ResultT], stacked: TreeT) -> ResultT:
    """What `compute` returns for `count` models: (K, ...), or two such tensors.

    stacked   tensors (K, ...), in dicts and tuples; `compute` sees each without its first dimension
    """
    level = _functorch._vmap_increment_nesting(count, "different")
    try:
        own = compute(cast("TreeT", _split(stacked, level)))
        if isinstance(own, Tensor):
            return _functorch._remove_batch_dim(own, level, count, 0)
        return cast(
            "ResultT", tuple(_functorch._remove_batch_dim(part, level, count, 0) for part in own)
        )
    finally:
        _functorch._vmap_decrement_nesting()


def _split(tree: object, level: int) -> object:
    if isinstance(tree, Mapping):
        return {name: _split(branch, level) for name, branch in tree.items()}
    if isinstance(tree, tuple):
        return tuple(_split(branch, level) for branch in tree)
    return _functorch._add_batch_dim(tree, 0, level)


def private_on_stacked(compute: Callable[..., ResultT | ModelsTensor], *tensors: Tensor) -> ResultT:
    """What `compute` makes of the ModelsTensor of each of `tensors`, as vmap sees it.

    It returns tensors (K, ...), or a ModelsTensor where another dimension counts the models."""
    interpreter = retrieve_current_functorch_interpreter()
    level, count = interpreter.level(), int(interpreter.batch_size())
    outside = [_unwrapped(tensor, count) for tensor in tensors]
    with interpreter.lower():
        result = compute(*outside)
    if isinstance(result, ModelsTensor):
        return _functorch._add_batch_dim(result.tensor, result.axis, level)
    if isinstance(result, Tensor):
        return _functorch._add_batch_dim(result, 0, level)
    return cast("ResultT", tuple(_functorch._add_batch_dim(part, 0, level) for part in result))


def _unwrapped(tensor: Tensor, count: int) -> ModelsTensor:
    if not _functorch.is_batchedtensor(tensor):
        return ModelsTensor(tensor, None, count)
    return ModelsTensor(_functorch.get_unwrapped(tensor), _functorch.maybe_get_bdim(tensor), count)


# --- the public form

_index: ContextVar[Tensor | None] = ContextVar("index of the model that runs", default=None)


def public_under_vmap() -> bool:
    """As `under_vmap`, of calls by `public_over_models` alone: torch has no public question."""
    return _index.get() is not None


def public_over_models(count: int, compute: Callable[[TreeT], ResultT], stacked: TreeT) -> ResultT:
    """As `over_models`."""

    def run(index: Tensor, tree: TreeT) -> ResultT:
        token = _index.set(index)
        try:
            return compute(tree)
        finally:
            _index.reset(token)

    return torch.func.vmap(run, randomness="different")(torch.arange(count), stacked)


def public_on_stacked(compute: Callable[..., ResultT | ModelsTensor], *tensors: Tensor) -> ResultT:
    """As `on_stacked`."""
    return cast("ResultT", _OnStacked.apply(compute, _index.get(), *tensors))


class _OnStacked(torch.autograd.Function):
    """A function whose rule for vmap is `compute`. torch records what that does, so it needs no
    backward of its own. The index of the model makes sure that vmap sees one of its tensors."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - as torch.func wants it
        compute: Callable[..., object], index: Tensor, *tensors: Tensor
    ) -> Tensor:
        raise RuntimeError("on_stacked was called outside of over_models")

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[object, ...], output: object) -> None:
        """Nothing is kept."""

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: object,
        in_dims: tuple[int | None, ...],
        compute: Callable[..., Tensor | ModelsTensor | tuple[Tensor, Tensor]],
        index: Tensor,
        *tensors: Tensor,
    ) -> tuple[object, object]:
        outside = [
            ModelsTensor(tensor, dim, len(index))
            for tensor, dim in zip(tensors, in_dims[2:], strict=True)
        ]
        token = _index.set(None)  # what it calls runs outside of vmap
        try:
            result = compute(*outside)
        finally:
            _index.reset(token)
        if isinstance(result, ModelsTensor):
            return result.tensor, result.axis
        return result, (0, 0) if isinstance(result, tuple) else 0


under_vmap = private_under_vmap if PRIVATE_NAMES_EXIST else public_under_vmap
over_models = private_over_models if PRIVATE_NAMES_EXIST else public_over_models
on_stacked = private_on_stacked if PRIVATE_NAMES_EXIST else public_on_stacked
