"""Where and how a model runs: device, number format, threads, compile. No other file decides them.

The rules for `auto` are deterministic functions of the hardware and of the work in a step. What
they decide is written into the lock file, and a resumed run reads it from there."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

from danlu.errors import PlacementError
from danlu.system import machine
from danlu.system.private_files import keep_inside_cache

if TYPE_CHECKING:
    from torch import Tensor, nn

    from danlu.recipe import Train

_MASK = 2**64 - 1
# What a seed is drawn for. Each purpose has its own seeds, so that a new one changes no other.
WEIGHTS, ORDER, STEP, AUGMENTATION, SPLIT, EVALUATION, HIDING = 1, 2, 3, 4, 5, 6, 7


def draw_seed(seed: int, purpose: int, number: int) -> int:
    """A 63-bit seed, a function of (seed, purpose, number): neighbouring arguments give unrelated
    seeds.

    Source: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), applied once for each
    argument.

    >>> draw_seed(0, WEIGHTS, 0) == draw_seed(0, WEIGHTS, 0), draw_seed(0, WEIGHTS, 0) >= 0
    (True, True)
    """
    state = 0
    for value in (seed, purpose, number):
        state = (state + value + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


@dataclass(frozen=True)
class Placement:
    """Where and how a model runs. The lock file records `as_dict`."""

    device: torch.device
    # float32 or bfloat16: the format of the forward pass; weights and updates are float32
    precision: str
    threads: int
    compile: bool

    def as_dict(self) -> dict[str, str | int | bool]:
        """Plain data for the lock file."""
        return {
            "device": str(self.device),
            "precision": self.precision,
            "threads": self.threads,
            "compile": self.compile,
        }

    def use(self) -> None:
        """Set up this process: its thread count, and exact float32 matrix products."""
        torch.set_num_threads(self.threads)
        torch.set_float32_matmul_precision("highest")

    def seed(self, number: int) -> None:
        """Seed torch's own generators, which dropout draws from, on every device in use."""
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(number)

    def generator(self) -> torch.Generator:
        """A new random generator on the device."""
        return torch.Generator(self.device)

    def autocast(self) -> contextlib.AbstractContextManager[object] | None:
        """The context of a forward pass; None for float32, since even an idle context costs
        microseconds per step."""
        if self.precision == "float32":
            return None
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def put(self, tensor: Tensor) -> Tensor:
        """The tensor, on the device."""
        return tensor.to(self.device, non_blocking=True)

    def compiled(self, module: nn.Module) -> Callable[..., Tensor]:
        """What runs a forward pass: the module, or its compiled form with the same weights."""
        if not self.compile:
            return module
        # torch loads compiled code from there, and would take /tmp/torchinductor_NAME
        keep_inside_cache("TORCHINDUCTOR_CACHE_DIR", "compiled")
        return torch.compile(module, dynamic=None)

    @property
    def waits(self) -> bool:
        """Whether the host waits for the device when it reads a number of a tensor."""
        return self.device.type != "cpu"


def placement_for(train: Train, decided: Mapping[str, str | int | bool] | None = None) -> Placement:
    """The placement that a recipe asks for. `decided` is what a lock file recorded; it replaces
    `auto`.

    `auto` for precision and compile is float32 and uncompiled until `decide_auto` is called with
    the model.
    Raises PlacementError for a device that this machine does not have.
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
        count = f"{torch.cuda.device_count()} CUDA device(s)" if cuda else "no CUDA device"
        raise PlacementError(
            f"train.device is {name}, and this machine has {count}.", hint="use train.device=auto"
        )
    if device.type == "mps" and not mps:
        raise PlacementError(
            "train.device is mps, and this machine has no such device.",
            hint="use train.device=auto",
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def visible_gpus(train: Train) -> list[str]:
    """The GPUs over which trainings of a recipe can be spread, each as a value of
    CUDA_VISIBLE_DEVICES; [] where the recipe uses no GPU.

    Where the recipe names one GPU by its number, that one alone.
    """
    if _device(train.device).type != "cuda":
        return []
    numbers = [str(number) for number in range(torch.cuda.device_count())]
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = variable.split(",")[: len(numbers)] if variable else numbers
    return names if train.device in ("auto", "cuda") else [",".join(names)]


@runtime_checkable
class QuantizedMatrix(Protocol):
    """A layer whose weight is packed in few bits: its parameters do not have the matrix's shape.

    matrix_shape  (rows, columns) of the matrix that the packed weight stands for
    transposed    False: (outputs, inputs), as torch.nn.Linear has it; True: (inputs, outputs)
    """

    matrix_shape: tuple[int, int]
    transposed: bool


def forward_flops(module: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """Floating-point operations of a forward pass over `inputs`, summed over all layers that hold a
    matrix or kernel.

    Each entry of a weight of shape (out, ...) takes one product and one sum for each output element
    divided by `out`. That is exact for linear layers and convolutions; what has no weights
    (attention's own products, activations) is left out. torch's own counter would import its
    compiler, which takes 0.8 s."""
    total = 0.0

    def count(layer: nn.Module, _: object, output: object) -> None:
        nonlocal total
        weights = [weight for weight in layer.parameters(recurse=False) if weight.ndim >= 2]
        if isinstance(layer, QuantizedMatrix) and isinstance(output, torch.Tensor):
            rows, columns = layer.matrix_shape
            total += 2.0 * output.numel() * (rows if layer.transposed else columns)
            return
        if isinstance(layer, torch.nn.RNNBase) and isinstance(output, tuple):
            # every weight is used once for each state
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


# Rows of the square matrices that `peak_flops` multiplies: large enough for full speed.
_PEAK_SIZES = {"cpu": 1024, "cuda": 8192, "mps": 4096}


def peak_flops(placement: Placement) -> float:
    """Floating-point operations per second of large matrix products in the placement's precision:
    the best of four measurements. Takes 0.1 s on a CPU."""
    size = _PEAK_SIZES.get(placement.device.type, 1024)
    dtype = torch.bfloat16 if placement.precision == "bfloat16" else torch.float32
    matrix = torch.full((size, size), 0.5, dtype=dtype, device=placement.device)
    best = math.inf
    for _ in range(4):
        began = time.perf_counter()
        float((matrix @ matrix)[0, 0])  # reading a number waits for the device
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best


# The work of one step (operations of forward and backward pass) above which bfloat16 is faster,
# measured on matrix products and convolutions; below, casting costs more than it saves
# (docs/lab-notes.md).
_PAYS_AMX = 2e8
# CPUs with products of bfloat16 in their vector units, measured on one with AVX-512, one thread,
# against float32: matrix products 4 times as fast; whole steps 3.3 times (gpt of 10 M parameters,
# work 1e11), 2.0 (gpt of 0.8 M, 4e9), 1.2 (gpt of 30,000 to 200,000, 5e8 to 9e8), 0.8 (8e7); 2.2
# and 3.1 (mlp, 5e8 and 3e9); 1.4 to 1.6 (cnn, 2e9 to 2e10), 1.0 (3e8).
_PAYS_AVX512 = 1e9
_PAYS_CUDA = 1e9
# Below this, starting a second thread and waiting for it costs more than it gains. On a machine
# with other work it costs much more: waiting for a thread that is not scheduled makes a step of
# 1 ms take 20 ms.
_PAYS_THREADS = 2e8


def decide_auto(
    placement: Placement, train: Train, flops_of_step: Callable[[], float]
) -> Placement:
    """The placement with precision, compile and threads decided for a model, where they are auto.

    `flops_of_step` returns the operations of one step, and is called only where the hardware leaves
    a choice.

    precision  bfloat16 where the device multiplies it faster (CUDA from compute capability 8.0, a
               CPU with AMX or avx512_bf16) and a step is large enough to gain from it
    compile    on CUDA, for steps of the same size. Never on a CPU: compiling takes half a minute
               there, more than it saves
    threads    one, where a step is too small to divide
    """
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
