"""torch's optimizers without what torch.compile needs around them.

torch wraps the methods of an optimizer so that a compiled training step may contain them.
Uncompiled, the wrappers import the compiler (torch._dynamo: about 0.8 s before the first update)
and take 9 of the 30 microseconds of a fused update of four small tensors (measured on torch 2.13,
one CPU core). danlu compiles the model and never the update."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

_WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


@functools.cache
def without_dynamo(kind: type[Optimizer]) -> type[Any]:
    """A subclass of an optimizer class that updates to the same bits; its own step hooks are
    called, global ones and closures are not."""
    import torch

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


def fused_update(optimizer: Optimizer) -> Any:
    """update(gradients) that calls torch's fused kernel over tensors gathered once, to the same
    bits; None where there is none to call.

    `optimizer` has made a step, so that its state is there; `gradients` holds a list a parameter
    group, in the order of its parameters, each laid out like its parameter. For small models most
    of an optimizer's step is the gathering: 60 of 100 microseconds (measured on torch 2.13, a fused
    AdamW over four tensors of 100,000 numbers)."""
    import torch

    calls = [_kernel(optimizer, group) for group in optimizer.param_groups]
    if any(call is None for call in calls):
        return None

    def update(gradients: Any) -> None:
        with torch.no_grad():
            for call, each in zip(calls, gradients):
                assert call is not None
                call(each)

    return update


def _kernel(optimizer: Optimizer, group: dict[str, Any]) -> Any:
    """The fused update of one group as a function of its gradients; its learning rate is read at
    every call."""
    import torch

    parameters = list(group["params"])
    states = [optimizer.state[parameter] for parameter in parameters]
    if not group.get("fused") or group.get("maximize") or group.get("amsgrad") or not all(states):
        return None
    if isinstance(optimizer, torch.optim.Adam):
        means, squares, steps = (
            [state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        kernel = torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_
        beta1, beta2 = group["betas"]

        def adam(gradients: list[Any]) -> None:
            torch._foreach_add_(steps, 1)
            kernel(
                parameters, gradients, means, squares, [], steps, lr=group["lr"], beta1=beta1, beta2=beta2,
                weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
            )  # fmt: skip

        return adam
    if isinstance(optimizer, torch.optim.SGD) and group["momentum"]:
        sums = [state["momentum_buffer"] for state in states]

        def momentum(gradients: list[Any]) -> None:
            torch._fused_sgd_(
                parameters, gradients, sums, weight_decay=group["weight_decay"], momentum=group["momentum"], lr=group["lr"],
                dampening=group["dampening"], nesterov=group["nesterov"], maximize=False, is_first_step=False,
            )  # fmt: skip

        return momentum
    return None
