"""What this machine has: cores, memory, instruction sets, libraries. Read without torch."""

from __future__ import annotations

import functools
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_share: int | None = None


def use_cores(count: int) -> None:
    """Have this process count at most `count` cores as its own from now on: others run beside
    it."""
    global _share
    _share = max(1, count)


def cores() -> int:
    """Processor cores this process may use (affinity, container limits and `use_cores` counted), at
    least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        allowed = os.cpu_count() or 1
    limits = [each for each in (allowed, _container_quota(), _share) if each]
    return max(1, min(limits))


def threads() -> int:
    """Threads that arithmetic takes where nobody says how many: `cores`, or fewer where
    OMP_NUM_THREADS, as all of OpenMP, asks for fewer."""
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores(), int(limit)) if limit.isdecimal() and int(limit) else cores()


def _container_quota() -> int | None:
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return None if limit == "max" else max(1, int(limit) // int(period))
    except (OSError, ValueError):
        return None


@functools.cache
def instruction_sets() -> frozenset[str]:
    """Flags of the processor as Linux names them (avx2, avx512f, avx512_bf16, amx_bf16, ...); empty
    where unknown."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    return frozenset()


@functools.cache
def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory() -> tuple[int, int]:
    """(total, available) bytes of main memory."""
    import psutil

    seen = psutil.virtual_memory()
    return seen.total, seen.available


def resident_memory() -> int:
    """Bytes of main memory this process holds now; 0 where unknown."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import psutil

        return psutil.Process().memory_info().rss


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries whose change may change a result."""
    return dict(_versions())


@functools.cache  # a search begins many trainings, and each look parses files
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("danlu", "torch", "numpy", "scikit-learn", "pyarrow", "pillow", "safetensors"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def environment() -> dict[str, Any]:
    """Everything worth keeping beside a run: system, processor, Python and every installed
    distribution."""
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "memory_bytes": memory()[0],
        "python": sys.version,
        "packages": dict(_packages()),
    }


@functools.cache
def _packages() -> dict[str, str]:
    """Name and version of every installed distribution."""
    told = [
        each.metadata for each in metadata.distributions()
    ]  # read once: each access parses the file again
    packages = {each["Name"]: each["Version"] for each in told if each["Name"]}
    return dict(sorted(packages.items(), key=lambda item: item[0].lower()))


def inspect_machine() -> dict[str, Any]:
    """What `danlu doctor` tells: the machine, what torch can use of it, versions, and advice where
    something is amiss."""
    import shutil

    import torch

    total, available = memory()
    flags = instruction_sets()
    useful = (
        "avx2",
        "avx512f",
        "avx512_bf16",
        "avx512_vnni",
        "amx_tile",
        "amx_bf16",
        "amx_int8",
        "asimd",
        "bf16",
        "sve",
    )
    gpus = (
        [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    facts: dict[str, Any] = {
        "system": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "threads of torch": torch.get_num_threads(),
        "instruction sets": " ".join(name for name in useful if name in flags) or "unknown",
        "memory": f"{total / 1e9:.1f} GB, {available / 1e9:.1f} GB available",
        "disk": f"{shutil.disk_usage(Path.cwd()).free / 1e9:.1f} GB free here",
        "gpu": ", ".join(gpus) or ("Apple (mps)" if torch.backends.mps.is_available() else "none"),
        "compiler": shutil.which("g++")
        or shutil.which("clang++")
        or "none (torch.compile on a CPU needs one)",
        "versions": versions(),
    }
    return facts
