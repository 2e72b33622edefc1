"""The system calls of a command, by strace: which were made on the files of a folder, and a life in which one of them fails or kills."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
WHY_NOT = (
    "" if shutil.which("strace") is not None else "strace is not installed (apt-get install strace)"
)

# what opens, and changes what a power cut may take back
STORING = [
    "mkdir", "mkdirat", "open", "openat", "creat", "write", "pwrite64", "writev", "pwritev", "fsync",
    "fdatasync", "ftruncate", "truncate", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat", "unlink", "unlinkat", "rmdir",
]  # fmt: skip
CHANGING = [*STORING, "chmod", "fchmod", "fchmodat", "flock"]
_LINE = re.compile(r"(?:(\d+) +)?(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)", re.DOTALL)
_DESCRIPTOR = re.compile(r"\b\d+<((?:[^>\\]|\\.)*)>")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"(\.\.\.)?')
_RESULT = re.compile(r".*\)\s+= (-?\d+|\?)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """One system call. `ordinal` counts the calls of this name that its thread has made; `result`
    is None where it never returned."""

    pid: int
    name: str
    ordinal: int
    arguments: str
    result: int | None

    @property
    def strings(self) -> list[bytes]:
        """The texts among its arguments: paths, or the bytes written."""
        return [
            unescape(found[0]) for found in _STRING.findall(_DESCRIPTOR.sub("", self.arguments))
        ]

    @property
    def descriptors(self) -> list[str]:
        """The paths of the open files among its arguments."""
        return [os.fsdecode(unescape(found)) for found in _DESCRIPTOR.findall(self.arguments)]

    @property
    def opened(self) -> str:
        """The path of the file that it opened."""
        found = _DESCRIPTOR.findall(self.arguments.rpartition(" = ")[2])
        return os.fsdecode(unescape(found[0])) if found else ""


def unescape(text: str) -> bytes:
    r"""The bytes of a text in C's notation, as strace prints it.

    >>> unescape(r"a\x41\0\n")
    b'aA\x00\n'
    """
    if "\\" not in text:
        return text.encode("latin-1")
    if re.fullmatch(r"(?:\\x[0-9a-f]{2})*", text):
        return bytes.fromhex(text.replace("\\x", ""))
    return text.encode("latin-1").decode("unicode_escape").encode("latin-1")


def danlu(*arguments: str | Path) -> list[str]:
    """`danlu ARGUMENTS` as a command of this interpreter."""
    return [sys.executable, "-m", "danlu", *map(str, arguments)]


def run(
    command: Sequence[str],
    *options: str,
    cwd: Path,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a command under strace with `options`; what strace reports goes to `log`."""
    return subprocess.run(
        ["strace", "-f", "-y", "-qq", "-o", str(log or os.devnull), *options, *command],
        cwd=cwd, env={**os.environ, **ONE_THREAD, "PYTHONHASHSEED": "0", **(environment or {})},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, timeout=seconds,
    )  # fmt: skip


def record(
    command: Sequence[str],
    cwd: Path,
    names: Sequence[str] = CHANGING,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> tuple[subprocess.CompletedProcess[str], list[Call]]:
    """(the command's end, all its calls of these names in order)."""
    log = cwd / f".calls-{os.getpid()}"
    try:
        done = run(
            command,
            "-e",
            f"trace={','.join(names)}",
            *options,
            cwd=cwd,
            log=log,
            environment=environment,
        )
        return done, calls(log)
    finally:
        log.unlink(missing_ok=True)


def calls(log: Path) -> list[Call]:
    """The calls in a log of strace, in the order of their ends."""
    pending: dict[str, str] = {}
    counts: Counter[tuple[str, str]] = Counter()
    found: list[Call] = []
    for line in log.read_text("latin-1").splitlines():
        match = _LINE.fullmatch(line)
        assert match is not None
        pid, text = match[1] or "0", match[2]
        if text.startswith(("+++", "---")):
            continue
        if text.endswith(" <unfinished ...>"):
            pending[pid] = text.removesuffix(" <unfinished ...>")
            continue
        if resumed := _RESUMED.fullmatch(text):
            text = pending.pop(pid, f"{resumed[1]}(") + resumed[2]
        name, bracket, arguments = text.partition("(")
        if not bracket:
            continue
        counts[pid, name] += 1
        result = _RESULT.fullmatch(arguments)
        value = int(result[1]) if result is not None and result[1] != "?" else None
        found.append(Call(int(pid), name, counts[pid, name], arguments, value))
    return found


def touching(made: Sequence[Call], folder: Path) -> list[Call]:
    """Those of the calls that name a file in a folder, or have one open."""
    start = str(folder)
    return [call for call in made if start in call.arguments]
