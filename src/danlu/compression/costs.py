"""The costs of predicting with a model: bytes on disk and in memory, and seconds per batch."""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from danlu.layers.tensors import bytes_of

THREADS = 1  # that latency is measured with
SECONDS = 1.0  # of measuring per batch size, all models together
_FEWEST, _MOST = 9, 400


@contextmanager
def _threads(count: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def size_on_disk(folder: Path) -> int:
    """Bytes of the files of an artifact or an export."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def memory_of(module: nn.Module) -> int:
    """Bytes of the tensors of a module, each storage once, with those that its kernels made at the
    first forward pass.

    >>> memory_of(nn.Linear(3, 2))
    32
    """
    tensors: dict[tuple[int, ...], Tensor] = {}
    for layer in module.modules():
        for value in [*layer._parameters.values(), *layer._buffers.values(), *_packed(layer)]:
            if isinstance(value, Tensor):
                opaque = value.is_mkldnn or not value.numel()
                tensors[(id(value),) if opaque else (value.data_ptr(), value.numel())] = value
    return bytes_of({str(number): tensor for number, tensor in enumerate(tensors.values())})


def _packed(layer: nn.Module) -> Sequence[object]:
    """What an int8 layer made for its kernel when it was first called."""
    packed = vars(layer).get("_packed")
    return packed if isinstance(packed, tuple) else ()


def batch_latencies(cases: Sequence[tuple[nn.Module, Mapping[str, Tensor]]]) -> list[float]:
    """Seconds per batch of each (module, inputs) on one thread: the median of repeated runs. The
    modules take turns, so that all run on the machine in the same state."""
    taken: list[list[float]] = [[] for _ in cases]
    with _threads(THREADS), torch.inference_mode():
        for module, inputs in cases:
            for _ in range(2):
                module(dict(inputs))
        began = time.perf_counter()
        while len(taken[0]) < _FEWEST or (
            time.perf_counter() - began < SECONDS and len(taken[0]) < _MOST
        ):
            for (module, inputs), times in zip(cases, taken):
                start = time.perf_counter()
                module(dict(inputs))
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in taken]
