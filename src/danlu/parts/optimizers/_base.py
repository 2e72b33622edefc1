"""The contract of an optimizer: what its module offers beside `Config` and `build`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from danlu.recipe import Options

UpdateLength = Literal["gradient", "entry", "matrix"]


@runtime_checkable
class LearningRateOption(Protocol):
    """The options of an optimizer: every one has a learning rate."""

    learning_rate: float


@runtime_checkable
class WeightDecayOption(Protocol):
    """The options of an optimizer with weight decay."""

    weight_decay: float


class UpdateRule(Protocol):
    """One update of one parameter as a pure function, for torch.func.vmap.

    update(parameter, gradient, state, step, options) -> (parameter, state): torch operators only
    and no branch on a value. `gradient`, and every tensor in `state`, has the parameter's shape.
    `step` counts from 1. `options` maps each option's name to its value; numbers come as float or
    as 0-dim float64 Tensor (in float32, 1 - 0.999 keeps 5 digits).
    """

    def __call__(
        self,
        parameter: Tensor,
        gradient: Tensor,
        state: dict[str, Tensor],
        step: int,
        options: Mapping[str, object],
        /,
    ) -> tuple[Tensor, dict[str, Tensor]]: ...


@dataclass(frozen=True)
class OptimizerFacts:
    """What an optimizer says of itself; `danlu.registry.optimizer_facts(name)` reads it.

    Each field is a module-level name of the part's file. A test holds `update` and the torch
    optimizer of `build` together to 1e-6 over 50 steps.
    """

    # initial(parameter) -> dict: the state that `update` starts from; tensors of the parameter's
    # shape. None, as `update`: trials of a population run the torch optimizer one by one.
    initial: Callable[[Tensor], dict[str, Tensor]] | None = None
    update: UpdateRule | None = None

    # How long an update is, which muP needs (danlu/layers/parametrization.py). "gradient": in
    # proportion to the gradient; "entry": about the learning rate for every weight; "matrix": a
    # matrix by the length that its shape gives, all else as "entry". None: muP is refused.
    update_length: UpdateLength | None = field(default=None, metadata={"name": "UPDATE"})

    # "weights": weight decay shrinks the weights beside the update, by learning_rate *
    # weight_decay; "gradient": weight_decay * weights are added to the gradient.
    decay: Literal["weights", "gradient"] = field(default="gradient", metadata={"name": "DECAY"})

    # True: embeddings and output layers over a vocabulary come in a parameter group of their own
    # with "muon": False (danlu.training.setup.tables).
    spares_tables: bool = field(default=False, metadata={"name": "SPARES_TABLES"})

    # With `spares_tables`: the state that `update` starts from for a parameter of such a group.
    initial_of_table: Callable[[Tensor], dict[str, Tensor]] | None = None

    # True: `update` treats each entry independently, so parameters may be concatenated and updated
    # as one.
    elementwise: bool = field(default=False, metadata={"name": "ELEMENTWISE"})

    # True: one update uses all training rows (gradient descent).
    full_batch: bool = field(default=False, metadata={"name": "FULL_BATCH"})


def learning_rate_of(options: Options) -> float:
    """The option `learning_rate`. TypeError for options of another kind of part."""
    if not isinstance(options, LearningRateOption):
        raise TypeError(f"{type(options).__module__}.Config has no learning_rate")
    return float(options.learning_rate)


def weight_decay_of(options: Options) -> float:
    """The option `weight_decay`; 0.0 where the optimizer has no such option."""
    return float(options.weight_decay) if isinstance(options, WeightDecayOption) else 0.0
