"""Every command that writes syncs what it wrote before it gets its name: read from the system calls, of all commands that there are."""

from __future__ import annotations

import sys
from pathlib import Path

import all_writers
import pytest
from disk import NAMES, Disk, disorder
from syscalls import WHY_NOT, record

pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
RECORDED = ("-xx", "-s", "4096")


def test_every_command_that_writes_is_safe_from_a_power_cut(tmp_path: Path) -> None:
    home = (tmp_path / "home").resolve()
    all_writers.prepare(home)
    disk = Disk(home).load()
    command = [sys.executable, all_writers.__file__, str(home)]
    done, made = record(command, home, NAMES, RECORDED, {"DANLU_CACHE": str(home / ".cache")})
    assert done.returncode == 0, done.stderr[-2000:]
    disk.follow(made)
    assert [name for name, _ in disk.marks] == [*all_writers.commands(), "end"]
    wrong = {}
    for (name, since), (_, until) in zip(disk.marks, disk.marks[1:]):
        named = [step for step in disk.steps if since < step.moment <= until and step.published]
        assert named, f"{name} gave nothing a name"
        if found := disorder(disk, since, until):
            wrong[name] = found
    assert not wrong


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("open('.a', 'w').write('x'); os.rename('.a', 'a')", "before it, this is not synced"),
        ("open('a', 'w').write('x')", "is made where it lies"),
        (
            "f = open('.a', 'w'); f.write('x'); f.flush(); os.fsync(f.fileno()); os.rename('.a', 'a')",
            "at the end this is not synced",
        ),
        ("os.mkdir('.d'); open('.d/a', 'w').write('x'); os.rename('.d', 'd')", "is not synced"),
    ],
    ids=["no sync of the file", "in place", "no sync of the name", "no sync of a folder's file"],
)
def test_a_writer_that_does_not_sync_is_named(script: str, fault: str, tmp_path: Path) -> None:
    home = tmp_path.resolve()
    disk = Disk(home).load()
    command = [sys.executable, "-c", f"import os; {script}"]
    done, made = record(command, home, NAMES, RECORDED)
    assert done.returncode == 0, done.stderr
    assert any(fault in text for text in disorder(disk.follow(made)))
