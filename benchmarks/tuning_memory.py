"""Memory of a long search in one process: python benchmarks/tuning_memory.py --trials 500

The study trains a small MLP on scikit-learn's handwritten digits, one trial after another in this
process or as one program (--on vectorised). Resident memory is measured after every trial. Growth
is its mean over the last tenth of the trials minus its mean over the second tenth. The exit code is
1 if it is 50 MB or more."""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from danlu import read_recipe
from danlu.data.dataset import keep_in_memory
from danlu.search.context import SearchContext
from danlu.search.study import Study
from danlu.system import machine
from danlu.system.signals import Interruption

LIMIT = 50e6  # bytes of growth


def recipe(trials: int, on: str, sampler: str) -> dict[str, Any]:
    """The search."""
    return {
        "task": "classification",
        "data": {"source": {"name": "sklearn", "set": "digits"}, "target": "label"},
        "model": "mlp",
        "train": {"epochs": 1, "batch_size": 128},
        "tune": {
            "space": {
                "optimizer.learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
                "optimizer.weight_decay": {"low": 1e-6, "high": 0.1, "log": True},
                "model.hidden": [[32], [64], [32, 32]],
            },
            "trials": trials,
            "sampler": sampler,
            "on": on,
        },
    }


def main() -> int:
    """Runs the search and prints one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--on", choices=("one_by_one", "vectorised"), default="one_by_one")
    parser.add_argument("--sampler", default="bayesian")
    wish = parser.parse_args()
    home, began = Path(tempfile.mkdtemp(prefix="danlu-memory-")), time.monotonic()
    memory: list[int] = []

    def tell(record: Any = None, message: str = "") -> None:
        if record is not None:
            gc.collect()
            memory.append(machine.resident_memory())
            if len(memory) % 50 == 0:
                print(
                    f"{len(memory):5} trials  {memory[-1] / 1e6:.0f} MB  {time.monotonic() - began:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )

    from importlib import import_module

    checked = read_recipe(recipe(wish.trials, wish.on, wish.sampler))
    with Interruption() as interruption, keep_in_memory(), Study(checked, home / "study") as study:
        context = SearchContext(study.tune, interruption, study.plan, notify=tell)
        import_module(f"danlu.search.executors.{wish.on}").run(study, context)
        seconds = sum(record.seconds for record in study.trials())
    shutil.rmtree(home)
    tenth = max(len(memory) // 10, 1)
    growth = statistics.fmean(memory[-tenth:]) - statistics.fmean(memory[tenth : 2 * tenth])
    print(
        json.dumps(
            {
                "trials": len(memory),
                "on": wish.on,
                "growth_mb": round(growth / 1e6, 1),
                "first_mb": round(memory[0] / 1e6),
                "last_mb": round(memory[-1] / 1e6),
                "seconds": round(time.monotonic() - began),
                "seconds_of_training": round(seconds),
            }
        )
    )
    return 1 if growth >= LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
