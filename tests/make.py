"""What many tests start from: a recipe, a part, a table as a CSV file, a command.

make.iris(train={"steps": 8})                 a recipe for the iris data
make.recipe("shop.csv", "price", task="regression", model="linear")
make.part("losses", "focal", gamma=1.0)       a part with its options, as a recipe gives it
make.csv_file(tmp_path / "a.csv", {"x": [1, 2], "y": ["a", None]})
make.command("train", "a.yaml", cwd=tmp_path) danlu's command line in a process of its own
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from danlu import registry
from danlu.recipe import Part


def recipe(
    source: str | Path | Mapping[str, Any],
    target: str | Sequence[str] | None = None,
    *,
    task: str | Mapping[str, Any] = "classification",
    model: str | Mapping[str, Any] = "mlp",
    data: Mapping[str, Any] | None = None,
    **sections: Any,
) -> dict[str, Any]:
    """A recipe as a dict; `data` and `sections` add to it or replace what stands there."""
    named = {} if target is None else {"target": target}
    source = source if isinstance(source, Mapping) else str(source)
    return {
        "task": task,
        "data": {"source": source, **named, **(data or {})},
        "model": model,
        **sections,
    }


def iris(**sections: Any) -> dict[str, Any]:
    """A recipe that classifies scikit-learn's 150 irises by four numbers."""
    return recipe({"name": "sklearn", "set": "iris"}, "target", **sections)


def digits(**sections: Any) -> dict[str, Any]:
    """A recipe that classifies scikit-learn's 1,797 digits, images of 8x8."""
    return recipe({"name": "sklearn", "set": "digits"}, "label", **sections)


def part(shelf: str, name: str, **options: Any) -> Part:
    """A part with its options, as a recipe gives it to danlu.registry."""
    return Part(name, registry.config(shelf, name)(**options))


def csv_file(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """The columns as a CSV file, None as an empty cell; cells are written as they are."""
    rows = zip(*columns.values(), strict=True)
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n", "utf-8")
    return path


def command(
    *arguments: str | Path, cwd: Path, stdin: str = "", timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """What a danlu command printed and its exit code; its cache is a folder of `cwd`."""
    return subprocess.run(
        [sys.executable, "-m", "danlu", *map(str, arguments)],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        env={**os.environ, "DANLU_CACHE": str(cwd / "cache")},
        timeout=timeout,
        check=False,
    )
