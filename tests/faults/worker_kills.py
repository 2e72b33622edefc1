"""Kill -9 the workers of a study at random moments: python tests/faults/worker_kills.py --kills 50

A study (random search in two worker processes) runs once without a kill. Then it runs again and
again while its workers are killed, and now and then the process that workers are forked from, or
the process of the study itself. The latter is started again with the same command as soon as all
processes that it had started have ended. Each study must end with exactly its trials, none running,
failed or duplicated. Values, score, curve and steps of every trial, and so the best trial, must be
those of the study without a kill.

What a trial is allowed to lose is bounded: it is failed when its worker is lost three times in a
row without a new checkpoint. So no trial is struck a third time before it has saved again."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hard_recipes import RECIPES
from lives import Life, Lives, lives, write_recipe

from danlu.search.executors.scheduler import MAX_LOSSES, newest_checkpoint

WORKERS = 2
MOST = 12  # kills of one study


@dataclass
class Count:
    """What happened so far. `differing` must stay empty."""

    studies: int = 0
    equal: int = 0
    killed: dict[str, int] = field(
        default_factory=lambda: {"worker": 0, "fork_server": 0, "study": 0}
    )
    orphans: int = 0
    differing: list[Any] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Kills of every kind."""
        return sum(self.killed.values())

    def sentence(self) -> str:
        """The result in one line."""
        return (
            f"{self.equal} of {self.studies} studies equal; killed: {self.killed['worker']} workers, {self.killed['fork_server']} times what "
            f"they are forked from, {self.killed['study']} times the study itself ({self.orphans} orphans left)"
        )


def recipe_of(home: Path, trials: int = 8, steps: int = 120, **tune: Any) -> Path:
    """A search over the hard tabular recipe: two options, every trial about a second."""
    home.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES["tabular"](home)
    recipe["train"] |= {"evaluate_every": 10, "save_every": 2, "steps": steps}
    recipe["tune"] = {
        "space": {"optimizer.learning_rate": {"low": 1e-4, "high": 0.1, "log": True}, "model.dropout": {"low": 0.0, "high": 0.5}},
        "trials": trials, "sampler": "random", "on": "processes", "workers": WORKERS, **tune,
    }  # fmt: skip
    return write_recipe(home / "search.json", recipe)


def outcome(told: str) -> dict[str, Any]:
    """What `danlu tune --json` says of a study, without what a clock has a part in."""
    found = json.loads(told)
    trials = [
        {
            **{
                name: trial[name]
                for name in ("number", "values", "state", "scores", "curve", "cause")
            },
            "steps": trial["steps"],
        }
        for trial in found["trials"]
    ]
    return {
        "states": found["states"],
        "best": found["best"] and found["best"]["number"],
        "trials": trials,
    }


def unbroken(recipe: Path, study: Path, found: Lives) -> dict[str, Any]:
    """The study's outcome when nobody kills anything."""
    return outcome(found.run("tune", recipe, "--study", study, "--json").out)


# --- who is there


def children(process: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            found += [int(each) for each in (task / "children").read_text().split()]
    return [each for each in found if alive(each)]


def alive(process: int) -> bool:
    """Whether a process runs (a dead one that nobody has buried does not)."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def trial_of(worker: int) -> Path | None:
    """The folder of the trial that a worker trains; None where it has not begun."""
    try:
        printed = Path(f"/proc/{worker}/fd/1").readlink()
    except OSError:
        return None
    return printed.parent if printed.name == "worker.log" else None


class Strikes:
    """How often each trial was struck since its last checkpoint."""

    def __init__(self) -> None:
        self.since: dict[Path, tuple[int, int]] = {}

    def permits(self, trial: Path) -> bool:
        """Whether it may lose another worker now."""
        times, step = self.since.get(trial, (0, -1))
        return times < MAX_LOSSES - 1 or newest_checkpoint(trial) > step

    def note(self, trial: Path) -> None:
        """It lost one."""
        times, step = self.since.get(trial, (0, -1))
        now = newest_checkpoint(trial)
        self.since[trial] = (1 if now > step else times + 1, now)


# --- a study under fire


def strike(life: Life, what: str, draw: random.Random, strikes: Strikes, count: Count) -> bool:
    """Kill a "worker" of a running study, what they are forked from ("fork_server"), or the "study"
    itself; False where it is no time for it."""
    fork_server = next(iter(children(life.pid)), None)
    if fork_server is None:
        return False
    with stopped(fork_server):  # so that no worker starts meanwhile
        workers = {each: trial_of(each) for each in children(fork_server)}
        hit = {
            each: trial
            for each, trial in workers.items()
            if trial is not None and strikes.permits(trial)
        }
        if not hit or (
            what == "fork_server" and len(hit) < WORKERS
        ):  # else one that is just beginning would be struck unseen
            return False
        if what == "study":
            os.kill(life.pid, signal.SIGKILL)
            life.wait()
            _left([fork_server, *workers], count)
        else:
            struck = hit if what == "fork_server" else dict([draw.choice(sorted(hit.items()))])
            for worker, trial in struck.items():
                os.kill(
                    worker, signal.SIGSTOP
                )  # so that the checkpoints are looked at as they are when it dies
                strikes.note(trial)
            os.kill(fork_server if what == "fork_server" else next(iter(struck)), signal.SIGKILL)
    count.killed[what] += 1
    return True


@contextlib.contextmanager
def stopped(process: int) -> Iterator[None]:
    """A process that does nothing for a moment."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def _left(family: list[int], count: Count) -> None:
    """Wait for what a killed study started; those that have not ended after some seconds are
    orphans."""
    end = time.monotonic() + 10
    while any(map(alive, family)) and time.monotonic() < end:
        time.sleep(0.01)
    count.orphans += sum(map(alive, family))


def killed_study(
    recipe: Path,
    study: Path,
    expected: dict[str, Any],
    whats: Sequence[str],
    draw: random.Random,
    found: Lives,
    count: Count,
) -> None:
    """One study, killed as `whats` says (see `strike`) while it runs; compared."""
    strikes, end, left = Strikes(), time.monotonic() + 600, list(whats)
    life = found.fork("tune", recipe, "--study", study, "--json")
    while life.poll() is None or life.code == -signal.SIGKILL:
        if life.code is not None:
            life = found.fork("tune", recipe, "--study", study, "--json")
        if time.monotonic() > end:
            life.send(signal.SIGKILL)
            raise TimeoutError(f"{study} does not end: {life.err}")
        time.sleep(draw.uniform(0.02, 0.6))
        if left and life.poll() is None and strike(life, left[0], draw, strikes, count):
            del left[0]
    count.studies += 1
    differs = []
    if life.code != 0 or "Traceback" in life.err:
        differs.append(f"exit code {life.code}: {life.err}")
    elif (told := outcome(life.out)) != expected:
        differs += [
            f"{one} instead of {other}"
            for one, other in zip(told["trials"], expected["trials"])
            if one != other
        ]
        differs.append(f"{told['states']}, best {told['best']} instead of {expected['best']}")
    if count.orphans:
        differs.append(f"{count.orphans} orphans")
    if differs:
        count.differing.append([str(study), differs])
    else:
        count.equal += 1
        shutil.rmtree(study)


def main() -> int:
    """The full proof; exit code 0 where every study is equal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where the studies lie; those that differ are kept there"
    )
    wish = parser.parse_args()
    home = wish.folder or Path(tempfile.mkdtemp(prefix="danlu-worker-kills-"))
    draw, count, began = random.Random(wish.seed), Count(), time.monotonic()
    with lives(home / "lives") as found:
        recipe = recipe_of(home)
        expected = unbroken(recipe, home / "unbroken", found)
        while count.kills < wish.kills and not count.differing:
            whats = draw.choices(
                ("worker", "fork_server", "study"), (8, 1, 1), k=min(MOST, wish.kills - count.kills)
            )
            killed_study(
                recipe, home / f"study-{count.studies}", expected, whats, draw, found, count
            )
            print(f"{time.monotonic() - began:7.0f} s  {count.sentence()}", flush=True)
    for study, differs in count.differing:
        print(f"DIFFERENT {study}: {'; '.join(differs)}")
    print(
        json.dumps(
            {
                **vars(count),
                "kills": count.kills,
                "seconds": round(time.monotonic() - began),
                "seed": wish.seed,
            }
        )
    )
    if not count.differing and wish.folder is None:
        shutil.rmtree(home)
    return 1 if count.differing else 0


if __name__ == "__main__":
    sys.exit(main())
