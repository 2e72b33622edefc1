"""Resume from every step, and compare the bytes: python tests/faults/every_step.py --steps 60

A run saves after every step and keeps all checkpoints. For each checkpoint, a copy of the run folder
is cut back to it: everything later is removed but the metric log, which a killed run would have
written on. The same command then resumes the copy in a process of its own."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from hard_recipes import RECIPES
from lives import Lives, differing, fingerprint, lives, write_recipe


def whole_run(name: str, steps: int, home: Path, found: Lives) -> tuple[Path, Path]:
    """(recipe, run folder) of a run of `steps` steps with a checkpoint after each."""
    recipe = RECIPES[name](home)
    recipe["train"] |= {"steps": steps, "save_every": 1, "keep": 1000}
    path, run = write_recipe(home / f"{name}.json", recipe), home / f"{name}-whole"
    found.run("train", path, "--run", run)
    return path, run


def steps_of(run: Path) -> list[int]:
    """The steps a run folder holds checkpoints of."""
    return sorted(
        int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*[0-9]")
    )


def cut_back(run: Path, step: int, copy: Path) -> None:
    """A copy of a run folder as a kill after `step` would have left it."""

    def later(folder: str, names: list[str]) -> list[str]:
        return [
            each
            for each in names
            if each == "artifact"
            or (each.startswith("step-") and int(each.removeprefix("step-")) > step)
        ]

    shutil.copytree(run, copy, ignore=later)


def resume_from(
    steps: Iterable[int], recipe: Path, run: Path, home: Path, found: Lives
) -> dict[int, list[str]]:
    """What differs after resuming from each of the steps: nothing, if all is well."""
    wanted, result = fingerprint(run), {}
    for step in steps:
        copy = home / f"from-{step}"
        cut_back(run, step, copy)
        life = found.run("train", recipe, "--run", copy)
        result[step] = differing(wanted, fingerprint(copy))
        if f"resuming at step {step}" not in life.err:
            result[step].append("it did not go on from there")
        shutil.rmtree(copy)
    return result


def main() -> int:
    """Every recipe, every step; exit code 0 where all are equal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=["tabular", "images"])
    wish = parser.parse_args()
    home, began, wrong = Path(tempfile.mkdtemp(prefix="danlu-steps-")), time.monotonic(), {}
    with lives(home / "lives") as found:
        for name in wish.recipes:
            recipe, run = whole_run(name, wish.steps, home, found)
            result = resume_from(steps_of(run), recipe, run, home, found)
            bad = {step: differs for step, differs in result.items() if differs}
            print(
                f"{time.monotonic() - began:7.0f} s  {name}: {len(result) - len(bad)} of {len(result)} steps equal",
                flush=True,
            )
            wrong |= {f"{name} {step}": differs for step, differs in bad.items()}
    print(json.dumps({"differing": wrong, "seconds": round(time.monotonic() - began)}))
    shutil.rmtree(home)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
