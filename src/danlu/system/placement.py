"""Where tensors live: device, dtype, threads, seed, compile. Nothing else in danlu knows them.

The rules for `auto` are deterministic functions of the hardware and of the work in a step; what
they decided is written into the lock file, and a resumed run takes it from there."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from danlu.errors import PlacementError
from danlu.system import machine

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.recipe import Train

_MASK = 2**64 - 1
# Purposes of a random draw: each has a stream of its own, so that adding one never moves another.
WEIGHTS, ORDER, STEP, AUGMENTATION, SPLIT, EVALUATION, HIDING = 1, 2, 3, 4, 5, 6, 7


def draw_seed(seed: int, purpose: int, number: int) -> int:
    """A 63-bit seed that is a function of (seed, purpose, number) and well mixed: neighbours share
    no bits.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), applied once for each
    argument."""
    state = 0
    for value in (seed, purpose, number):
        state = (state + value + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


@dataclass(frozen=True)
class Placement:
    """A decided place: what the lock file records of it is `as_dict`."""

    device: torch.device
    precision: str  # float32 | bfloat16: of the forward pass; weights and updates are float32
    threads: int
    compile: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain data for the lock file."""
        return {
            "device": str(self.device),
            "precision": self.precision,
            "threads": self.threads,
            "compile": self.compile,
        }

    def use(self) -> None:
        """Set the process up: thread count, exact float32 matrix products."""
        torch.set_num_threads(self.threads)
        torch.set_float32_matmul_precision("highest")

    def seed(self, number: int) -> None:
        """Seed the generators that dropout and the like draw from, on every device in use."""
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(number)

    def generator(self) -> torch.Generator:
        """A generator of its own on the device."""
        return torch.Generator(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[Any] | None:
        """The context of a forward pass, or None where it is plain float32 (an idle context costs
        microseconds a step)."""
        if self.precision == "float32":
            return None
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def put(self, tensor: Tensor) -> Tensor:
        """The tensor on the device."""
        return tensor.to(self.device, non_blocking=True)

    def compiled(self, module: nn.Module) -> Callable[..., Any]:
        """What is called for a forward pass: the module, or its compiled form (weights are
        shared)."""
        return torch.compile(module, dynamic=None) if self.compile else module

    @property
    def waits(self) -> bool:
        """Whether reading a number makes the host wait for the device."""
        return self.device.type != "cpu"


def placement_for(train: Train, decided: Mapping[str, Any] | None = None) -> Placement:
    """The placement a recipe asks for; `decided` is what a lock file recorded and takes precedence
    over `auto`.

    What `auto` precision and compile become is decided by `choose` once the model is known; until
    then it is float32, uncompiled.
    Raises PlacementError for a device this machine does not have.
    """
    decided = decided or {}
    device = _device(str(decided.get("device", train.device)))
    threads = train.threads or int(decided.get("threads", 0)) or machine.threads()
    precision = str(decided.get("precision", train.precision))
    compile_ = decided.get("compile", train.compile)
    return Placement(
        device, "float32" if precision == "auto" else precision, threads, compile_ is True
    )


def _device(name: str) -> torch.device:
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda:0" if cuda else "mps" if mps else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not cuda or (device.index or 0) >= torch.cuda.device_count()):
        there = f"{torch.cuda.device_count()} CUDA device(s)" if cuda else "none"
        raise PlacementError(
            f"train.device is {name}, and this machine has {there}.", hint="use train.device=auto"
        )
    if device.type == "mps" and not mps:
        raise PlacementError(
            "train.device is mps, and this machine has none.", hint="use train.device=auto"
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def visible_gpus(train: Train) -> list[str]:
    """What CUDA_VISIBLE_DEVICES would be to have each of the GPUs over which trainings of a recipe
    can be spread; [] where it uses none.

    A device named by its number stays the only one.
    """
    if _device(train.device).type != "cuda":
        return []
    there = [str(number) for number in range(torch.cuda.device_count())]
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = seen.split(",")[: len(there)] if seen else there
    return named if train.device in ("auto", "cuda") else [",".join(named)]


def forward_flops(module: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """Floating-point operations of a forward pass over `inputs`, counted at every layer that holds
    a matrix or kernel.

    A weight of shape (out, ...) is used once for each output divided by `out`, for a product and a
    sum: exact for linear layers and convolutions, without what has no weights (attention's own
    products, activations). torch's own counter imports its compiler (0.8 s)."""
    total = 0.0

    def count(layer: nn.Module, _: object, output: object) -> None:
        nonlocal total
        weights = [each for each in layer.parameters(recurse=False) if each.ndim >= 2]
        if hasattr(
            layer, "matrix_shape"
        ):  # kept in few bits: what is multiplied is what they stand for
            rows, columns = layer.matrix_shape  # type: ignore[misc]
            total += 2.0 * output.numel() * (rows if layer.transposed else columns)  # type: ignore[union-attr, operator, attr-defined]
            return
        if isinstance(layer, torch.nn.RNNBase) and isinstance(
            output, tuple
        ):  # every weight is used once for each state
            total += sum(2.0 * weight.numel() for weight in weights) * (
                output[0].numel() / output[0].shape[-1]
            )
        if isinstance(output, torch.Tensor) and not isinstance(layer, torch.nn.Embedding):
            total += sum(
                2.0 * weight.numel() * (output.numel() / weight.shape[0]) for weight in weights
            )

    handles = [layer.register_forward_hook(count) for layer in module.modules()]
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            module(inputs)
    finally:
        module.train(training)
        for handle in handles:
            handle.remove()
    return total


_PEAK_SIZES = {
    "cpu": 1024,
    "cuda": 8192,
    "mps": 4096,
}  # of the matrices that `peak` multiplies: large enough to be at full speed


def peak_flops(placement: Placement) -> float:
    """Floating-point operations a second of large matrix products in the placement's precision, the
    best of four: 0.1 s on a CPU."""
    size = _PEAK_SIZES.get(placement.device.type, 1024)
    dtype = torch.bfloat16 if placement.precision == "bfloat16" else torch.float32
    matrix = torch.full((size, size), 0.5, dtype=dtype, device=placement.device)
    best = math.inf
    for _ in range(4):
        began = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best


# Work of one step (operations of forward and backward pass) from which the narrower format pays,
# measured on matrix products and convolutions; below it, casting costs more than it saves
# (docs/lab-notes.md).
_PAYS_AMX = 2e8
# CPUs with products of bfloat16 in their vector units, measured on one with AVX-512, one thread,
# against float32: matrix products 4 times as fast; whole steps 3.3 times (gpt of 10 M parameters,
# work 1e11), 2.0 (gpt of 0.8 M, 4e9), 1.2 (gpt of 30,000 to 200,000, 5e8 to 9e8), 0.8 (8e7); 2.2
# and 3.1 (mlp, 5e8 and 3e9); 1.4 to 1.6 (cnn, 2e9 to 2e10), 1.0 (3e8).
_PAYS_AVX512 = 1e9
_PAYS_CUDA = 1e9
# Below this, a second thread gains less than its start and its waiting cost, and on a machine
# shared with other work it loses much: a thread that waits for one that is not scheduled makes a
# step of 1 ms one of 20 ms.
_PAYS_THREADS = 2e8


def decide_auto(
    placement: Placement, train: Train, flops_of_step: Callable[[], float]
) -> Placement:
    """The placement with `auto` precision and compile decided for a model.

    `flops_of_step` is called only where the hardware leaves a choice. bfloat16 where the device
    multiplies it faster (CUDA from compute capability 8.0, or a CPU with AMX or avx512_bf16) and
    the work of a step pays; compile on CUDA for the same work. A CPU compiles for half a minute,
    which a training that short never earns back: never by rule. One thread where a step is too
    small to share."""
    precision, compile_, threads = placement.precision, placement.compile, placement.threads
    if (
        train.threads is None
        and threads > 1
        and placement.device.type == "cpu"
        and flops_of_step() < _PAYS_THREADS
    ):
        threads = 1
    if placement.device.type == "cuda":
        able = torch.cuda.get_device_capability(placement.device) >= (8, 0)
        heavy = (
            train.precision == "auto" or train.compile == "auto"
        ) and flops_of_step() >= _PAYS_CUDA
        precision = "bfloat16" if train.precision == "auto" and able and heavy else precision
        compile_ = heavy if train.compile == "auto" else compile_
    elif placement.device.type == "cpu" and train.precision == "auto":
        flags = machine.instruction_sets()
        pays = (
            _PAYS_AMX
            if "amx_bf16" in flags
            else _PAYS_AVX512
            if "avx512_bf16" in flags
            else math.inf
        )
        precision = "bfloat16" if pays < math.inf and flops_of_step() >= pays else precision
    return Placement(placement.device, precision, threads, compile_)
