"""torch's optimizers without what torch.compile needs around them.

torch wraps the methods of an optimizer so that a compiled training step may contain them. Uncompiled, the wrappers import the compiler
(torch._dynamo: about 0.8 s before the first update) and take 9 of the 30 microseconds of a fused update of four small tensors
(measured on torch 2.13, one CPU core). danlu compiles the model and never the update.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

_WRAPPED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


@functools.cache
def lean(kind: type[Optimizer]) -> type[Any]:
    """A subclass of an optimizer class that updates to the same bits; its own step hooks are called, global ones and closures are not."""
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
