"""The contract of a compressor: what its module offers, and the model that it works on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.artifact.artifact import Contents
    from danlu.data.dataset import Dataset
    from danlu.parts.losses._base import Loss
    from danlu.recipe import Options, Recipe
    from danlu.terms import OutputSpec

# JSON values: names of layers, shapes, ranks; never weights. It comes from a file when an artifact
# is read, so `replay` checks every value it takes from it.
CompressorState: TypeAlias = dict[str, Any]


class TrainingOptions(Protocol):
    """The options of a compressor that trains the model that it changed."""

    @property
    def epochs(self) -> float:
        """Passes over the training rows."""
        ...

    @property
    def learning_rate(self) -> float:
        """Share of the recipe's learning rate."""
        ...


class DistilOptions(Protocol):
    """The options of compressor distil (danlu/compression/compressors/distil.py describes them)."""

    @property
    def student(self) -> str | None: ...
    @property
    def model(self) -> str | dict[str, Any] | None: ...
    @property
    def teacher(self) -> str | None: ...
    @property
    def epochs(self) -> float | None: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def temperature(self) -> float: ...
    @property
    def weight(self) -> float: ...
    @property
    def sequences(self) -> bool: ...
    @property
    def hidden(self) -> dict[str, str]: ...
    @property
    def hidden_weight(self) -> float: ...
    @property
    def attention(self) -> dict[str, str]: ...
    @property
    def attention_weight(self) -> float: ...


class Subject(ABC):
    """The model that a compressor changes, and what it may use.

    module     the model, in evaluation mode, float32 on the CPU; a compressor changes it in place
               or sets another
    contents   the artifact that it is of; after `distil` the student's
    notes      sentences for the user: what was left as it was, and why
    """

    module: nn.Module
    contents: Contents
    notes: list[str]

    @property
    @abstractmethod
    def family(self) -> str:
        """The name of the model family, for messages."""

    @property
    @abstractmethod
    def recipe(self) -> Recipe:
        """The recipe that the model was trained by."""

    @property
    @abstractmethod
    def output(self) -> OutputSpec:
        """What the model returns."""

    @abstractmethod
    def rows(self, count: int) -> list[dict[str, Tensor]]:
        """Inputs of at most `count` training rows, in batches; the same at every call."""

    @abstractmethod
    def train(
        self,
        module: nn.Module | None,
        *,
        epochs: float | None,
        learning_rate: float = 1.0,
        finalize: Callable[[nn.Module], None] = lambda module: None,
        wrap_loss: Callable[[Loss, nn.Module, Dataset], Loss] = lambda loss, module, data: loss,
        replace_data: Callable[[Dataset], Dataset] = lambda data: data,
        recipe: Recipe | None = None,
        record: list[dict[str, Any]] | None = None,
        extra_inputs: Sequence[object] = (),
        changes: Mapping[str, object] | None = None,
    ) -> Contents:
        """Train a module by the ordinary loop over the recipe's own data; the resulting artifact.

        module          the module to train on; None: a new one of `recipe`
        epochs          passes over the training rows; None: as `recipe` says
        learning_rate   share of the recipe's learning rate
        finalize, wrap_loss, replace_data, record (as changes)
                        see danlu.training.setup.TrainingOverrides
        recipe          the recipe to train by; None: the artifact's
        extra_inputs    all else that the training is a function of, as JSON values
        changes         further changes of the recipe, by dotted name
        """

    @abstractmethod
    def train_changed(
        self,
        config: TrainingOptions,
        name: str,
        state: Mapping[str, Any],
        module: nn.Module,
        finalize: Callable[[nn.Module], None] = lambda module: None,
    ) -> None:
        """Train the module that compressor `name` changed, as its options say; `module` is then
        the result. `state` is what `replay` needs."""

    @abstractmethod
    def distil(self, config: DistilOptions) -> CompressorState:
        """Train the model of another recipe by a teacher; `contents` and `module` are then the
        student's."""


@dataclass(frozen=True)
class Compressor:
    """What a compressor's module offers; `danlu.registry.compressor(name)` reads it.

    Tensors stay in named parameters and buffers of the module, and weights.safetensors holds them
    as they are (int8 as int8). `state["stored"]`, {tensor name: "int8"}, names float32 tensors with
    at most 8 bits per output, which are written as such. Tensors that are mostly zeros are always
    written as a bitmap and the other values.
    """

    # compress(config, subject) -> state: changes `subject.module`. PartError, which names the model
    # family and the reason, where there is nothing to change.
    compress: Callable[[Options, Subject], CompressorState]

    # replay(config, state, module): changes a newly built module in the same way, in place, before
    # its weights are read. ValueError, KeyError, TypeError or AttributeError where `state` does not
    # fit the module; never makes a tensor larger than those of the module.
    replay: Callable[[Options, CompressorState, nn.Module], None]

    # Whether it trains; it then has an option `epochs`.
    trains: bool = field(default=False, metadata={"name": "TRAINS"})

    # Whether the model rounds numbers when it predicts. Another runtime may then round some of them
    # to the other neighbour, so an export is compared by its score.
    rounds: bool = field(default=False, metadata={"name": "ROUNDS"})

    # Whether the result is another recipe's model; earlier changes are then only recorded.
    needs_student: bool = field(default=False, metadata={"name": "NEEDS_STUDENT"})
