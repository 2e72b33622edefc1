"""Searches with and without pruning by successive halving (ASHA), each for the same time.

    python benchmarks/pruning.py                          five seeds, one minute per search; about 10 minutes of one core
    python benchmarks/pruning.py --seeds 3 --minutes 0.5
    python benchmarks/pruning.py --json

Both searches draw learning rate, weight decay, dropout and momentum of an MLP 784-128-10 at random,
with the same suggestions in the same order, and train on 12,000 images of Fashion-MNIST for nine
epochs per trial, one trial after another. ASHA ends two thirds of the trials after one epoch and
two thirds of the rest after three."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cases import write_images
from measuring import Neighbours, machine, machine_line, table

PRUNERS = {"none": "no pruning", "successive_halving": "ASHA"}
SPACE = {
    "optimizer.learning_rate": {"low": 1e-4, "high": 0.3, "log": True},
    "optimizer.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
    "optimizer.momentum": {"low": 0.5, "high": 0.98},
    "model.dropout": {"low": 0.0, "high": 0.6},
}
ROWS, EPOCHS = 12_000, 9


def recipe(folder: Path, pruner: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The recipe of one search."""
    source = {
        "name": "idx",
        "images": str(folder / "images-idx3-ubyte"),
        "labels": str(folder / "labels-idx1-ubyte"),
    }
    return {
        "name": "pruning",
        "task": "classification",
        "data": {"source": source, "target": "label", "split": {"name": "random", "validation": 0.25, "test": 0.0}, "checks": "off"},
        "model": {"name": "mlp", "hidden": [128]},
        "optimizer": "momentum",
        "schedule": "constant",
        "train": {"epochs": arguments.epochs, "batch_size": 64, "threads": 1, "precision": "float32"},
        "tune": {
            "space": SPACE, "objectives": [{"metric": "accuracy"}], "minutes": arguments.minutes, "trials": 100_000, "sampler": "random",
            "pruner": pruner, "on": arguments.on, "seed": seed,
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=1.0, help="minutes of each search")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument(
        "--rows",
        type=int,
        default=ROWS,
        help="number of images; a quarter of them is the test split",
    )
    parser.add_argument("--on", choices=("one_by_one", "vectorised"), default="one_by_one")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    neighbours, searches = Neighbours(), []
    with tempfile.TemporaryDirectory(prefix="danlu-pruning-") as folder:
        os.environ["DANLU_CACHE"] = str(Path(folder) / "cache")
        data = write_images(Path(folder), arguments.rows)
        for seed in range(arguments.seeds):
            for pruner in (
                PRUNERS if seed % 2 == 0 else reversed(PRUNERS)
            ):  # who goes first finds a colder machine
                searches.append(_searched(Path(folder), pruner, seed, arguments))
                _say(searches[-1])
    result = {
        "machine": machine(), "cores_used_by_others": neighbours.cores(), "data": data, "minutes": arguments.minutes, "epochs": arguments.epochs,
        "rows": arguments.rows, "on": arguments.on, "found": searches,
    }  # fmt: skip
    print(json.dumps(result, indent=1) if arguments.json else _report(result))


def _say(one: dict[str, Any]) -> None:
    tried = f"{one['trials']} trials ({one['whole']} whole) in {one['seconds']:.0f} s"
    print(
        f"seed {one['seed']}, {PRUNERS[one['pruner']]}: best {one['best']:.4f} of {tried}",
        file=sys.stderr,
        flush=True,
    )


def _searched(
    folder: Path, pruner: str, seed: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    import danlu

    began = time.perf_counter()
    result = danlu.tune(
        recipe(folder, pruner, seed, arguments), folder / f"{pruner}-{seed}", output="quiet"
    )
    whole = [trial for trial in result.trials if trial.state == "complete"]
    return {
        "pruner": pruner, "seed": seed, "seconds": time.perf_counter() - began, "trials": len(result.trials), "whole": len(whole),
        "failed": sum(trial.state == "failed" for trial in result.trials), "best": max((trial.scores[0] for trial in whole), default=0.0),
    }  # fmt: skip


def _report(result: dict[str, Any]) -> str:
    searches = result["found"]
    seeds = sorted({search["seed"] for search in searches})
    by = {(search["seed"], search["pruner"]): search for search in searches}
    rows, wins = [], 0
    for seed in seeds:
        plain, halving = by[seed, "none"], by[seed, "successive_halving"]
        wins += halving["best"] >= plain["best"]
        rows.append([
            str(seed), f"{plain['best']:.4f}", f"{halving['best']:.4f}", f"{halving['best'] - plain['best']:+.4f}", str(plain["trials"]),
            f"{halving['trials']} ({halving['whole']})", f"{plain['seconds']:.0f}", f"{halving['seconds']:.0f}",
        ])  # fmt: skip
    middle = {
        pruner: statistics.median(by[seed, pruner]["best"] for seed in seeds) for pruner in PRUNERS
    }
    head = [
        "seed",
        "best without pruning",
        "best with ASHA",
        "difference",
        "trials without",
        "with (whole ones)",
        "seconds without",
        "with",
    ]
    test_rows = result["rows"] // 4
    error = math.sqrt(middle["none"] * (1 - middle["none"]) / test_rows)
    return "\n".join([
        "# ASHA beside no pruning, at equal time", "", machine_line(result["machine"], result["cores_used_by_others"]), "",
        f"{result['data']}, {result['rows'] - test_rows:,} rows to train on and {test_rows:,} that score; MLP 784-128-10, {result['epochs']} epochs a trial, "
        f"{result['minutes']:g} minutes for each search, {result['on'].replace('_', ' ')}; validation accuracy.", "",
        table(head, rows), "",
        f"ASHA is better or equal with {wins} of {len(seeds)} seeds; the median best is {middle['successive_halving']:.4f} with it and "
        f"{middle['none']:.4f} without. One standard error of such an accuracy is {error:.4f}. "
        "No trial begins after the minutes; one under way ends.",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
