"""K models of one architecture as one: stacked weights, and a forward pass over all of them under torch.func.vmap.

K models, B rows.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from danlu.compat.torch_vmap import Together
from danlu.system.placement import Placement
from danlu.training.population import batched_layers

_NARROW = 1 << 14  # numbers of a matrix below which a second copy costs more than it saves


class Stack:
    """The weights of K models, (K, ...) by name: `moving` those that learn, `still` frozen ones and
    buffers; `average` the EMA.

    The modules keep their own parameters: views of the rows, so that an optimizer over a module
    moves the stack."""

    def __init__(
        self, modules: Sequence[nn.Module], placement: Placement, *, averaged: bool
    ) -> None:
        self.placement = placement
        self.modules = list(modules)
        template = copy.deepcopy(modules[0])
        self.chance = batched_layers.Chance(len(modules), placement.device)
        shares = batched_layers.prepare(template, modules, self.chance)
        template.to(placement.device)
        self.template = template
        self.holders = _holders(template)
        named = [dict(module.named_parameters()) for module in modules]
        self.names = [name for name, each in named[0].items() if each.requires_grad]
        self.moving = batched_layers.stacked(
            [{name: each[name] for name in self.names} for each in named]
        )
        self.still = batched_layers.stacked(
            [{k: v for k, v in each.items() if k not in self.moving} for each in named]
        )
        # what a state_dict holds beside parameters are running statistics: they move in the forward
        # pass; all else is a constant
        kept = modules[0].state_dict().keys()
        self.statistics = [name for name, _ in modules[0].named_buffers() if name in kept]
        buffers = [dict(module.named_buffers()) for module in modules]
        self.still |= (
            batched_layers.stacked(
                [{name: each[name] for name in self.statistics} for each in buffers]
            )
            | shares
        )
        self.average = (
            {name: each.clone() for name, each in self._averaged().items()} if averaged else None
        )
        self.linears = _linears(template)
        self.narrow: dict[str, Tensor] = {}
        self._ready()

    def __len__(self) -> int:
        return len(self.modules)

    def _averaged(self) -> dict[str, Tensor]:
        floating = {
            name: self.still[name]
            for name in self.statistics
            if self.still[name].is_floating_point()
        }
        return {**self.moving, **floating}

    def _ready(self) -> None:
        """Leaves that gradients go to, and the modules' parameters as views of the rows."""
        for name in self.names:
            self.moving[name] = self.moving[name].detach().requires_grad_()
        if self.narrow:
            self.narrow_down(next(iter(self.narrow.values())).dtype)
        rows = {name: each.detach().unbind(0) for name, each in self.moving.items()}
        self.parameters = [
            {name: each for name, each in module.named_parameters() if name in rows}
            for module in self.modules
        ]
        for number, held in enumerate(self.parameters):
            for name, parameter in held.items():
                parameter.data = rows[name][number]

    def narrow_down(self, dtype: torch.dtype) -> None:
        """Keep the matrices of linear layers a second time, as autocast would cast them in every
        update: `narrow` (K, O, I) by name.

        Their gradients then come in that format, and who moves the weights must carry both over, a
        trial at a time, while its rows lie in the core's own cache: 16 perceptrons 784-128-10 take
        372 microseconds a trial otherwise, of which casting is 77."""
        held = {
            name: each
            for name, each in self.moving.items()
            if name in self.linears and each[0].numel() >= _NARROW
        }
        self.narrow = {
            name: each.detach().to(dtype).requires_grad_() for name, each in held.items()
        }

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        *,
        shared: bool,
        weights: Mapping[str, Tensor] | None = None,
        places: Sequence[int] | None = None,
    ) -> Tensor:
        """Outputs (K, B, ...) of all models, or of those at `places`; `inputs` are one batch that
        all share, or (K, B, ...)."""
        held = (
            self.moving
            if weights is None
            else {**self.moving, **{k: v for k, v in weights.items() if k in self.moving}}
        )
        still = (
            self.still
            if weights is None
            else {**self.still, **{k: v for k, v in weights.items() if k in self.still}}
        )
        self.chance.places = places
        learns = self.template.training and weights is None
        if self.narrow and learns and places is not None:
            raise RuntimeError("trials with batches of their own have no narrow matrices")
        for name, layer in self.linears.items():
            layer.__dict__[batched_layers.NARROW] = self.narrow.get(name) if learns else None
        index = None
        if places is not None:
            index = torch.tensor(list(places), device=self.placement.device)
            held = {name: each.index_select(0, index) for name, each in held.items()}
            still = {name: each.index_select(0, index) for name, each in still.items()}

        with Together(len(self) if places is None else len(places)) as together:
            for name, each in (held | still).items():
                own = together.split(each)
                for holder, key in self.holders[name]:
                    holder[key] = own
            outputs = together.join(
                self.template(dict(inputs) if shared else together.split(dict(inputs)))
            )
        if index is not None and self.statistics and self.template.training:
            with torch.no_grad():  # running statistics moved in the copies
                for name in self.statistics:
                    self.still[name].index_copy_(0, index, still[name].detach())
        return outputs

    def answers(self, inputs: Mapping[str, Tensor], places: Sequence[int] | None = None) -> Tensor:
        """Outputs (K, B, ...) as an evaluation asks for them: the averaged weights where there are
        some, nothing dropped."""
        was = self.template.training
        self.template.eval()
        try:
            return self.forward(inputs, shared=True, weights=self.average, places=places)
        finally:
            self.template.train(was)

    def clear(self) -> None:
        """Let go of the gradients of the last update."""
        for each in (*self.moving.values(), *self.narrow.values()):
            each.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """The gradients (K, ...) by name, of the parameters that hold one; those of narrow matrices
        in their own format."""
        found = {name: each.grad for name, each in self.moving.items() if each.grad is not None}
        return found | {
            name: each.grad for name, each in self.narrow.items() if each.grad is not None
        }

    def update_average(self, decays: Sequence[float]) -> None:
        """Bring the averages nearer to the live weights, each model's by its own decay."""
        if self.average is None:
            return
        with torch.no_grad():
            share = torch.tensor(
                [1 - each for each in decays], dtype=torch.float32, device=self.placement.device
            )
            for name, live in self._averaged().items():
                self.average[name].lerp_(live.detach(), share.view(-1, *(1,) * (live.ndim - 1)))

    def keep(self, which: Sequence[int]) -> None:
        """Go on with the models at these places; the others leave the stack."""
        index = torch.tensor(list(which), device=self.placement.device)
        self.modules = [self.modules[each] for each in which]
        self.chance.keep(which)
        with torch.no_grad():
            self.moving = {
                name: each.detach().index_select(0, index) for name, each in self.moving.items()
            }
            self.still = {
                name: each.index_select(0, index.to(each.device))
                for name, each in self.still.items()
            }
            if self.average is not None:
                self.average = {
                    name: each.index_select(0, index) for name, each in self.average.items()
                }
        self._ready()

    def copy(self, source: int, target: int) -> None:
        """Give the model at `target` the weights of that at `source`."""
        held = [
            self.moving,
            {name: self.still[name] for name in self.statistics},
            self.average or {},
        ]
        with torch.no_grad():
            for each in held:
                for tensor in each.values():
                    tensor[target].copy_(tensor[source])
            for tensor in self.narrow.values():
                tensor[target].copy_(tensor[source])

    def set_share(self, place: int, module: nn.Module) -> None:
        """Take over the shares of dropout of a module for the model at `place`."""
        for name, layer in module.named_modules():
            key = f"{name}.{batched_layers.SHARE}" if name else batched_layers.SHARE
            if key in self.still:
                self.still[key][place] = batched_layers.share_of(layer)

    @property
    def bytes_a_model(self) -> int:
        """Bytes of one model's weights that learn."""
        return sum(each[0].numel() * each.element_size() for each in self.moving.values())


def _holders(module: nn.Module) -> dict[str, list[tuple[dict[str, Any], str]]]:
    """Where each parameter and buffer is held, (dict, key), by its first name: weights that are
    tied are held at several places."""
    names: dict[int, str] = {}
    found: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for prefix, layer in module.named_modules():
        for held in (layer._parameters, layer._buffers):
            for key, tensor in held.items():
                if tensor is not None:
                    name = names.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
                    found.setdefault(name, []).append((held, key))  # type: ignore[arg-type]
    return found


def _linears(template: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers that read a matrix of their own, by its name: none that is tied or
    reparametrized."""
    alone = {id(each) for each, count in Counter(_matrices(template)).items() if count == 1}
    return {
        f"{name}.weight" if name else "weight": layer
        for name, layer in template.named_modules()
        if isinstance(layer, nn.Linear)
        and "forward" in layer.__dict__
        and id(layer._parameters.get("weight")) in alone
    }


def _matrices(module: nn.Module) -> list[Tensor]:
    return [
        each
        for layer in module.modules()
        for each in layer._parameters.values()
        if each is not None
    ]
