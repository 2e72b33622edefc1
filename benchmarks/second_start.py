"""Seconds from the start of `danlu train` to its first update, on 60,000 images: without a cache,
and with one.

    python benchmarks/second_start.py [--rounds 5] [--json]

`danlu train RECIPE` runs in a process of its own, which exits right after the first update. The
first start of a round has an empty cache folder, the second one reads what the first has written to
it; both begin at step 0 in an empty run folder. Time counts from before the process is created,
without `import torch`, for which every program on torch waits. The rows below the total name the
stages."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cases import CASES, write_images
from measuring import Neighbours, machine, machine_line, spread, table

ROWS = 60_000
# What a stage of the start is made of: functions timed from the outside, those inside another one
# counted in it too.
STAGES = (
    ("check the recipe", "danlu", "read_recipe"),
    ("load the table (cache)", "danlu.data.cache", "load_table"),
    ("look for leaks and duplicates", "danlu.data.checks", "check_table"),
    ("compare the splits", "danlu.data.checks", "check_splits"),
    ("fit the transforms", "danlu.data.preprocessing", "Preprocessor.fit"),
    ("apply the transforms", "danlu.data.preprocessing", "Preprocessor.apply"),
    ("encode the target", "danlu.data.dataset", "encode_target"),
    ("all of the data", "danlu.training.setup", "prepare"),
    ("rows to tensors", "danlu.data.batches", "Rows.__init__"),
    ("data, rows, model, optimizer", "danlu.training.loop", "build_training"),
    ("watchers", "danlu.training.loop", "Training._watchers"),
    ("look for a checkpoint, write the lock", "danlu.training.loop", "Training._resume"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", choices=("mlp", "cnn"), default="mlp")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.started is not None:
        _start(arguments.started, arguments.folder)
        return
    starts: dict[str, list[dict[str, Any]]] = {"first": [], "second": []}
    neighbours = Neighbours()
    with tempfile.TemporaryDirectory(prefix="danlu-second-start-") as folder:
        data = _write(Path(folder), arguments.model)
        time.sleep(
            3
        )  # a file changed within two seconds is not trusted to be the one that was hashed
        for number in range(arguments.rounds):
            for which in ("first", "second"):
                starts[which].append(_in_a_process(Path(folder), number))
    result = {
        "data": data,
        "rows": ROWS,
        "model": arguments.model,
        "machine": machine(),
        "cores_used_by_others": neighbours.cores(),
        **starts,
    }
    print(json.dumps(result, indent=1) if arguments.json else _report(result))


def _write(folder: Path, model: str) -> str:
    from danlu.recipe import write_yaml

    data = write_images(folder, ROWS)
    source = {
        "name": "idx",
        "images": str(folder / "images-idx3-ubyte"),
        "labels": str(folder / "labels-idx1-ubyte"),
    }
    hidden = {"hidden": list(CASES["mlp_small"].hidden or ())} if model == "mlp" else {}
    recipe = {
        "task": "classification",
        "data": {"source": source, "target": "label"},
        "model": {"name": model, **hidden},
    }
    (folder / "recipe.yaml").write_text(write_yaml(recipe), "utf-8")
    return data


def _in_a_process(folder: Path, number: int) -> dict[str, Any]:
    environment = {**os.environ, "DANLU_CACHE": str(folder / f"cache-{number}")}
    result = folder / "start.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--folder", str(folder), "--started"]
    ended = subprocess.run(
        [*command, repr(time.monotonic())],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode or not result.is_file():
        sys.exit(f"danlu train failed:\n{ended.stdout[-4000:]}")
    return json.loads(result.read_text())


# --- inside the measured process


def _start(started: float, folder: Path) -> None:
    began = time.monotonic()
    import torch  # noqa: F401

    imported = time.monotonic()
    stages: dict[str, float] = {}
    from importlib import import_module

    from danlu.cli import app as cli
    from danlu.training.step import SupervisedStep

    update = SupervisedStep.__call__

    def first(self: SupervisedStep, n: int) -> None:
        update(self, n)
        now = time.monotonic()
        record = {
            "seconds": now - started - (imported - began),
            "import torch": imported - began,
            "stages": stages,
        }
        (folder / "start.json").write_text(json.dumps(record))
        os._exit(0)

    SupervisedStep.__call__ = first
    for name, module, path in STAGES:
        holder: Any = import_module(module)
        *parents, last = path.split(".")
        for parent in parents:
            holder = getattr(holder, parent)
        setattr(
            holder, last, _timed(getattr(holder, last), holder.__dict__.get(last), name, stages)
        )
    sys.argv = [
        "danlu",
        "train",
        str(folder / "recipe.yaml"),
        "--run",
        tempfile.mkdtemp(dir=folder),
    ]
    cli.main()


def _timed(function: Callable[..., Any], raw: Any, name: str, stages: dict[str, float]) -> Any:
    def timed(*arguments: Any, **named: Any) -> Any:
        began = time.monotonic()
        try:
            return function(*arguments, **named)
        finally:
            stages[name] = stages.get(name, 0.0) + time.monotonic() - began

    return staticmethod(timed) if isinstance(raw, classmethod | staticmethod) else timed


# --- the table


def _report(result: dict[str, Any]) -> str:
    first, second = result["first"], result["second"]

    def spread_text(values: list[float]) -> str:
        middle, low, high = spread(values)
        return f"{middle:.3f} ({low:.3f}..{high:.3f})"

    def row(name: str, take: Callable[[dict[str, Any]], float]) -> list[str]:
        return [
            name,
            spread_text([take(each) for each in first]),
            spread_text([take(each) for each in second]),
        ]

    stages = [name for name, *_ in STAGES if name in first[0]["stages"]]
    rows = [row("until the first update, without import torch", lambda each: each["seconds"])]
    rows += [
        row(f"  of that: {name}", lambda each, name=name: each["stages"].get(name, 0.0))
        for name in stages
    ]
    rows.append(row("import torch (not counted)", lambda each: each["import torch"]))
    return "\n".join(
        [
            "# Start on 60,000 images", "",
            machine_line(result["machine"], result["cores_used_by_others"]), "",
            f"{result['data']}, {result['rows']:,} images of 28x28, model {result['model']}, the rest as by default. Seconds: median "
            f"(lowest..highest) of {len(first)} starts.", "",
            table(["", "first start", "second start"], rows),
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
