"""Where torch's fused update kernels may be used, and the memory layout they assume.

A fused kernel reads parameter, gradient and state as flat memory and ignores strides. Measured on
torch 2.13 (CPU): a channels_last parameter with a contiguous gradient, or with state read from a
file, is silently updated with the wrong entries. Autograd's own accumulation keeps gradients in the
parameter's layout; `torch.autograd.grad` and checkpoints do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    AnyOptimizer = TypeVar("AnyOptimizer", bound=Optimizer)

DEVICES = ("cpu", "cuda")  # where SGD, Adagrad, Adam and AdamW all have a fused kernel


def fusable(groups: list[dict[str, Any]]) -> bool | None:
    """True if the fused kernel may update every parameter; else None, and torch chooses a
    kernel."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    return (
        all(
            tensor.is_floating_point() and tensor.device.type in DEVICES and _is_dense(tensor)
            for tensor in parameters
        )
        or None
    )


def _is_dense(tensor: Tensor) -> bool:
    import torch

    # empty_like keeps the strides of dense tensors only
    return torch.empty_like(tensor, device="meta").stride() == tensor.stride()


def keep_layouts(optimizer: AnyOptimizer) -> AnyOptimizer:
    """The same optimizer, which from now on copies gradients (before a step) and loaded state into
    the memory layout of their parameter, where it differs.

    Otherwise it costs one comparison of strides per parameter and step.
    """
    optimizer.register_step_pre_hook(_align_gradients)
    optimizer.register_load_state_dict_post_hook(_align_state)
    return optimizer


def _align_gradients(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None and gradient.stride() != parameter.stride():
                parameter.grad = _like(gradient, parameter)


def _align_state(optimizer: Optimizer) -> None:
    import torch

    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if (
                isinstance(value, torch.Tensor)
                and value.shape == parameter.shape
                and value.stride() != parameter.stride()
            ):
                state[name] = _like(value, parameter)


def _like(tensor: Tensor, parameter: Tensor) -> Tensor:
    import torch

    return torch.empty_like(parameter, dtype=tensor.dtype, requires_grad=False).copy_(tensor)
