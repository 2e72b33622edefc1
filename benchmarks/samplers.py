"""Number of trials after which Bayesian search is as good as the best trial of a random search.

    python benchmarks/samplers.py                                   three sets, ten seeds; about 15 minutes of one core
    python benchmarks/samplers.py --sets wine --seeds 3 --samplers gaussian_process
    python benchmarks/samplers.py --json

For each data set and seed, `danlu tune` searches five options of a small network at random; its best
score is the mark. Then each Bayesian sampler searches with the same number of trials and a seed of
its own, and the first trial that reaches the mark is counted. The control is another random search
with the next seed, which reaches the mark in half of the cases. A search that does not reach the
mark counts as one trial more than it has. All data comes with scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import Neighbours, machine, machine_line, table

SPACE = {
    "optimizer.learning_rate": {"low": 1e-4, "high": 0.5, "log": True},
    "optimizer.weight_decay": {"low": 1e-6, "high": 0.1, "log": True},
    "optimizer.momentum": {"low": 0.0, "high": 0.99},
    "model.dropout": {"low": 0.0, "high": 0.7},
    "schedule.warmup": {"low": 0.0, "high": 0.5},
}
SAMPLERS = {
    "random": "random, another seed",
    "bayesian": "TPE",
    "gaussian_process": "Gaussian process",
}
_OWN = 1000  # seeds of the Bayesian searches begin here


@dataclass(frozen=True)
class Set:
    """A data set of scikit-learn's, and how long a trial trains on it."""

    name: str
    task: str
    epochs: int


SETS = {
    each.name: each
    for each in (
        Set("digits", "classification", 5),
        Set("breast_cancer", "classification", 10),
        Set("diabetes", "regression", 15),
    )
}


def recipe(which: Set, sampler: str, trials: int, seed: int) -> dict[str, Any]:
    """The recipe of one search: every trial begins with the same weights and sees the rows in the
    same order."""
    return {
        "name": which.name,
        "task": which.task,
        "data": {"source": {"name": "sklearn", "set": which.name}, "split": {"name": "random", "validation": 0.3, "test": 0.0},
                 "target": "label" if which.name == "digits" else "target", "checks": "off"},
        "model": {"name": "mlp", "hidden": [32]},
        "optimizer": "momentum",
        "schedule": "cosine",
        "train": {"epochs": which.epochs, "batch_size": 32, "threads": 1, "precision": "float32", "on_nan": "stop"},
        "tune": {"space": SPACE, "objectives": [{"metric": "loss"}], "trials": trials, "sampler": sampler,
                 "on": "one_by_one", "seed": seed},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument(
        "--samplers", nargs="+", choices=list(SAMPLERS)[1:], default=list(SAMPLERS)[1:]
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=40, help="trials of each search")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    neighbours, comparisons = Neighbours(), []
    with tempfile.TemporaryDirectory(prefix="danlu-samplers-") as folder:
        os.environ["DANLU_CACHE"] = str(Path(folder) / "cache")
        for name in arguments.sets:
            comparisons += _compared(SETS[name], arguments, Path(folder))
    result = {
        "machine": machine(),
        "cores_used_by_others": neighbours.cores(),
        "trials": arguments.trials,
        "found": comparisons,
    }
    print(json.dumps(result, indent=1) if arguments.json else _report(result))


def _say(one: dict[str, Any]) -> None:
    counted = ", ".join(
        f"{SAMPLERS[name]} {search['needed']}" for name, search in one["searches"].items()
    )
    print(
        f"{one['set']}, seed {one['seed']}: mark {one['mark']:.5g}; trials needed: {counted}",
        file=sys.stderr,
        flush=True,
    )


def _compared(which: Set, arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Random search and the others on one set, once a seed."""

    def searched(sampler: str, seed: int) -> tuple[list[float], float]:
        began = time.perf_counter()
        scores = _scores(
            recipe(which, sampler, arguments.trials, seed),
            folder / f"{which.name}-{sampler}-{seed}",
        )
        return scores, time.perf_counter() - began

    # one more than there are marks, so that each mark has a search with another seed beside it
    drawn = [searched("random", seed) for seed in range(arguments.seeds + 1)]
    comparisons = []
    for seed in range(arguments.seeds):
        mark = min(drawn[seed][0])
        one: dict[str, Any] = {"set": which.name, "seed": seed, "mark": mark, "searches": {}}
        searches = {"random": drawn[seed + 1]}
        # seeds of their own: the first trials of a Bayesian search are random, and would be those
        # that set the mark
        searches |= {sampler: searched(sampler, _OWN + seed) for sampler in arguments.samplers}
        for sampler, (scores, seconds) in searches.items():
            one["searches"][sampler] = {
                "best": min(scores),
                "seconds": seconds,
                "needed": needed(scores, mark),
            }
        comparisons.append(one)
        _say(one)
    return comparisons


def _scores(chosen: dict[str, Any], home: Path) -> list[float]:
    """The objective of each trial in order; infinity where a trial failed."""
    import danlu

    result = danlu.tune(chosen, home, output="quiet")
    return [trial.scores[0] if trial.scores else float("inf") for trial in result.trials]


def needed(scores: list[float], mark: float) -> int:
    """The first trial (from 1 on) that is at least as good as `mark`; one more than there are where
    none is."""
    return next(
        (number for number, score in enumerate(scores, 1) if score <= mark), len(scores) + 1
    )


# --- the table


def _report(result: dict[str, Any]) -> str:
    comparisons, trials = result["found"], result["trials"]
    head = [
        "set",
        "sampler",
        "trials until the mark: median",
        "lowest..highest",
        "reached it",
        "median best loss",
        "seconds a search",
    ]
    rows = []
    for name in dict.fromkeys(comparison["set"] for comparison in comparisons):
        mine = [comparison for comparison in comparisons if comparison["set"] == name]
        for sampler in mine[0]["searches"]:
            theirs = [comparison["searches"][sampler] for comparison in mine]
            reached = sum(other["needed"] <= trials for other in theirs)
            rows.append([
                name, SAMPLERS[sampler], *_spread([other["needed"] for other in theirs]), f"{reached} of {len(mine)}",
                _median([other["best"] for other in theirs]), _median([other["seconds"] for other in theirs]),
            ])  # fmt: skip
    seeds = len({comparison["seed"] for comparison in comparisons})
    caption = (
        f"{trials} trials a search over {len(SPACE)} options ({', '.join(SPACE)}) of an MLP with one hidden layer of 32; {seeds} seeds; "
        f"validation loss, lower is better. The mark is the best that a random search found in its {trials} trials."
    )
    machine_text = machine_line(result["machine"], result["cores_used_by_others"])
    return "\n".join([
        "# Bayesian search beside random search", "", machine_text, "", caption, "", table(head, rows), "",
        f"A search that never reached the mark counts as {trials + 1} trials.",
    ])  # fmt: skip


def _spread(needs: list[int]) -> list[str]:
    return [f"{statistics.median(needs):g}", f"{min(needs)}..{max(needs)}"]


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.4g}"


if __name__ == "__main__":
    main()
