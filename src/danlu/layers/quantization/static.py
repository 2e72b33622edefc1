"""A module's layers in static int8: which, in what order they hand codes on, and the same again from what was written of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from danlu.errors import PartError
from danlu.layers.compressible import (
    among,
    convolutions,
    linear_layers,
    matrix_at,
    size_of,
    unshared,
)
from danlu.layers.quantization.batch_norm_folding import fold, foldable
from danlu.layers.quantization.calibration import Reading, readings
from danlu.layers.quantization.int8 import StaticInt8, StaticInt8Conv, StaticInt8Linear

_WORK = (
    64  # multiplications of a row, a weight, from which a small layer is worth a call of a kernel
)
_SILENT = (nn.Identity, nn.Dropout)  # steps that change nothing in evaluation


def both(module: nn.Module) -> dict[str, nn.Module]:
    """Convolutions and linear layers."""
    return {**convolutions(module), **linear_layers(module)}


def folded(module: nn.Module) -> list[list[str]]:
    """Fold batch normalisations; returns (layer, normalisation) by name."""
    pairs = foldable(module)
    fold(module, pairs)
    return [list(pair) for pair in pairs]


def calibrated(
    subject: Any,
    *,
    layers: Sequence[str] | None,
    spare: Sequence[str],
    rows: int,
    smallest: int,
    who: str,
) -> dict[str, Reading]:
    """What each layer that is large enough reads. PartError where there is none."""
    chosen = among(both(subject.module), layers, spare, who)
    alone = unshared(subject.module, chosen)
    found = readings(subject.module, alone, subject.rows(rows))
    large = {
        name: each
        for name, each in found.items()
        if size_of(alone[name]) >= smallest or each.work >= _WORK * smallest
    }
    if not large:
        raise PartError(
            f"{who} finds no convolution or linear layer in this {subject.family} that is worth it "
            f"({smallest:,} weights or {_WORK * smallest:,} multiplications a row).",
            hint="set smallest lower, or take int8_weight_only",
        )
    if len(large) < len(chosen):
        subject.told.append(
            f"{len(chosen) - len(large)} of {len(chosen)} layers stay float32: small, unused, or their matrix is shared."
        )
    return large


def replaced(module: nn.Module, codes: Mapping[str, tuple[float, int]]) -> dict[str, Any]:
    """Replace the layers that `codes` names; returns what `restore` needs beside the folding."""
    plan = [{"name": name, **_after(module, name, codes)} for name in codes]
    _put(module, plan, codes)
    return {"layers": plan}


def restore(module: nn.Module, state: Mapping[str, Any]) -> None:
    """Fold and replace as written. ValueError, KeyError, TypeError or AttributeError where that
    does not fit the module."""
    fold(module, [(str(first), str(second)) for first, second in state["fold"]])
    _put(module, state["layers"], {})


def _put(
    module: nn.Module, plan: Sequence[Mapping[str, Any]], codes: Mapping[str, tuple[float, int]]
) -> None:
    made: dict[str, StaticInt8] = {}
    for each in plan:
        name = each["name"]
        layer = matrix_at(module, name, both)
        scale, zero = codes.get(name, (1.0, 0))
        kind = StaticInt8Conv if isinstance(layer, nn.Conv1d | nn.Conv2d) else StaticInt8Linear
        made[name] = kind(layer, scale, zero)  # type: ignore[arg-type]
        module.set_submodule(name, made[name])
    for each in plan:
        if each["relu"] is not None:
            if not isinstance(module.get_submodule(each["relu"]), nn.ReLU):
                raise ValueError(f"{each['relu']} is no ReLU")
            module.set_submodule(each["relu"], nn.Identity())
            made[each["name"]].relu = True
        if each["next"] is not None:
            made[each["name"]].hand_on(made[each["next"]])


def _after(module: nn.Module, name: str, codes: Mapping[str, Any]) -> dict[str, str | None]:
    """The ReLU that follows a layer, and the layer of the kind that alone reads what it gives; by
    name, None where there is none."""
    head, _, own = name.rpartition(".")
    parent = module.get_submodule(head)
    found: dict[str, str | None] = {"relu": None, "next": None}
    if not isinstance(parent, nn.Sequential) or type(parent).forward is not nn.Sequential.forward:
        return found
    inside = list(parent.named_children())
    place = [each for each, _ in inside].index(own)
    for each, layer in inside[place + 1 :]:
        full = f"{head}.{each}" if head else each
        if isinstance(layer, nn.ReLU) and found["relu"] is None:
            found["relu"] = full
        elif full in codes:
            found["next"] = full
            break
        elif not isinstance(layer, _SILENT):
            break
    return found
