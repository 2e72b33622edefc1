"""Kill -9 at random moments, many times, and compare the bytes: python tests/faults/kills.py --kills 100

Each of the hard recipes (hard_recipes.py), or with --families one recipe of every family
(family_recipes.py), is trained once without a kill, in a fresh process. Then it is trained again
and again: killed one to three times, and started again with the same command until it ends. A run
counts as equal if every file of the artifact, metrics.jsonl, the lock file and the final checkpoint
have the SHA-256 of the run without a kill. Nothing is repaired between a kill and the next start.

The moments of the kills are drawn with a seed: anywhere between the first instruction and the end
of the process, or while a checkpoint (up to 3 ms after its hidden folder appears) or the artifact
is written. The folder shows afterwards whether the kill hit that moment."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from family_recipes import FAMILIES
from hard_recipes import RECIPES
from lives import Life, Lives, differing, fingerprint, lives, write_recipe, writing

ALL = RECIPES | FAMILIES


@dataclass
class Subject:
    """A recipe, the hashes of its unbroken run, and how long a life of it lasts."""

    name: str
    recipe: Path
    hashes: dict[str, str]
    seconds: float


@dataclass
class Count:
    """What happened so far. `differing` holds (run, files) of each run that is not equal; it must
    stay empty."""

    runs: int = 0
    equal: int = 0
    kills: int = 0
    inside_saves: int = 0
    inside_removals: int = 0
    inside_artifact: int = 0
    before_first_checkpoint: int = 0
    fresh: int = 0
    differing: list[Any] = field(default_factory=list)

    def sentence(self) -> str:
        """The result in one line."""
        return (
            f"{self.equal} of {self.runs} killed runs equal; {self.kills} kills: {self.inside_saves} inside a save, "
            f"{self.inside_removals} inside a removal, {self.inside_artifact} inside the writing of the artifact, "
            f"{self.before_first_checkpoint} before the first checkpoint; {self.fresh} of them in fresh interpreters"
        )


def unbroken(name: str, home: Path, found: Lives, fresh: bool = True) -> Subject:
    """Train a hard recipe in a process never killed; once more, forked, to learn how long a life
    lasts."""
    home.mkdir(parents=True, exist_ok=True)
    recipe = write_recipe(home / f"{name}.json", ALL[name](home))
    life = found.fresh("train", recipe, "--run", home / f"{name}-unbroken") if fresh else None
    if life is not None and life.wait(300) != 0:
        raise SystemExit(f"{name} does not train: {life.err}")
    hashes = fingerprint(home / f"{name}-unbroken") if fresh else {}
    began = time.monotonic()
    found.run("train", recipe, "--run", home / f"{name}-again")
    seconds = time.monotonic() - began
    again = fingerprint(home / f"{name}-again")
    if fresh and (differs := differing(hashes, again)):
        raise SystemExit(
            f"{name}: two unbroken runs differ in {', '.join(differs)}: there is nothing to prove"
        )
    return Subject(name, recipe, again, seconds)


def strike(life: Life, run: Path, draw: random.Random, aim: str, seconds: float) -> set[str] | None:
    """Kill a life; the names of what it left half-written. None where it ended before its moment
    came."""
    already = writing(run)
    moment = time.monotonic() + seconds * draw.random()
    sightings, delay, seen = draw.randrange(1, 16), 0.003 * draw.random() ** 2, set[str]()
    while life.poll() is None:
        if aim == "anywhere":
            if time.monotonic() >= moment:
                break
            time.sleep(0.001)
        else:
            wanted = ".artifact" if aim == "artifact" else ".step"
            seen |= {name for name in writing(run) - already if name.startswith(wanted)}
            if len(seen) >= (1 if aim == "artifact" else sightings):
                time.sleep(delay)
                break
            time.sleep(0.0002)
    if life.poll() is not None:
        return None
    life.send(signal.SIGKILL)
    if life.wait() != -signal.SIGKILL:
        return None
    return writing(run) - already


def killed_run(
    subject: Subject, run: Path, draw: random.Random, found: Lives, count: Count, fresh: float
) -> None:
    """One run: killed at least once, brought to its end by the same command, compared."""
    deaths, wished = 0, draw.choice((1, 1, 2, 3))
    while True:
        is_fresh = draw.random() < fresh
        life = (found.fresh if is_fresh else found.fork)("train", subject.recipe, "--run", run)
        if deaths == wished:
            break
        left = strike(
            life,
            run,
            draw,
            draw.choice(("anywhere", "save", "save", "artifact")),
            subject.seconds + 4 * is_fresh,
        )
        if left is None:
            if life.wait() != 0:
                break
            if deaths:
                break  # it outran its last killer
            shutil.rmtree(run)
            continue
        deaths += 1
        count.kills += 1
        count.fresh += is_fresh
        count.inside_saves += any(
            name.startswith(".step") and name.endswith(".writing") for name in left
        )
        count.inside_removals += any(name.endswith(".old") for name in left)
        count.inside_artifact += any(name.startswith(".artifact") for name in left)
        count.before_first_checkpoint += not any((run / "checkpoints").glob("step-*[0-9]"))
    code = life.wait(300)
    count.runs += 1
    differs = (
        differing(subject.hashes, fingerprint(run))
        if code == 0
        else [f"exit code {code}: {life.err}"]
    )
    if "Traceback" in life.err:
        differs.append(f"a traceback: {life.err}")
    if differs:
        count.differing.append([str(run), differs])
    else:
        count.equal += 1
        shutil.rmtree(run)


def main() -> int:
    """The full proof; exit code 0 where every run is equal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument(
        "--kills", type=int, default=100, help="how many runs are killed (each one to three times)"
    )
    parser.add_argument(
        "--recipes", nargs="+", choices=ALL, help="which; all hard ones where nothing is said"
    )
    parser.add_argument(
        "--families", action="store_true", help="the recipes of all families instead"
    )
    parser.add_argument(
        "--fresh",
        type=float,
        default=0.2,
        help="share of lives in fresh interpreters; the others are forked",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where the runs lie; runs that differ are kept there"
    )
    wish = parser.parse_args()
    home = wish.folder or Path(tempfile.mkdtemp(prefix="danlu-kills-"))
    draw, count, began = random.Random(wish.seed), Count(), time.monotonic()
    with lives(home / "lives") as found:
        names = wish.recipes or list(FAMILIES if wish.families else RECIPES)
        subjects = [unbroken(name, home, found) for name in names]
        while count.runs < wish.kills:
            subject = subjects[count.runs % len(subjects)]
            killed_run(
                subject, home / f"{subject.name}-{count.runs}", draw, found, count, wish.fresh
            )
            if count.runs % 10 == 0 or count.runs == wish.kills:
                print(f"{time.monotonic() - began:7.0f} s  {count.sentence()}", flush=True)
    for run, differs in count.differing:
        print(f"DIFFERENT {run}: {'; '.join(differs)}")
    print(
        json.dumps(
            {
                **vars(count),
                "seconds": round(time.monotonic() - began),
                "recipes": names,
                "seed": wish.seed,
            }
        )
    )
    if not count.differing and wish.folder is None:
        shutil.rmtree(home)
    return 1 if count.differing else 0


if __name__ == "__main__":
    sys.exit(main())
