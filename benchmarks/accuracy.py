"""Scores and training times of the recipes in recipes/, each with the score that is required.

    python benchmarks/accuracy.py                      all rows; about 25 minutes on 2 cores
    python benchmarks/accuracy.py --rows digits line
    python benchmarks/accuracy.py --json

The command `danlu train RECIPE --json` trains each recipe in a process of its own and scores it on
its test split, which neither training, model selection nor transforms use. The data is read from
the folder DANLU_DATA (default: ../shared/data beside the checkout); a recipe without its data is
skipped with a message. The rows "line" fit y = 2x + 1 + noise on 100 points with five optimizers at
one learning rate and defaults otherwise. Their score is the larger relative distance of slope and
intercept from the least-squares solution."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from measuring import Neighbours, machine, machine_line, table

HOME = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("DANLU_DATA", HOME.parent / "shared" / "data"))


@dataclass(frozen=True)
class Row:
    """A recipe and what its test score must be: at least, or (`at_most`) at most `required`, within
    `minutes` of CPU time."""

    name: str
    recipe: str
    description: str
    metric: str
    required: float
    needs: str = ""  # the folder under DATA
    at_most: bool = False
    unit: float = 1.0  # what the score is divided by
    minutes: float | None = None


ROWS = (
    Row("digits", "digits", "digits, accuracy", "accuracy", 0.975),
    Row("fashion_mnist_mlp", "fashion_mnist_mlp", "Fashion-MNIST official test, MLP 784-128-10, accuracy", "accuracy", 0.88, "fashion_mnist"),
    Row("fashion_mnist_cnn", "fashion_mnist_cnn", "Fashion-MNIST official test, default cnn, accuracy", "accuracy", 0.93, "fashion_mnist",
        minutes=15),
    Row("adult", "adult", "Adult official test, accuracy", "accuracy", 0.853, "adult"),
    Row("california_housing", "california_housing", "California housing, 20 % test, RMSE in $100k", "rmse", 0.48, "california_housing",
        at_most=True, unit=1e5),
)  # fmt: skip
OPTIMIZERS = ("gd", "sgd", "momentum", "rmsprop", "adam")
LINE_RATE = 0.1  # of all five: the textbook's
WITHIN = 0.01


@dataclass(frozen=True)
class Found:
    """One line of the table. `met` is None where nothing was measured."""

    row: str
    score: str
    required: str
    met: bool | None
    seconds: float = 0.0
    cpu_minutes: float = 0.0


def main() -> None:
    choices = [*(row.name for row in ROWS), "line"]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--rows", nargs="+", choices=choices, default=choices)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    neighbours, results = Neighbours(), []
    with tempfile.TemporaryDirectory(prefix="danlu-accuracy-") as folder:
        if DATA.is_dir():
            (Path(folder) / "data").symlink_to(DATA)  # recipes name their data as data/...
        for row in ROWS:
            if row.name in arguments.rows:
                results.append(_recipe(row, Path(folder)))
                _say(results[-1])
        if "line" in arguments.rows:
            for optimizer in OPTIMIZERS:
                results.append(_line(optimizer, Path(folder)))
                _say(results[-1])
    machine_facts, others = machine(), neighbours.cores()
    record = {
        "machine": machine_facts,
        "cores_used_by_others": others,
        "rows": [asdict(result) for result in results],
    }
    print(
        json.dumps(record, indent=1)
        if arguments.json
        else _report(results, machine_line(machine_facts, others))
    )
    sys.exit(0 if all(result.met is not False for result in results) else 1)


def _say(result: Found) -> None:
    print(f"{result.row}: {result.score} in {result.seconds:.0f} s", file=sys.stderr, flush=True)


def _train(recipe: Path, run: str, folder: Path) -> tuple[dict[str, Any], float, float]:
    """(what the command printed, seconds, CPU seconds) of `danlu train`."""
    began, before = time.perf_counter(), os.times()
    command = [sys.executable, "-m", "danlu", "train", str(recipe), "--run", run, "--json"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    after = os.times()
    if ended.returncode:
        sys.exit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr[-4000:]}")
    cpu = (
        after.children_user - before.children_user + after.children_system - before.children_system
    )
    return json.loads(ended.stdout), time.perf_counter() - began, cpu


def _recipe(row: Row, folder: Path) -> Found:
    recipe = HOME / "recipes" / f"{row.recipe}.yaml"
    sign = "<=" if row.at_most else ">="
    required = f"{sign} {row.required:g}" + (f" in {row.minutes:g} CPU min" if row.minutes else "")
    if row.needs and not (DATA / row.needs).is_dir():
        return Found(row.description, f"skipped: no {DATA / row.needs}", required, None)
    summary, seconds, cpu = _train(recipe, row.name, folder)
    score = summary["scores"]["test"][row.metric] / row.unit
    good = score <= row.required if row.at_most else score >= row.required
    met = good and (row.minutes is None or cpu / 60 <= row.minutes)
    return Found(row.description, f"{score:.4f}", required, met, seconds, cpu / 60)


# --- the textbook's line


def _line(optimizer: str, folder: Path) -> Found:
    from danlu.recipe import write_yaml

    draw = np.random.default_rng(0)
    x = draw.uniform(-1, 1, 100)
    y = 2 * x + 1 + draw.normal(0, 0.3, 100)
    data = folder / "line.csv"
    data.write_text(
        "x,y\n" + "".join(f"{one!r},{other!r}\n" for one, other in zip(x.tolist(), y.tolist()))
    )
    recipe = {
        "task": "regression",
        "data": {
            "source": str(data),
            "target": "y",
            "split": {"name": "random", "validation": 0.0, "test": 0.0},
        },
        "model": "linear",
        "optimizer": {"name": optimizer, "learning_rate": LINE_RATE},
    }
    path = folder / f"line_{optimizer}.yaml"
    path.write_text(write_yaml(recipe), "utf-8")
    _, seconds, cpu = _train(path, path.stem, folder)
    slope, intercept = _fitted(folder / path.stem)
    wanted = np.linalg.lstsq(np.stack([x, np.ones_like(x)], 1), y, rcond=None)[0].tolist()
    off = max(abs(fitted / want - 1) for fitted, want in zip((slope, intercept), wanted))
    description = (
        f"line y = 2x + 1 + noise, {optimizer} at {LINE_RATE}, distance from least squares"
    )
    return Found(description, f"{off:.3%}", f"<= {WITHIN:.0%}", off <= WITHIN, seconds, cpu / 60)


def _fitted(run: Path) -> tuple[float, float]:
    """Slope and intercept of what was trained, from its answers."""
    import danlu

    low, high = (
        answer["prediction"] for answer in danlu.load(run).predict([{"x": 0.0}, {"x": 1.0}])
    )
    return high - low, low


def _report(results: list[Found], machine_text: str) -> str:
    words: dict[bool | None, str] = {True: "yes", False: "NO", None: "-"}
    cells: Callable[[Found], list[str]] = lambda each: [  # noqa: E731
        each.row, each.score, each.required, words[each.met], f"{each.seconds:.1f}", f"{each.cpu_minutes:.2f}",
    ]  # fmt: skip
    rows = table(
        ["recipe", "score", "required", "met", "seconds", "CPU minutes"],
        [cells(result) for result in results],
    )
    return f"# What the ready recipes reach\n\n{machine_text}\n\n{rows}"


if __name__ == "__main__":
    main()
