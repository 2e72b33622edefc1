"""K models of one architecture as one: stacked weights, and one forward pass for all of them under
torch.func.vmap.

K models, B rows.
"""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# Module has no public access to its own tensors without those of its children.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from danlu.compat.torch_vmap import over_models
from danlu.system.placement import Placement
from danlu.training.population import batched_layers
from danlu.training.step import formulas

_LARGE = 1 << 14  # numbers of a matrix from which a second copy in low precision saves time


class Stack:
    """The tensors of K models, (K, ...) by name; row k is model k.

    trained         parameters that are trained
    constants       frozen parameters, and buffers; running statistics change in the forward pass
    average         the weight average, None where there is none
    low_precision   matrices of linear layers in autocast's number format, see `keep_low_precision`

    The modules keep their own parameters, which are views of the rows: an optimizer over a module
    updates the stack."""

    def __init__(
        self, modules: Sequence[nn.Module], placement: Placement, *, averaged: bool
    ) -> None:
        self.placement = placement
        self.modules = list(modules)
        template = copy.deepcopy(modules[0])
        self.generators = batched_layers.StackedGenerators(len(modules), placement.device)
        shares = batched_layers.prepare(template, modules, self.generators)
        template.to(placement.device)
        self.template = template
        self.holders = _holders(template)
        named = [dict(module.named_parameters()) for module in modules]
        self.names = [name for name, weight in named[0].items() if weight.requires_grad]
        self.trained = batched_layers.stacked(
            [{name: of_model[name] for name in self.names} for of_model in named]
        )
        self.constants: dict[str, Tensor] = batched_layers.stacked(
            [{k: v for k, v in of_model.items() if k not in self.trained} for of_model in named]
        )
        # the buffers in a state_dict are running statistics, which the forward pass changes
        kept = modules[0].state_dict().keys()
        self.statistics = [name for name, _ in modules[0].named_buffers() if name in kept]
        buffers = [dict(module.named_buffers()) for module in modules]
        self.constants |= (
            batched_layers.stacked(
                [{name: of_model[name] for name in self.statistics} for of_model in buffers]
            )
            | shares
        )
        self.average = (
            {name: tensor.clone() for name, tensor in self._averaged().items()}
            if averaged
            else None
        )
        self.linears = _linears(template)
        self.low_precision: dict[str, Tensor] = {}
        self._ready()

    def __len__(self) -> int:
        return len(self.modules)

    def _averaged(self) -> dict[str, Tensor]:
        floating = {
            name: self.constants[name]
            for name in self.statistics
            if self.constants[name].is_floating_point()
        }
        return {**self.trained, **floating}

    def _ready(self) -> None:
        """Make leaves for the gradients, and make the modules' parameters views of the rows."""
        for name in self.names:
            self.trained[name] = self.trained[name].detach().requires_grad_()
        if self.low_precision:
            self.keep_low_precision(next(iter(self.low_precision.values())).dtype)
        rows = {name: weight.detach().unbind(0) for name, weight in self.trained.items()}
        self.parameters = [
            {name: weight for name, weight in module.named_parameters() if name in rows}
            for module in self.modules
        ]
        for number, parameters in enumerate(self.parameters):
            for name, parameter in parameters.items():
                parameter.data = rows[name][number]

    def keep_low_precision(self, dtype: torch.dtype) -> None:
        """Keep the matrices of linear layers a second time in `dtype`, (K, O, I) by name, as
        autocast would cast them in every update.

        Their gradients then have that dtype too. An optimizer converts both, one trial at a time,
        while the trial's rows are in the core's cache. Otherwise 16 perceptrons 784-128-10 take 372
        microseconds per trial, of which casting is 77."""
        large = {
            name: weight
            for name, weight in self.trained.items()
            if name in self.linears and weight[0].numel() >= _LARGE
        }
        self.low_precision = {
            name: weight.detach().to(dtype).requires_grad_() for name, weight in large.items()
        }

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        *,
        shared: bool,
        weights: Mapping[str, Tensor] | None = None,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """Outputs (K, B, ...) of all models, or of those at `rows`.

        inputs    one batch that all models share, or (K, B, ...) where not `shared`
        weights   tensors in place of the stack's own, such as its average
        """
        trained, constants = self.trained, self.constants
        if weights is not None:
            trained = {**trained, **{k: v for k, v in weights.items() if k in trained}}
            constants = {**constants, **{k: v for k, v in weights.items() if k in constants}}
        self.generators.rows = rows
        learns = self.template.training and weights is None
        if self.low_precision and learns and rows is not None:
            raise RuntimeError("trials with batches of their own have no matrices in low precision")
        for name, layer in self.linears.items():
            matrix = self.low_precision.get(name) if learns else None
            layer.__dict__[batched_layers.LOW_PRECISION] = matrix
        index = None
        if rows is not None:
            index = torch.tensor(list(rows), device=self.placement.device)
            trained = {name: tensor.index_select(0, index) for name, tensor in trained.items()}
            constants = {name: tensor.index_select(0, index) for name, tensor in constants.items()}

        def run(own: tuple[dict[str, Tensor], dict[str, Tensor]]) -> Tensor:
            tensors, own_inputs = own
            for name, tensor in tensors.items():
                for holder, key in self.holders[name]:
                    holder[key] = tensor
            return self.template(dict(inputs) if shared else own_inputs)

        count = len(self) if rows is None else len(rows)
        outputs = over_models(count, run, (trained | constants, {} if shared else dict(inputs)))
        if index is not None and self.statistics and self.template.training:
            with torch.no_grad():  # the forward pass changed copies of the running statistics
                for name in self.statistics:
                    self.constants[name].index_copy_(0, index, constants[name].detach())
        return outputs

    def predict(self, inputs: Mapping[str, Tensor], rows: Sequence[int] | None = None) -> Tensor:
        """Outputs (K, B, ...) in evaluation mode, with the averaged weights where there are
        some."""
        was = self.template.training
        self.template.eval()
        try:
            return self.forward(inputs, shared=True, weights=self.average, rows=rows)
        finally:
            self.template.train(was)

    def clear(self) -> None:
        """Drop the gradients of the last update."""
        for weight in (*self.trained.values(), *self.low_precision.values()):
            weight.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """The gradients (K, ...) by name, of parameters that have one; those of matrices in low
        precision have its dtype."""
        gradients = {
            name: weight.grad for name, weight in self.trained.items() if weight.grad is not None
        }
        return gradients | {
            name: weight.grad
            for name, weight in self.low_precision.items()
            if weight.grad is not None
        }

    def update_average(self, shares: Sequence[float]) -> None:
        """Move the averages towards the weights, each model's by its own share."""
        if self.average is None:
            return
        weights = {name: weight.detach() for name, weight in self._averaged().items()}
        share = torch.tensor(list(shares), dtype=torch.float32, device=self.placement.device)
        formulas.update_averages(
            [self.average[name] for name in weights], list(weights.values()), share
        )

    def keep(self, which: Sequence[int]) -> None:
        """Keep only the models at these rows, ascending."""
        index = torch.tensor(list(which), device=self.placement.device)
        self.modules = [self.modules[row] for row in which]
        self.generators.keep(which)
        with torch.no_grad():
            self.trained = {
                name: weight.detach().index_select(0, index)
                for name, weight in self.trained.items()
            }
            self.constants = {
                name: tensor.index_select(0, index.to(tensor.device))
                for name, tensor in self.constants.items()
            }
            if self.average is not None:
                self.average = {
                    name: tensor.index_select(0, index) for name, tensor in self.average.items()
                }
        self._ready()

    def copy(self, source: int, target: int) -> None:
        """Give the model at `target` the weights of that at `source`."""
        groups = [
            self.trained,
            {name: self.constants[name] for name in self.statistics},
            self.average or {},
        ]
        with torch.no_grad():
            for group in groups:
                for tensor in group.values():
                    tensor[target].copy_(tensor[source])
            for tensor in self.low_precision.values():
                tensor[target].copy_(tensor[source])

    def set_share(self, row: int, module: nn.Module) -> None:
        """Set the dropout shares of the model at `row` to those of a module."""
        for name, layer in module.named_modules():
            key = f"{name}.{batched_layers.SHARE}" if name else batched_layers.SHARE
            if key in self.constants:
                self.constants[key][row] = batched_layers.share_of(layer)

    @property
    def bytes_per_model(self) -> int:
        """Bytes of one model's trained weights."""
        return sum(weight[0].numel() * weight.element_size() for weight in self.trained.values())


def _holders(module: nn.Module) -> dict[str, list[tuple[dict[str, Any], str]]]:
    """For each parameter and buffer, by its first name, the (dict, key) entries of the layers that
    have it; tied weights have several."""
    names: dict[int, str] = {}
    holders: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for prefix, layer in module.named_modules():
        for tensors in (layer._parameters, layer._buffers):
            for key, tensor in tensors.items():
                if tensor is not None:
                    name = names.setdefault(id(tensor), f"{prefix}.{key}" if prefix else key)
                    holders.setdefault(name, []).append((tensors, key))  # type: ignore[arg-type]
    return holders


def _linears(template: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers with a matrix of their own, by its name: neither tied nor
    reparametrized."""
    alone = {id(weight) for weight, count in Counter(_matrices(template)).items() if count == 1}
    return {
        f"{name}.weight" if name else "weight": layer
        for name, layer in template.named_modules()
        if isinstance(layer, nn.Linear)
        and "forward" in layer.__dict__
        and id(layer._parameters.get("weight")) in alone
    }


def _matrices(module: nn.Module) -> list[Tensor]:
    return [
        weight
        for layer in module.modules()
        for weight in layer._parameters.values()
        if weight is not None
    ]
