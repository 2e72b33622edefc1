"""Static int8: choosing, calibrating and replacing layers, and replaying the replacement.

The compressors int8_static and quantization_aware share these steps. What `replace_layers` records
is stored in the artifact; `restore` replays it on a module built anew, before weights are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from danlu.errors import PartError
from danlu.layers.quantization.batch_norm_folding import fold, foldable_pairs
from danlu.layers.quantization.calibration import InputStatistics, observe_inputs
from danlu.layers.quantization.int8 import StaticInt8, StaticInt8Conv, StaticInt8Linear
from danlu.layers.selection import (
    convolutions,
    layer_of_kind,
    linear_layers,
    select_layers,
    unshared,
    weight_count,
)

_WORK_PER_WEIGHT = 64  # a small layer is worth a kernel call from so many multiplications a row on
_NO_EFFECT = (nn.Identity, nn.Dropout)  # layers that change nothing in evaluation


class Calibratable(Protocol):
    """A model with rows to calibrate it on (danlu.compression.compress.Subject)."""

    module: nn.Module
    notes: list[str]

    @property
    def family(self) -> str:
        """The name of the model family."""
        ...

    def rows(self, count: int) -> Iterable[Mapping[str, Tensor]]:
        """Inputs of at most `count` training rows, in batches."""
        ...


def convolutions_and_linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """The layers that have a static int8 form, by name."""
    return {**convolutions(module), **linear_layers(module)}


def fold_batch_norms(module: nn.Module) -> list[list[str]]:
    """Fold all batch normalisations that can be, in place; gives [layer, normalisation] by name, a
    JSON value."""
    pairs = foldable_pairs(module)
    fold(module, pairs)
    return [list(pair) for pair in pairs]


def calibrate(
    subject: Calibratable,
    *,
    layers: Sequence[str] | None,
    spare: Sequence[str],
    rows: int,
    smallest: int,
    who: str,
) -> dict[str, InputStatistics]:
    """The input statistics of each layer that is worth replacing, on `rows` training rows.

    `layers` and `spare` are patterns (danlu.layers.selection), `smallest` the least number of
    weights, `who` the compressor's name for messages. How many layers stay as they are is added to
    subject.notes. Raises PartError where no layer is large enough.
    """
    chosen = select_layers(convolutions_and_linear_layers(subject.module), layers, spare, who)
    candidates = unshared(subject.module, chosen)
    statistics = observe_inputs(subject.module, candidates, subject.rows(rows))
    large = {
        name: entry
        for name, entry in statistics.items()
        if weight_count(candidates[name]) >= smallest or entry.work >= _WORK_PER_WEIGHT * smallest
    }
    if not large:
        raise PartError(
            f"{who} finds no convolution or linear layer in this {subject.family} that is large "
            f"enough ({smallest:,} weights or {_WORK_PER_WEIGHT * smallest:,} multiplications a "
            "row).",
            hint="set smallest lower, or take int8_weight_only",
        )
    if len(large) < len(chosen):
        subject.notes.append(
            f"{len(chosen) - len(large)} of {len(chosen)} layers stay float32: they are small or "
            "unused, or share their matrix."
        )
    return large


def replace_layers(module: nn.Module, codes: Mapping[str, tuple[float, int]]) -> dict[str, Any]:
    """Replace the layers that `codes` names, in place, by static int8 ones; codes gives the (scale,
    zero point) of a layer's inputs. Gives what `restore` needs beside the folding, JSON values."""
    plan = [{"name": name, **_followers(module, name, codes)} for name in codes]
    _replace(module, plan, codes)
    return {"layers": plan}


def restore(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Fold and replace as `state` records, in place. Raises ValueError, KeyError, TypeError or
    AttributeError where it does not fit the module."""
    fold(module, [(str(first), str(second)) for first, second in state["fold"]])
    _replace(module, state["layers"], {})


def _replace(
    module: nn.Module, plan: Sequence[Mapping[str, Any]], codes: Mapping[str, tuple[float, int]]
) -> None:
    new_layers: dict[str, StaticInt8] = {}
    for entry in plan:
        name = entry["name"]
        layer = layer_of_kind(module, name, convolutions_and_linear_layers)
        scale, zero = codes.get(name, (1.0, 0))
        kind = StaticInt8Conv if isinstance(layer, nn.Conv1d | nn.Conv2d) else StaticInt8Linear
        new_layers[name] = kind(layer, scale, zero)  # type: ignore[arg-type]
        module.set_submodule(name, new_layers[name])
    for entry in plan:
        if entry["relu"] is not None:
            if not isinstance(module.get_submodule(entry["relu"]), nn.ReLU):
                raise ValueError(f"{entry['relu']} is no ReLU")
            module.set_submodule(entry["relu"], nn.Identity())
            new_layers[entry["name"]].relu = True
        if entry["next"] is not None:
            new_layers[entry["name"]].give_codes_to(new_layers[entry["next"]])


def _followers(module: nn.Module, name: str, codes: Mapping[str, Any]) -> dict[str, str | None]:
    """{"relu": the ReLU that follows a layer, "next": the replaced layer that alone reads its
    output}, by name; None where there is none."""
    head, _, own = name.rpartition(".")
    parent = module.get_submodule(head)
    followers: dict[str, str | None] = {"relu": None, "next": None}
    if not isinstance(parent, nn.Sequential) or type(parent).forward is not nn.Sequential.forward:
        return followers
    children = list(parent.named_children())
    position = [child for child, _ in children].index(own)
    for child, layer in children[position + 1 :]:
        full = f"{head}.{child}" if head else child
        if isinstance(layer, nn.ReLU) and followers["relu"] is None:
            followers["relu"] = full
        elif full in codes:
            followers["next"] = full
            break
        elif not isinstance(layer, _NO_EFFECT):
            break
    return followers
