"""What this machine has: cores, memory, instruction sets, libraries. Read without torch."""

from __future__ import annotations

import functools
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

from danlu.system import memory_group

_share: int | None = None


def use_cores(count: int) -> None:
    """Let `cores` return at most `count` from now on, because other processes run beside this
    one."""
    global _share
    _share = max(1, count)


def cores() -> int:
    """How many processor cores this process may use, at least 1: the least that affinity, the
    container's quota and `use_cores` allow.

    >>> cores() >= 1
    True
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        allowed = os.cpu_count() or 1
    limits = [limit for limit in (allowed, _container_quota(), _share) if limit]
    return max(1, min(limits))


def threads() -> int:
    """The default number of threads: `cores`, or OMP_NUM_THREADS where that is fewer."""
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
    where they are unknown."""
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
    """(total, available) bytes of main memory that this process may use: the machine's, or what a
    container allows.

    >>> total, available = memory()
    >>> 0 <= available <= total
    True
    """
    import psutil

    machine, container = psutil.virtual_memory(), memory_group.limit()
    if container is None:
        return machine.total, machine.available
    return min(machine.total, container.size), min(machine.available, container.room)


def resident_memory() -> int:
    """Bytes of main memory that this process occupies now."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import psutil

        return psutil.Process().memory_info().rss


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    return dict(_versions())


@functools.cache  # a study starts many trainings, and each look-up parses files
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in ("danlu", "torch", "numpy", "scikit-learn", "pyarrow", "pillow", "safetensors"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def environment() -> dict[str, object]:
    """What a run notes of its environment: system, processor, Python and every installed
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
    # each access to .metadata parses the file again
    infos = [distribution.metadata for distribution in metadata.distributions()]
    packages = {info["Name"]: info["Version"] for info in infos if info["Name"]}
    return dict(sorted(packages.items(), key=lambda item: item[0].lower()))


def inspect_machine() -> dict[str, object]:
    """What `danlu doctor` prints: the machine, what torch can use of it, and versions."""
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
    return {
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
