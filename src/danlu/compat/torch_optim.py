"""torch's optimizers without what torch.compile needs around them.

torch wraps the methods of an optimizer so that a compiled training step may contain them.
Uncompiled, the wrappers import the compiler (torch._dynamo: about 0.8 s before the first update)
and take 9 of the 30 microseconds of a fused update of four small tensors (measured on torch 2.13,
one CPU core). danlu compiles the model and never the update.

Both functions give up where torch lacks the private names that they use: `without_dynamo` returns
the class as it is, `fused_update` None, and the caller uses the optimizer's own step."""

# pyright: reportPrivateUsage=false, reportPrivateImportUsage=false

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

# takes the gradients by parameter group, in the order of the group's parameters
FusedUpdate: TypeAlias = "Callable[[list[list[Tensor]]], None]"
_KernelCall: TypeAlias = "Callable[[list[Tensor]], None]"

OptimizerT = TypeVar("OptimizerT", bound="Optimizer")

_WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


def without_dynamo(kind: type[OptimizerT]) -> type[OptimizerT]:
    """A subclass of an optimizer class that updates to the same bits without importing the
    compiler. It calls its own step hooks; global hooks and closures it does not call.

    The class itself where torch keeps hooks under other names."""
    return cast("type[OptimizerT]", _unwrapped(kind))


@functools.cache
def _unwrapped(kind: type[Optimizer]) -> type[Optimizer]:
    import torch

    if not set(_HOOKS) <= torch.optim.Optimizer.__annotations__.keys():
        return kind
    update = inspect.unwrap(kind.step)

    def step(self: Optimizer) -> None:
        for hook in self._optimizer_step_pre_hooks.values():
            hook(self, (), {})
        with torch.no_grad():
            update(self)
        for hook in self._optimizer_step_post_hooks.values():
            hook(self, (), {})

    step.hooked = True  # type: ignore[attr-defined]  # torch would wrap it anew
    plain = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED}
    return type(kind.__name__, (kind,), {"__doc__": kind.__doc__, "step": step, **plain})


def fused_update(optimizer: Optimizer) -> FusedUpdate | None:
    """A function that calls torch's fused kernel over tensors gathered once, to the same bits as
    optimizer.step(); None where there is no such kernel.

    `optimizer` has made a step, so that its state is there; a gradient is laid out in memory as its
    parameter. For small models most of an optimizer's step is the gathering: 60 of 100 microseconds
    (measured on torch 2.13, a fused AdamW over four tensors of 100,000 numbers)."""
    import torch

    calls: list[_KernelCall] = []
    for group in optimizer.param_groups:
        call = _kernel(optimizer, group)
        if call is None:
            return None
        calls.append(call)

    def update(gradients: list[list[Tensor]]) -> None:
        with torch.no_grad():
            for call, of_group in zip(calls, gradients):
                call(of_group)

    return update


def _kernel(optimizer: Optimizer, group: dict[str, Any]) -> _KernelCall | None:
    """The fused update of one group as a function of its gradients; its learning rate is read at
    every call."""
    import torch

    parameters = list(group["params"])
    states = [optimizer.state[parameter] for parameter in parameters]
    if not group.get("fused") or group.get("maximize") or group.get("amsgrad") or not all(states):
        return None
    names = {"_fused_adam_", "_fused_adamw_", "_fused_sgd_", "_foreach_add_"}
    if not names <= vars(torch).keys():
        return None
    if isinstance(optimizer, torch.optim.Adam):
        means, squares, steps = (
            [state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        kernel = torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_
        beta1, beta2 = group["betas"]

        def adam(gradients: list[Tensor]) -> None:
            torch._foreach_add_(steps, 1)
            kernel(
                parameters, gradients, means, squares, [], steps,
                lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"],
                eps=group["eps"], amsgrad=False, maximize=False,
            )  # fmt: skip

        return adam
    if isinstance(optimizer, torch.optim.SGD) and group["momentum"]:
        sums = [state["momentum_buffer"] for state in states]

        def momentum(gradients: list[Tensor]) -> None:
            torch._fused_sgd_(
                parameters, gradients, sums, weight_decay=group["weight_decay"],
                momentum=group["momentum"], lr=group["lr"], dampening=group["dampening"],
                nesterov=group["nesterov"], maximize=False, is_first_step=False,
            )  # fmt: skip

        return momentum
    return None
