"""Proof, on the user's own recipe, that a run killed anywhere ends in the same bytes as one never killed.

Both runs are real processes and every death is a real kill -9. Half of them come at a moment drawn evenly over the whole life of the process,
half are aimed: they come when a checkpoint is being written. A run that ends before its next death is compared, and another one begun.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from danlu import recipe as recipes
from danlu import shelf
from danlu.errors import DanluError
from danlu.permission import code_is_allowed

_GLANCE = 0.0005  # seconds between two looks at a life


@dataclass(frozen=True)
class Verdict:
    """What the proof found.

    `kills` counts deaths, `inside_saves` those that left a half-written checkpoint, `runs` the killed runs brought to their end and
    compared. `hashes` holds the SHA-256 of every compared file of the unbroken run: artifact, metric log, lock file, final checkpoint.
    `differing` names the files of killed runs that differ.
    """

    kills: int
    inside_saves: int
    runs: int
    hashes: dict[str, str]
    differing: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether every compared file of every run is the same to the last bit."""
        return not self.differing

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"equal": self.equal, **asdict(self)}

    def sentence(self) -> str:
        """The verdict in words."""
        runs = "run" if self.runs == 1 else f"{self.runs} runs"
        met = f"{self.kills} kill{'s' * (self.kills > 1)} (kill -9), {self.inside_saves} inside a save"
        if self.equal:
            return f"equal: after {met}, artifact, metric log and final checkpoint of the {runs} are the bytes of the unbroken run."
        return f"DIFFERENT after {met}: {', '.join(self.differing)}."


def verify_resume(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    kills: int = 5,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
    folder: Path | None = None,
) -> Verdict:
    """Train once unbroken, then with `kills` kill -9, each time started again by the same command; compare the bytes.

    The runs lie in a temporary folder (or in `folder`, an empty one, which is kept); what they say is not shown. `say` hears of each
    death. Raises DanluError where the recipe does not train.
    """
    recipes.read(recipe, shelf, overrides)
    with _home(folder) as home:
        command = [sys.executable, "-m", "danlu", "train", str(recipe), *overrides, "--quiet"]
        command += ["--allow-code"] if code_is_allowed() else []
        began = time.monotonic()
        with _life([*command, "--run", str(home / "unbroken")], home) as process:
            if process.wait() != 0:
                raise DanluError(f"the recipe does not train, so there is nothing to prove: {_said(home)}", where=str(recipe))
        lasted = time.monotonic() - began
        say(f"the unbroken run took {lasted:.1f} s")
        wanted = fingerprint(home / "unbroken")
        return _kill_and_compare(command, home, wanted, lasted, kills, random.Random(seed), say)


def _kill_and_compare(
    command: Sequence[str],
    home: Path,
    wanted: dict[str, str],
    lasted: float,
    kills: int,
    draw: random.Random,
    say: Callable[[str], None],
) -> Verdict:
    run, deaths, inside, runs, missed = home / "killed", 0, 0, 0, 0
    differing: list[str] = []
    while not differing and (deaths < kills or run.exists()):
        # a save can be too quick to be seen; after some misses the moment is drawn
        aimed = deaths % 2 == 1 and missed < 3
        already = _half_written(run)
        with _life([*command, "--run", str(run)], home) as process:
            if deaths < kills and _strike(process, run, already, lasted * draw.random(), draw.randrange(1, 4) if aimed else 0):
                deaths, missed = deaths + 1, 0
                hit = bool(_half_written(run) - already)
                inside += hit
                say(f"kill {deaths} of {kills}{' (inside a save)' if hit else ''}")
                continue
            code = process.wait()
        if code != 0:
            differing.append(f"the same command ended with exit code {code} ({_said(home)})")
            break
        if deaths < kills:
            missed += 1
        got = fingerprint(run)
        differing += sorted(name for name in {*wanted, *got} if wanted.get(name) != got.get(name))
        runs += 1
        if not differing:
            shutil.rmtree(run)
    return Verdict(deaths, inside, runs, wanted, differing)


def fingerprint(run: Path) -> dict[str, str]:
    """SHA-256 of every file that a run must repeat, by name: artifact, metric log, lock file, final checkpoint."""
    steps = sorted((run / "checkpoints").glob("step-" + 10 * "[0-9]"))
    files = [
        run / "metrics.jsonl",
        run / "recipe.lock.yaml",
        *(run / "artifact").glob("*"),
        *(steps[-1].glob("*") if steps else ()),
    ]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files) if path.is_file()}


def _strike(process: subprocess.Popen[bytes], run: Path, already: set[str], delay: float, sightings: int) -> bool:
    """Kill after `delay` seconds or (sightings > 0) when that many saves have been seen; False where the process ended by itself."""
    moment, seen = time.monotonic() + delay, set[str]()
    while process.poll() is None:
        if sightings:
            seen |= _half_written(run) - already
        if len(seen) >= sightings if sightings else time.monotonic() >= moment:
            process.kill()
            return process.wait() != 0  # it may have ended between the look and the blow
        time.sleep(_GLANCE)
    return False


def _half_written(run: Path) -> set[str]:
    """Names of the checkpoints that are being written, or were when their writer died; each has a name of its own."""
    with contextlib.suppress(FileNotFoundError):
        return {path.name for path in (run / "checkpoints").iterdir() if path.match(".step-*.writing")}
    return set()


@contextlib.contextmanager
def _home(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DanluError("the folder for the proof is not empty.", where=str(folder), hint="name a new one")
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="danlu-verify-") as temporary:
        yield Path(temporary)


@contextlib.contextmanager
def _life(command: Sequence[str], home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not outlive the `with`, whatever ends it."""
    with (
        (home / "said").open("wb") as said,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _said(home: Path) -> str:
    """The last words of the last life, on one line."""
    return " ".join((home / "said").read_text("utf-8", "replace").split())[-500:] or "it said nothing"
