"""Training in a control group with a limit on memory: danlu knows the limit, says what it is when it is used up, and the
run goes on from its last checkpoint.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from danlu.system import machine, memory_group

LIMIT = 1_000_000_000
MODEL = '''
import os
import torch
from torch import nn

class Growing(nn.Module):
    """A linear model that keeps 30 MB more after each of its first calls, where BALLAST says so."""

    def __init__(self, inputs, output):
        super().__init__()
        self.layer = nn.Linear(inputs["numbers"].shape[0], output.size)
        self.calls, self.kept = 0, []

    def forward(self, numbers):
        self.calls += 1
        if os.environ.get("BALLAST") and self.calls > 30:
            self.kept.append(torch.ones(30_000_000 // 4))
        return self.layer(numbers)
'''
RECIPE = """
task: classification
data: {source: {name: sklearn, set: iris}, target: target, cache: false}
model: {name: python, object: "growing:Growing"}
train: {steps: 60, batch_size: 16, save_every: 10}
"""


class Group:
    """A control group of our own, version 2 or 1."""

    def __init__(self, folder: Path, version_2: bool) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / ("memory.max" if version_2 else "memory.limit_in_bytes")).write_text(str(LIMIT))

    def run(
        self, command: list[str], cwd: Path, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the group."""
        return subprocess.run(
            ["sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$@"', "sh", *command],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(cwd), **variables},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def group() -> Iterator[Group]:
    """A group below the one of this process; skips where none can be made."""
    for above in memory_group._folders():
        version_2 = (above / "cgroup.controllers").exists()
        folder = above / f"danlu-test-{uuid.uuid4().hex}"
        try:
            made = Group(folder, version_2)
        except OSError:
            if folder.is_dir():
                folder.rmdir()
            continue
        yield made
        folder.rmdir()
        return
    pytest.skip("no control group with a limit on memory can be made here")


def train(cwd: Path, run: str) -> list[str]:
    return [sys.executable, "-m", "danlu", "train", "recipe.yaml", "--run", run, "--allow-code"]


def test_a_training_that_fills_its_container_says_so_and_goes_on_later(
    group: Group, tmp_path: Path
) -> None:
    (tmp_path / "growing.py").write_text(MODEL)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    full = group.run(train(tmp_path, "run"), tmp_path, BALLAST="1")
    assert full.returncode == 2, (full.returncode, full.stderr[-2000:])
    assert "out of memory: this container may use 1.00 GB, and they are used up" in full.stderr
    assert "hint: lower train.batch_size" in full.stderr and "Traceback" not in full.stderr
    steps = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert steps, "the checkpoints before are whole"
    again = group.run(train(tmp_path, "run"), tmp_path)
    assert again.returncode == 0, again.stderr[-2000:]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert '"step":60' in lines[-1].replace(" ", "")


def test_the_limit_of_a_container_is_the_memory_of_this_machine(
    group: Group, tmp_path: Path
) -> None:
    program = "from danlu.system import machine; print(*machine.memory(), machine.environment()['memory_bytes'])"
    said = group.run([sys.executable, "-c", program], tmp_path)
    total, available, noted = map(int, said.stdout.split())
    page = 4096  # a limit is rounded to whole pages
    assert LIMIT - page < total <= LIMIT and noted == total
    assert LIMIT / 2 < available < total
    assert machine.memory()[0] > 0


VERSION_2 = {"memory.max": "800000000\n", "memory.current": "700000000\n",
             "memory.stat": "anon 600000000\ninactive_file 60000000\nactive_file 40000000\nshmem 0\n"}  # fmt: skip
VERSION_1 = {"memory.limit_in_bytes": "800000000\n", "memory.usage_in_bytes": "700000000\n",
             "memory.memsw.limit_in_bytes": "800000000\n",
             "memory.stat": "inactive_file 1\ntotal_inactive_file 60000000\ntotal_active_file 40000000\n"}  # fmt: skip


@pytest.mark.parametrize("files", [VERSION_2, VERSION_1], ids=["version 2", "version 1"])
def test_both_versions_of_groups_are_read(files: dict[str, str], tmp_path: Path) -> None:
    """File cache counts as free, and a group without a limit has none."""
    for name, text in {**files, "memory.swap.max": "0\n"}.items():
        (tmp_path / name).write_text(text)
    assert memory_group._limit_of(tmp_path) == memory_group.Limit(800_000_000, 200_000_000)
    name = next(iter(files))
    (tmp_path / name).write_text("max\n" if name == "memory.max" else "9223372036854771712\n")
    assert memory_group._limit_of(tmp_path) is None
