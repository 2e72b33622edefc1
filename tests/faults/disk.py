# ruff: noqa: PTH118 - the paths of system calls are texts, and not normalised
"""A disk as system calls leave it, and as a power cut at any moment may.

What was written and not synced may be lost, in part or as a whole. What was made, renamed or
removed in a folder may be lost until that folder is synced; each renaming is kept or lost as one
step. `Disk` follows a log of calls (syscalls.py) and gives any such state as a tree of files."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from syscalls import STORING, Call

NAMES = [*STORING, "lseek", "sendfile", "copy_file_range", "access", "faccessat", "faccessat2"]
ROOT = 0
Tree = dict[str, "bytes | Tree"]
# logs, which are appended to where they lie, and databases, which sync by themselves
LOGS = re.compile(r"metrics\.jsonl|timings\.jsonl|events\.out\.tfevents.*|.*\.log|study\.sqlite.*")


@dataclass
class Step:
    """One change. `names` are entries of folders that it sets, (folder, name, inode or None);
    `data` is a change of a file's bytes. It is durable from the moment `durable` on; `synced_by`
    is the inode whose sync makes it so."""

    moment: int
    names: tuple[tuple[int, str, int | None], ...] = ()
    data: Callable[[bytearray], None] | None = None
    inode: int = -1
    synced_by: int = -1
    durable: int | None = None
    published: str = ""  # the visible path that it gives something
    text: str = ""


@dataclass
class Disk:
    """The files below `home`. `steps` are all changes since `load`; `now` counts all calls."""

    home: Path
    steps: list[Step] = field(default_factory=list[Step])
    now: int = 0
    initial: dict[int, dict[str, int] | bytes] = field(
        default_factory=dict[int, "dict[str, int] | bytes"]
    )
    folders: dict[int, dict[str, int]] = field(default_factory=dict[int, dict[str, int]])
    sizes: dict[int, int] = field(default_factory=dict[int, int])
    positions: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    appending: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    marks: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    pending: dict[int, list[Step]] = field(default_factory=dict[int, list[Step]])  # not yet synced

    def load(self) -> Disk:
        """Begin with what lies in `home` now, all of it durable."""
        self._load(self.home)
        return self

    def _load(self, path: Path) -> int:
        inode = len(self.initial)
        if path.is_dir():
            entries: dict[str, int] = {}
            self.initial[inode], self.folders[inode] = entries, {}
            for inner in sorted(path.iterdir()):
                entries[inner.name] = self._load(inner)
            self.folders[inode] = dict(entries)
        else:
            data = path.read_bytes()
            self.initial[inode], self.sizes[inode] = data, len(data)
        return inode

    def _new(self, folder: bool) -> int:
        inode = len(self.initial)
        self.initial[inode] = {} if folder else b""
        if folder:
            self.folders[inode] = {}
        else:
            self.sizes[inode] = 0
        return inode

    # --- paths

    def parts(self, path: str | bytes) -> list[str] | None:
        """The names from `home` to a path; None where it lies elsewhere."""
        full = os.path.normpath(os.path.join(self.home, os.fsdecode(path)))
        start = f"{self.home}/"
        if full == str(self.home):
            return []
        return full.removeprefix(start).split("/") if full.startswith(start) else None

    def find(self, parts: Sequence[str]) -> int | None:
        """The inode of a path, as it is now."""
        inode: int | None = ROOT
        for name in parts:
            inode = self.folders.get(inode, {}).get(name) if inode is not None else None
        return inode

    def _parent(self, parts: Sequence[str]) -> tuple[int, str]:
        folder = self.find(parts[:-1])
        assert folder is not None and folder in self.folders, f"no folder for {parts}"
        return folder, parts[-1]

    # --- calls

    def follow(self, made: Sequence[Call]) -> Disk:
        """Take in all calls, in order."""
        for call in made:
            self.now += 1
            if call.result is not None and call.result >= 0:
                handler = getattr(self, f"_{call.name.rstrip('0123456789')}", None)
                if handler is not None:
                    handler(call)
            elif "access" in call.name:
                self._access(call)
        return self

    def _access(self, call: Call) -> None:
        for text in call.strings:
            if text.startswith(b"/danlu-writer/"):
                self.marks.append((text.decode().removeprefix("/danlu-writer/"), self.now))

    _faccessat = _access

    def _set(
        self, *names: tuple[int, str, int | None], by: int, text: str, published: str = ""
    ) -> None:
        for folder, name, inode in names:
            if inode is None:
                self.folders[folder].pop(name, None)
            else:
                self.folders[folder][name] = inode
        self._append(Step(self.now, names, synced_by=by, published=published, text=text))

    def _append(self, step: Step) -> None:
        self.steps.append(step)
        self.pending.setdefault(step.synced_by, []).append(step)

    def _write_step(self, inode: int, change: Callable[[bytearray], None], text: str) -> None:
        self._append(Step(self.now, (), change, inode, synced_by=inode, text=text))

    def _base(self, call: Call, text: bytes) -> str:
        """The path of a call with its folder: an open one, or the current one."""
        return (
            os.path.join(call.descriptors[0], os.fsdecode(text))
            if call.descriptors
            else os.fsdecode(text)
        )

    def _paths(self, call: Call) -> list[str]:
        texts = call.strings
        bases = call.descriptors
        return [
            os.path.join(bases[n] if n < len(bases) else "", os.fsdecode(text))
            for n, text in enumerate(texts)
        ]

    def _mkdir(self, call: Call) -> None:
        parts = self.parts(self._paths(call)[0])
        if parts:
            folder, name = self._parent(parts)
            inode = self._new(folder=True)
            self._set((folder, name, inode), by=folder, text=f"mkdir {'/'.join(parts)}")

    _mkdirat = _mkdir

    def _open(self, call: Call) -> None:
        path = call.opened or self._paths(call)[0]
        parts = self.parts(path)
        if parts is None or path.endswith(" (deleted)"):
            return
        flags = call.arguments.rpartition(", O_")[2] if ", O_" in call.arguments else ""
        flags = f"O_{flags}"
        inode = self.find(parts)
        if inode is None:
            if "O_CREAT" not in flags:
                return
            folder, name = self._parent(parts)
            inode = self._new(folder=False)
            published = "/".join(parts) if visible(parts) else ""
            self._set(
                (folder, name, inode),
                by=folder,
                text=f"create {'/'.join(parts)}",
                published=published,
            )
        elif "O_TRUNC" in flags and self.sizes.get(inode):
            self._truncate_to(inode, 0, "/".join(parts))
        if inode in self.sizes and call.result is not None:
            self.positions[call.pid, call.result] = 0
            self.appending.discard((call.pid, call.result))
            if "O_APPEND" in flags:
                self.appending.add((call.pid, call.result))

    _openat = _creat = _open

    def _file(self, call: Call) -> tuple[int, int, str] | None:
        """(descriptor, inode, path) of the open file that a call is about."""
        match = re.match(r"(\d+)<", call.arguments)
        if match is None or not call.descriptors:
            return None
        parts = self.parts(call.descriptors[0])
        inode = self.find(parts) if parts is not None else None
        return (int(match[1]), inode, "/".join(parts or [])) if inode is not None else None

    def _key(self, call: Call, descriptor: int) -> tuple[int, int]:
        if (call.pid, descriptor) in self.positions:
            return call.pid, descriptor
        return next(
            (key for key in reversed(self.positions) if key[1] == descriptor),
            (call.pid, descriptor),
        )

    def _write(self, call: Call) -> None:
        file = self._file(call)
        if file is None:
            return
        descriptor, inode, path = file
        assert inode in self.sizes, path
        key = self._key(call, descriptor)
        data = b"".join(call.strings)[: call.result]
        at = self.sizes[inode] if key in self.appending else self.positions.get(key, 0)
        if call.name.startswith("pwrite"):
            at = int(re.findall(r", (\d+)\)", call.arguments)[-1])
        else:
            self.positions[key] = at + len(data)
        self.sizes[inode] = max(self.sizes[inode], at + len(data))
        self._write_step(inode, lambda old: _overwrite(old, at, data), f"write {path}")

    _pwrite = _writev = _pwritev = _write

    def _lseek(self, call: Call) -> None:
        if file := self._file(call):
            self.positions[self._key(call, file[0])] = call.result or 0

    def _sendfile(self, call: Call) -> None:
        assert self._file(call) is None, (
            f"{call.name} into the folder is not followed: {call.arguments}"
        )

    def _copy_file_range(self, call: Call) -> None:
        target = [path for path in call.descriptors[1:] if self.parts(path) is not None]
        assert not target, f"{call.name} into the folder is not followed: {call.arguments}"

    def _truncate_to(self, inode: int, size: int, path: str) -> None:
        self.sizes[inode] = size
        self._write_step(inode, lambda old: _resize(old, size), f"truncate {path}")

    def _ftruncate(self, call: Call) -> None:
        if file := self._file(call):
            self._truncate_to(file[1], int(re.findall(r", (\d+)\)", call.arguments)[-1]), file[2])

    def _fsync(self, call: Call) -> None:
        if file := self._file(call):
            for step in self.pending.pop(file[1], []):
                step.durable = self.now

    _fdatasync = _fsync

    def _rename(self, call: Call) -> None:
        one, other = (self.parts(path) for path in self._paths(call)[:2])
        if one is None and other is None:
            return
        assert one and other, f"renamed out of or into the folder: {call.arguments}"
        (from_folder, from_name), (to_folder, to_name) = self._parent(one), self._parent(other)
        inode = self.find(one)
        assert inode is not None, call.arguments
        text = f"rename {'/'.join(one)} -> {'/'.join(other)}"
        published = "/".join(other) if visible(other) else ""
        if "RENAME_EXCHANGE" in call.arguments:
            swapped = self.find(other)
            self._set(
                (to_folder, to_name, inode), (from_folder, from_name, swapped),
                by=to_folder, text=f"exchange: {text}", published=published,
            )  # fmt: skip
        else:
            self._set(
                (from_folder, from_name, None),
                (to_folder, to_name, inode),
                by=to_folder,
                text=text,
                published=published,
            )

    _renameat = _rename

    def _link(self, call: Call) -> None:
        one, other = (self.parts(path) for path in self._paths(call)[:2])
        if other:
            inode = self.find(one or [])
            assert inode is not None
            folder, name = self._parent(other)
            published = "/".join(other) if visible(other) else ""
            self._set(
                (folder, name, inode),
                by=folder,
                text=f"link {'/'.join(other)}",
                published=published,
            )

    _linkat = _link

    def _unlink(self, call: Call) -> None:
        parts = self.parts(self._paths(call)[0])
        if parts and self.find(parts) is not None:
            folder, name = self._parent(parts)
            self._set((folder, name, None), by=folder, text=f"remove {'/'.join(parts)}")

    _unlinkat = _rmdir = _unlink

    # --- what is left

    def kept(self, moment: int, choose: Callable[[Step], bool]) -> list[Step]:
        """The steps up to a moment that are durable there, or chosen."""
        return [
            step
            for step in self.steps
            if step.moment <= moment and ((step.durable or moment + 1) <= moment or choose(step))
        ]

    def tree(self, steps: Sequence[Step]) -> Tree:
        """All files and folders after these steps alone."""
        folders = {
            inode: dict(entries)
            for inode, entries in self.initial.items()
            if isinstance(entries, dict)
        }
        files: dict[int, bytearray] = {}
        for step in steps:
            for folder, name, inode in step.names:
                if inode is None:
                    folders[folder].pop(name, None)
                else:
                    folders[folder][name] = inode
            if step.data is not None:
                if step.inode not in files:
                    files[step.inode] = bytearray(self._first(step.inode))
                step.data(files[step.inode])

        def built(inode: int) -> Tree | bytes:
            if inode in folders:
                return {name: built(inner) for name, inner in folders[inode].items()}
            return bytes(files[inode]) if inode in files else self._first(inode)

        whole = built(ROOT)
        assert isinstance(whole, dict)
        return whole

    def _first(self, inode: int) -> bytes:
        data = self.initial[inode]
        assert isinstance(data, bytes)
        return data

    def inside(self, inode: int) -> Iterator[int]:
        """An inode and all those below it, as they are at the end."""
        yield inode
        for inner in self.folders.get(inode, {}).values():
            yield from self.inside(inner)


def visible(parts: Sequence[str]) -> bool:
    """Whether no name on the way begins with a dot."""
    return not any(name.startswith(".") for name in parts)


def _overwrite(old: bytearray, at: int, data: bytes) -> None:
    old.extend(bytes(max(0, at - len(old))))
    old[at : at + len(data)] = data


def _resize(old: bytearray, size: int) -> None:
    del old[size:]
    old.extend(bytes(size - len(old)))


# --- the rules of order


def disorder(disk: Disk, since: int = 0, until: int | None = None) -> list[str]:
    """Where the calls after `since`, up to `until`, break a rule:

    * a visible file is never written where it lies, unless it is a log;
    * what gets a visible name is durable, with all that is in it, before it gets it;
    * at the end each visible name is durable."""
    until = disk.now if until is None else until
    wrong: list[str] = []
    folders = {
        inode: dict(entries) for inode, entries in disk.initial.items() if isinstance(entries, dict)
    }
    touched: dict[int, list[Step]] = {}

    def inside(inode: int) -> Iterator[int]:
        yield inode
        for inner in folders.get(inode, {}).values():
            yield from inside(inner)

    for step in disk.steps:
        if step.moment > until:
            break
        if step.published and step.moment > since:
            name = step.published.rsplit("/", 1)[-1]
            inode = step.names[0][2] if step.text.startswith("exchange") else step.names[-1][2]
            assert inode is not None
            if step.text.startswith("create"):
                if not LOGS.fullmatch(name):
                    wrong.append(f"{step.published} is made where it lies, and is no log")
            else:
                late = {
                    earlier.text
                    for inner in inside(inode)
                    for earlier in touched.get(inner, [])
                    if earlier.durable is None or earlier.durable > step.moment
                }
                wrong += [
                    f"{step.text}: before it, this is not synced: {text}" for text in sorted(late)
                ]
        for folder, name, inode in step.names:
            touched.setdefault(folder, []).append(step)
            if inode is None:
                folders[folder].pop(name, None)
            else:
                folders[folder][name] = inode
        if step.data is not None:
            touched.setdefault(step.inode, []).append(step)
            name = step.text.split(" ", 1)[1]
            if (
                step.moment > since
                and visible(name.split("/"))
                and not LOGS.fullmatch(name.rsplit("/", 1)[-1])
            ):
                wrong.append(f"{step.text}: it is written where it lies")
        elif (
            step.moment > since
            and (step.durable is None or step.durable > until)
            and (path := _made(step))
            and not _exempt(path)
        ):
            wrong.append(f"at the end this is not synced: {step.text}")
    return sorted(set(wrong))


def _made(step: Step) -> str:
    """The visible path that a step makes, if any."""
    if step.published:
        return step.published
    if step.text.startswith("mkdir "):
        path = step.text.removeprefix("mkdir ")
        return path if visible(path.split("/")) else ""
    return ""


def _exempt(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    if path.startswith(("cache/", "config/")):  # made again where they are lost
        return True
    return (
        name.startswith("events.out.") or name.startswith("study.sqlite") or name.endswith(".log")
    )


# --- power cuts


def cuts(disk: Disk, since: int, count: int, draw: random.Random) -> Iterator[tuple[str, Tree]]:
    """(what was kept, the files) of `count` states that a power cut after `since` may leave; the
    plain ones first: nothing that is not synced, all names and no data, everything."""
    moments = [step.moment for step in disk.steps if step.moment > since]
    wanted = sorted(draw.sample(moments, min(len(moments), -(-count // 4))))
    made = 0
    for moment in wanted:
        share = draw.random()
        coin = random.Random(draw.random())
        choices: dict[str, Callable[[Step], bool]] = {
            "nothing that is not synced": lambda step: False,
            "all names, and no data that is not synced": lambda step: bool(step.names),
            "all data, and no name that is not synced": lambda step: step.data is not None,
            f"each change with chance {share:.2f}": lambda step, share=share, coin=coin: (
                coin.random() < share
            ),
        }
        for text, choose in choices.items():
            if made < count:
                made += 1
                yield f"call {moment}, {text}", disk.tree(disk.kept(moment, choose))


def lay_out(tree: Tree, folder: Path) -> None:
    """Write a tree into a folder, which is made."""
    folder.mkdir()
    for name, content in tree.items():
        if isinstance(content, dict):
            lay_out(content, folder / name)
        else:
            (folder / name).write_bytes(content)
