"""The limit that a container sets on memory (a control group of Linux, version 1 or 2).

The machine may have far more memory than the group of this process may use, and at the limit the
system kills a process without a word (danlu.cli.memory_guard ends a command before)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_NONE = 1 << 60  # what version 1 says where there is no limit is larger


@dataclass(frozen=True)
class Limit:
    """A group with a limit: `size` bytes, `room` bytes of them still free. What files keep in
    memory counts as free, because the system gives it back."""

    size: int
    room: int


def limit() -> Limit | None:
    """The limit of this process's groups that has the least room left; None without a limit.

    >>> found = limit()
    >>> found is None or found.room <= found.size
    True
    """
    limits = [found for folder in _folders() if (found := _limit_of(folder)) is not None]
    return min(limits, key=lambda each: each.room, default=None)


def _folders() -> list[Path]:
    """The folders of the groups that this process is in, and of those around them."""
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []
    own = {
        "memory" if "memory" in controllers.split(",") else "unified": path
        for _, controllers, path in groups
        if not controllers or "memory" in controllers.split(",")
    }
    folders: list[Path] = []
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split(" ", 2)
        name = "unified" if kind == "cgroup2" else "memory"
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            folders += _up_from(Path(point), root, own.get(name, "/"))
    return folders


def _up_from(point: Path, root: str, path: str) -> list[Path]:
    """The folders of a group and of those around it, below the mount point."""
    inside = PurePosixPath(path)
    if inside.is_relative_to(root):
        inside = inside.relative_to(root)
    folder = point / str(inside).lstrip("/")
    if ".." in inside.parts or not folder.is_dir():  # a container sees only its own group
        return [point]
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(point))]


def _limit_of(folder: Path) -> Limit | None:
    version_2 = (folder / "memory.max").exists()
    size = _number(folder / ("memory.max" if version_2 else "memory.limit_in_bytes"))
    used = _number(folder / ("memory.current" if version_2 else "memory.usage_in_bytes"))
    if size is None or used is None:
        return None
    prefix = "" if version_2 else "total_"
    files = sum(_entries(folder / "memory.stat", f"{prefix}inactive_file", f"{prefix}active_file"))
    return Limit(size, max(0, size - used + files + _swap(folder, version_2, size)))


def _swap(folder: Path, version_2: bool, size: int) -> int:
    """Bytes that the group may still move to the disk."""
    free = sum(_entries(Path("/proc/meminfo"), "SwapFree:")) << 10
    if not free:
        return 0
    if version_2:
        most, used = _number(folder / "memory.swap.max"), _number(folder / "memory.swap.current")
    else:  # there memory and disk count together
        both = _number(folder / "memory.memsw.limit_in_bytes")
        most, used = None if both is None else both - size, 0
    return free if most is None else max(0, min(free, most - (used or 0)))


def _number(file: Path) -> int | None:
    """The number in a file; None where it says that there is no limit, or is missing."""
    try:
        number = int(file.read_text())
    except (OSError, ValueError):
        return None
    return None if number >= _NONE else number


def _entries(file: Path, *names: str) -> list[int]:
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return []
    return [int(words[1]) for words in lines if words and words[0] in names]
