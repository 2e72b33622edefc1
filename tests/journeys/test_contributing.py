"""CONTRIBUTING.md followed literally: its parts are added to a copy of danlu, and used."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import danlu
from danlu import registry

HOME = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^```python (\S+)\n(.*?)^```$", (HOME / "CONTRIBUTING.md").read_text("utf-8"), re.M | re.S
)
USE = """
import danlu
from danlu import registry

for path in PATHS:
    shelf, name = path.removesuffix(".py").split("/")[-2:]
    assert name in registry.names(shelf), path
    assert registry.summary(shelf, name), path
    registry.describe(shelf, name)

recipe = {
    "task": "magnitude",
    "data": {
        "source": "products", "target": "product", "split": "every_fifth",
        "columns": {"b": {"transforms": ["sign", "scale"]}}, "augmentations": ["shrink"],
    },
    "model": {"name": "two_layers", "width": 16},
    "loss": "log_cosh",
    "metrics": ["largest_error", "rmse"],
    "optimizer": {"name": "adamax", "learning_rate": 0.01},
    "schedule": {"name": "half_life", "steps": 200},
    "watchers": [{"name": "small_loss", "below": 0.02}],
    "train": {"epochs": 20, "threads": 1},
}
artifact = danlu.train(recipe, "run", output="quiet")
assert artifact.scores["test"]["largest_error"] > artifact.scores["test"]["rmse"] > 0
assert artifact.predict([{"a": 0.5, "b": -1.0}])[0]["prediction"] is not None
smaller = danlu.compress("run", ["round_weights:digits=10"])
exported = danlu.export("run", to="stamped")
search = {"space": {"model.width": [4, 8]}, "trials": 6, "sampler": "coin",
          "pruner": "worse_than_all", "on": "one_by_one"}
danlu.tune({**recipe, "train": {"steps": 20, "threads": 1}, "tune": search}, "study")
print("all used")
"""


def test_there_is_an_example_for_every_shelf() -> None:
    assert {Path(path).parent.name for path, _ in BLOCKS} == set(registry.shelves())


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with danlu and the parts of CONTRIBUTING.md."""
    home = tmp_path_factory.mktemp("copy")
    source = Path(danlu.__file__).parent
    shutil.copytree(source, home / "danlu", ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in BLOCKS:
        (home / "danlu" / path).write_text(text, "utf-8")
    return home


def test_the_parts_of_the_text_are_found_and_work(copy: Path, tmp_path: Path) -> None:
    program = USE.replace("PATHS", repr([path for path, _ in BLOCKS]))
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::FutureWarning", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(copy), "DANLU_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("all used\n")
