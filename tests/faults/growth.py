"""Memory over thousands of steps with reports, evaluations and saves: python tests/faults/growth.py --steps 2000

A process trains the hard tabular recipe and saves every 10 steps. Another process reads its resident
memory (psutil). The memory in the last third of the training may exceed that in the second third by
at most 2 MB, the noise of malloc's arenas. A leak of one state per save, or of the objects of one
report per step, would be tens of MB."""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from hard_recipes import RECIPES
from lives import Lives, lives, write_recipe

NOISE = 2e6  # bytes


def memory(steps: int, home: Path, found: Lives) -> list[int]:
    """Resident bytes at even times during the training."""
    recipe = RECIPES["tabular"](home)
    recipe["train"] |= {"steps": steps, "save_every": 10, "report_every": 1, "evaluate_every": 50}
    recipe["model"]["hidden"] = [
        128,
        128,
    ]  # a state of a third of a megabyte, so that a kept one would show
    life = found.fork("train", write_recipe(home / "growth.json", recipe), "--run", home / "run")
    process, seen = psutil.Process(life.pid), []
    folder = home / "run" / "checkpoints"
    while life.poll() is None:
        # what comes after the last step (scores, the artifact) reads libraries
        if any(folder.glob("step-*")) and not (folder / f"step-{steps:010}").exists():
            try:
                seen.append(process.memory_info().rss)
            except psutil.Error:
                break
        time.sleep(0.02)
    assert life.wait() == 0, life.err
    return seen


def growth(seen: list[int]) -> float:
    """Bytes by which the median of the last third is above that of the second."""
    third = len(seen) // 3
    return statistics.median(seen[2 * third :]) - statistics.median(seen[third : 2 * third])


def main() -> int:
    """The full proof; exit code 0 where memory stands still."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--steps", type=int, default=2000)
    wish = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="danlu-growth-"))
    with lives(home / "lives") as found:
        seen = memory(wish.steps, home, found)
    shutil.rmtree(home)
    grown = growth(seen)
    told = {
        "steps": wish.steps,
        "samples": len(seen),
        "first": seen[0],
        "last": seen[-1],
        "grown": grown,
    }
    print(json.dumps(told))
    return 1 if grown > NOISE else 0


if __name__ == "__main__":
    sys.exit(main())
