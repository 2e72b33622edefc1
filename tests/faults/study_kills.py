"""Kill a whole study at random moments and start it again: python tests/faults/study_kills.py --kills 50

Each executor runs a study (`studies` below) once without a kill. Then it runs the study again and
again: killed by SIGKILL one to three times, and started again with the same command until it ends.
A killed study counts as equal if all trials have the same values, state, curve, scores and cause,
the best trial is the same, best.yaml holds the same recipe, the best artifact has the same bytes,
exactly N trials ended, and none is left running. Nothing is repaired between a kill and the next
start."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lives import Life, Lives, lives, write_recipe

EXECUTORS = ("one_by_one", "vectorised")
_CLOCKS = ("seconds",)  # what no two runs share


def study(executor: str, sampler: str = "bayesian", trials: int = 10) -> dict[str, Any]:
    """A search with conditions, pruned trials and some that fail (a learning rate that
    overflows)."""
    return {
        "task": "classification",
        "data": {
            "source": {"name": "sklearn", "set": "digits"},
            "target": "label",
            "split": {"name": "stratified", "test": 0.6},
        },
        "model": {"name": "mlp", "hidden": [12]},
        "train": {
            "epochs": 4,
            "batch_size": 48,
            "precision": "float32",
            "threads": 1,
            "save_every": 5,
        },
        "optimizer": "momentum",
        "tune": {
            "space": {
                "optimizer.learning_rate": [0.02, 0.05, 0.1, 0.2, 1e30],
                "optimizer.momentum": {"low": 0.5, "high": 0.95},
                "optimizer.weight_decay": {"low": 1e-6, "high": 1e-2, "log": True},
                "train.seed": {"low": 0, "high": 2},
            },
            "sampler": {"name": sampler, **({"random_trials": 4} if sampler == "bayesian" else {})},
            "pruner": {"name": "median", "trials": 2},
            "objectives": [{"metric": "accuracy"}],
            "trials": trials,
            "on": executor,
        },
    }


@dataclass
class Subject:
    """A study's recipe, what its unbroken run found, and how long a life of it lasts."""

    name: str
    recipe: Path
    found: dict[str, Any]
    seconds: float


@dataclass
class Count:
    """What happened so far; `differing` must stay empty."""

    studies: int = 0
    equal: int = 0
    kills: int = 0
    inside_trials: int = 0
    ended: list[int] = field(default_factory=list)
    differing: list[Any] = field(default_factory=list)

    def sentence(self) -> str:
        """The result in one line."""
        return f"{self.equal} of {self.studies} killed studies equal; {self.kills} kills, {self.inside_trials} of them with a trial begun"


def findings(folder: Path, out: str) -> dict[str, Any]:
    """What two runs of a study must share, from what `danlu tune --json` printed and from the
    folder."""
    told = json.loads(out)

    def without_clocks(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: without_clocks(each) for name, each in value.items() if name not in _CLOCKS
            }
        if isinstance(value, list):
            return [without_clocks(each) for each in value]
        return value.replace(str(folder), "STUDY") if isinstance(value, str) else value

    recipe = [
        line
        for line in (folder / "best.yaml").read_text("utf-8").splitlines()
        if not line.startswith("#")
    ]
    artifact = folder / "trials" / f"{told['best']['number']:04d}" / "artifact"
    hashes = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(artifact.glob("*"))
    }
    kept = sorted(
        str(path.relative_to(folder))
        for path in folder.glob("trials/*/*/")
        if path.name in ("artifact", "checkpoints")
    )
    return without_clocks({"told": told, "recipe": recipe, "artifact": hashes, "kept": kept})


def differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two findings differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            line
            for name in {*one, *other}
            for line in differing(one.get(name), other.get(name), f"{path}.{name}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            line
            for place, pair in enumerate(zip(one, other))
            for line in differing(*pair, f"{path}.{place}")
        ]
    return [] if one == other else [f"{path}: {str(one)[:200]} -> {str(other)[:200]}"]


def unbroken(name: str, home: Path, found: Lives, about: dict[str, Any]) -> Subject:
    """Run a study never killed, twice: what it finds, and how long a life lasts."""
    home.mkdir(parents=True, exist_ok=True)
    recipe = write_recipe(home / f"{name}.json", about)
    first = found.run("tune", recipe, "--study", home / f"{name}-unbroken", "--json", seconds=300)
    began = time.monotonic()
    again = found.run("tune", recipe, "--study", home / f"{name}-again", "--json", seconds=300)
    seconds = time.monotonic() - began
    finds = findings(home / f"{name}-unbroken", first.out)
    if differs := differing(finds, findings(home / f"{name}-again", again.out)):
        raise SystemExit(
            f"{name}: two unbroken studies differ in {'; '.join(differs)}: there is nothing to prove"
        )
    return Subject(name, recipe, finds, seconds)


def strike(life: Life, moment: float) -> bool:
    """Kill a life at a moment; False where it ended before."""
    while life.poll() is None and time.monotonic() < moment:
        time.sleep(0.001)
    if life.poll() is not None:
        return False
    life.send(signal.SIGKILL)
    return life.wait() == -signal.SIGKILL


def killed_study(
    subject: Subject,
    folder: Path,
    draw: random.Random,
    start: Callable[..., Life],
    count: Count,
    limit: float = 300.0,
) -> None:
    """One study: killed at least once, brought to its end by the same command, compared."""
    deaths, wished = 0, draw.choice((1, 1, 2, 3))
    while True:
        life = start("tune", subject.recipe, "--study", folder, "--json")
        if deaths == wished:
            break
        if not strike(life, time.monotonic() + subject.seconds * draw.random()):
            if life.wait() != 0 or deaths:
                break  # it outran its last killer, or something is wrong
            shutil.rmtree(folder)
            continue
        deaths += 1
        count.kills += 1
        count.inside_trials += any(folder.glob("trials/*")) or (folder / "study.sqlite").exists()
    code = life.wait(limit)
    count.studies += 1
    differs = (
        [f"exit code {code}: {life.err}"]
        if code
        else differing(subject.found, findings(folder, life.out))
    )
    if "Traceback" in life.err:
        differs.append(f"a traceback: {life.err}")
    if not code:
        states = json.loads(life.out)["states"]
        count.ended.append(sum(states[each] for each in ("complete", "pruned", "failed")))
        differs += ["trials are left running"] if states["running"] else []
    if differs:
        count.differing.append([str(folder), differs])
    else:
        count.equal += 1
        shutil.rmtree(folder)


def main() -> int:
    """The full proof; exit code 0 where every study is equal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "--kills",
        type=int,
        default=50,
        help="how many studies are killed for each executor (one to three times)",
    )
    parser.add_argument("--executors", nargs="+", choices=EXECUTORS, default=list(EXECUTORS))
    parser.add_argument("--sampler", default="bayesian")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where the studies lie; those that differ are kept there"
    )
    wish = parser.parse_args()
    home = wish.folder or Path(tempfile.mkdtemp(prefix="danlu-study-kills-"))
    draw, began, failed = random.Random(wish.seed), time.monotonic(), False
    with lives(home / "lives") as found:
        for executor in wish.executors:
            count = Count()
            subject = unbroken(executor, home, found, study(executor, wish.sampler, wish.trials))
            states = [each["state"] for each in subject.found["told"]["trials"]]
            print(
                f"{executor}: {', '.join(f'{states.count(each)} {each}' for each in sorted(set(states)))}",
                flush=True,
            )
            while count.studies < wish.kills:
                killed_study(subject, home / f"{executor}-{count.studies}", draw, found.fork, count)
                if count.studies % 10 == 0 or count.studies == wish.kills:
                    print(
                        f"{time.monotonic() - began:7.0f} s  {executor}: {count.sentence()}",
                        flush=True,
                    )
            for folder, differs in count.differing:
                print(f"DIFFERENT {folder}: {'; '.join(differs)}")
            failed |= bool(count.differing) or set(count.ended) != {wish.trials}
            print(json.dumps({"executor": executor, **vars(count), "seed": wish.seed}))
    if not failed and wish.folder is None:
        shutil.rmtree(home)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
