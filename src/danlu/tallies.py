"""Plain counts that losses and metrics share: rows as a tensor, right answers a class, shares that are never NaN."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class RowCount:
    """A number of rows as a float32 scalar Tensor on a device, made once for each size.

    A loss needs it every step, and making a tensor costs more than the rest of its Python. What is returned is shared: never
    change it in place. float32 holds whole numbers exactly up to 2**24.
    """

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._made: dict[tuple[int, torch.device], Tensor] = {}

    def __call__(self, count: int, device: torch.device) -> Tensor:
        torch = self._torch
        if torch.compiler.is_compiling():  # a traced size may be a symbol, which is no key
            return torch.full((), float(count), device=device)
        made = self._made.get((count, device))
        if made is None:
            if len(self._made) >= 256:
                self._made.clear()
            with torch.inference_mode(False):  # else one first made by an evaluation could not be used in training
                made = self._made[count, device] = torch.full((), float(count), device=device)
        return made


class OnDevice:
    """A constant tensor, copied once to each device that asks for it."""

    def __init__(self, values: list[float]) -> None:
        import torch

        self._torch = torch
        self.values = torch.tensor(values, dtype=torch.float32)
        self._copies: dict[torch.device, Tensor] = {self.values.device: self.values}

    def __call__(self, device: torch.device) -> Tensor:
        copy = self._copies.get(device)
        if copy is None:
            with self._torch.inference_mode(False):
                copy = self._copies[device] = self.values.to(device)
        return copy


def number(value: Any) -> float | None:
    """A plain float, or None where it is no finite number."""
    value = float(value)
    return value if math.isfinite(value) else None


def share(part: Any, whole: Any) -> float | None:
    """part / whole as a plain float, or None where whole is 0."""
    whole = float(whole)
    return number(float(part) / whole) if whole else None


def by_target(name: str, values: Tensor, targets: tuple[str, ...]) -> float | dict[str, float | None] | None:
    """One target: its number. Several: {name: their mean, "target/name": each}; None where a number is not finite."""
    each = [number(value) for value in values.tolist()]
    if len(each) == 1:
        return each[0]
    known = [value for value in each if value is not None]
    mean = sum(known) / len(known) if len(known) == len(each) else None
    return {name: mean, **{f"{target}/{name}": value for target, value in zip(targets, each, strict=True)}}
