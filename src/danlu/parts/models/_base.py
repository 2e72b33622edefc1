"""The contract of a model family: what its module offers beside `Config` and `build`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn

    from danlu.recipe import Data, Options, Part


@runtime_checkable
class WeightsOption(Protocol):
    """The options of a family that can start from the weights of an artifact or a run."""

    weights: str | None


@runtime_checkable
class PathOption(Protocol):
    """The options of a family that reads its weights from a file or folder."""

    path: str | None


@dataclass(frozen=True)
class ModelFacts:
    """What a model family says of itself; `danlu.registry.model_facts(name)` reads it.

    Each field is a module-level name of the part's file. The optional functions are None where the
    file has none.
    """

    # The kinds of input the family accepts: a subset of ("numbers", "categories", "image",
    # "tokens", "frames", "series").
    takes: tuple[str, ...] = field(metadata={"name": "TAKES"})

    # The forms of output it can give (danlu.terms.OutputSpec.per): a subset of ("row", "token",
    # "step", "moment", "frame", "image").
    gives: tuple[str, ...] = field(default=("row",), metadata={"name": "GIVES"})

    # Dotted recipe keys to values that suit the family: {"train.epochs": 20, "optimizer": {...}}.
    defaults: Mapping[str, object] = field(
        default_factory=dict[str, object], metadata={"name": "DEFAULTS"}
    )

    # width_of(config) -> int: the one number that makes the layers wider or narrower; 0 where the
    # options do not leave it free. Comes together with `at_width`.
    width_of: Callable[[Options], int] | None = None

    # at_width(config, width) -> Config: the same network at another width. Its options hold
    # parametrization ("standard", "mup"), base_width, and base_layers where blocks add to a
    # residual stream. ValueError for a width that the network cannot have.
    at_width: Callable[[Options, int], Options] | None = None

    # adapt(config, data) -> Data: the recipe's data section with what pretrained weights fix: the
    # tokenizer they were trained with, the size of their images. Runs before the task's `adapt`.
    adapt: Callable[[Options, Data], Data] | None = None

    # adapt_task(config, task) -> Part: the recipe's task likewise: the tokenizer of its targets.
    adapt_task: Callable[[Options, Part], Part] | None = None

    # begin(config, module) -> (digest, notice, fresh): loads pretrained weights into a module that
    # `build` returned. digest: SHA-256 of the files that were read; notice: a sentence for the
    # user; fresh: the names of the tensors that keep their random initial values.
    begin: Callable[[Options, nn.Module], tuple[str, str, tuple[str, ...]]] | None = None

    # settled(config) -> Config: the options as an artifact stores them. `build` with these reads
    # nothing outside of them.
    settled: Callable[[Options], Options] | None = None


def weights_of(options: Options) -> str | None:
    """The option `weights`: an artifact or run to start from; None if unset or no such option."""
    return options.weights if isinstance(options, WeightsOption) else None


def pretrained_path(options: Options) -> str | None:
    """The option `path`: pretrained weights outside danlu; None where unset or no such option."""
    return options.path if isinstance(options, PathOption) else None
