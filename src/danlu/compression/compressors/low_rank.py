"""Low-rank factorization: a linear layer becomes two narrow ones, by singular value decomposition.

    W ~ up down        down (rank, inputs), up (outputs, rank): the largest singular values, the
                       root of each on both sides

The rank is the least that keeps a share of the sum of squares (`energy`), or a share of the smaller
side (`rank`). A layer is replaced only where that makes it smaller. Some epochs of training
afterwards recover accuracy.
Source: Eckart and Young, 1936; Denton et al., 2014, arXiv:1404.0736.
"""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.compression.compressors._base import CompressorState, Subject

TRAINS = True


class Config(Options):
    """How narrow, which layers, and how it is made up for."""

    energy: float | None = Field(
        None, gt=0, lt=1, description="Share of a matrix's sum of squares that is kept."
    )
    rank: float | None = Field(
        None, gt=0, le=1, description="Rank as a share of the smaller side of a matrix."
    )
    epochs: float = Field(
        1.0, ge=0, le=1e6, description="Passes over the training rows after it; 0: none."
    )
    learning_rate: float = Field(
        0.3, gt=0, le=100, description="Share of the recipe's learning rate."
    )
    layers: list[str] | None = Field(
        None, description="Layers, by name (* for anything); null: every linear layer."
    )
    spare: list[str] = Field([], description="Layers that stay whole, by name (* for anything).")
    smallest: int = Field(4096, ge=1, description="Layers of fewer weights stay whole.")

    @model_validator(mode="after")
    def _one_measure(self) -> Config:
        if self.energy is not None and self.rank is not None:
            raise ValueError("energy and rank exclude each other")
        return self


_ENERGY = 0.9  # where nobody says


def compress(config: Config, subject: Subject) -> CompressorState:
    """Factor, train on. PartError where no layer would become smaller."""
    from danlu.compression.compressors._svd import Factored, rank_of
    from danlu.errors import PartError
    from danlu.layers.quantization.int8 import weight_matrix
    from danlu.layers.selection import linear_layers, select_layers, unshared, weight_count

    module = subject.module
    layers = unshared(
        module, select_layers(linear_layers(module), config.layers, config.spare, "low_rank")
    )
    ranks = {}
    for name, layer in layers.items():
        if weight_count(layer) >= config.smallest:
            matrix = weight_matrix(layer)
            energy = (
                config.energy if config.energy is not None or config.rank is not None else _ENERGY
            )
            rank = rank_of(matrix, energy, config.rank)
            if rank * sum(matrix.shape) < matrix.numel():
                ranks[name] = rank
    if not ranks:
        raise PartError(
            f"low_rank finds no linear layer in this {subject.family} that two narrow ones would "
            "be smaller than.",
            hint="keep less energy, or a lower rank",
        )
    for name, rank in ranks.items():
        module.set_submodule(name, Factored(layers[name], rank))
    state = {"ranks": ranks}
    if config.epochs:
        subject.train_changed(config, "low_rank", state, module)
    return state


def replay(config: Config, state: CompressorState, module: nn.Module) -> None:
    """Put two layers of the same rank in place of each that is named."""
    from danlu.compression.compressors._svd import Factored
    from danlu.layers.selection import layer_of_kind, linear_layers

    for name, rank in state["ranks"].items():
        module.set_submodule(
            name, Factored(layer_of_kind(module, name, linear_layers), rank, empty=True)
        )
