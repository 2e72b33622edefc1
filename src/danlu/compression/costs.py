"""What answering with a model costs: bytes on disk and in memory, and the time a batch takes."""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

import statistics
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from danlu.layers.tensors import bytes_of

THREADS = 1  # what time is told for
SECONDS = 1.0  # of measuring, a batch size, all models together
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
    """Bytes of the tensors that a module holds, each storage once; also those made for its kernels
    after it first answered."""
    tensors: dict[tuple[int, ...], Tensor] = {}
    for layer in module.modules():
        for value in [*layer._parameters.values(), *layer._buffers.values(), *_packed(layer)]:
            if isinstance(value, Tensor):
                opaque = value.is_mkldnn or not value.numel()
                tensors[(id(value),) if opaque else (value.data_ptr(), value.numel())] = value
    return bytes_of({str(number): tensor for number, tensor in enumerate(tensors.values())})


def _packed(layer: nn.Module) -> Sequence[Any]:
    packed = getattr(layer, "_packed", None)
    return packed if isinstance(packed, tuple) else ()


def batch_latencies(cases: Sequence[tuple[nn.Module, Mapping[str, Tensor]]]) -> list[float]:
    """Seconds that each module takes for a batch of its own on one thread: the median of repeated
    runs, the modules in turn, so that all meet the same machine."""
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
