"""danlu verify-resume: a test, on the user's own recipe, that a killed run ends in the same bytes
as one never killed.

Both runs are real processes, and every kill is a real kill -9. Half of the kills come at a moment
drawn uniformly over the life of the process, half while a checkpoint is being written. A run that
ends before its next kill is compared, and another one started."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from danlu import recipe as recipes
from danlu import registry
from danlu.errors import DanluError
from danlu.system.trust import code_is_allowed, remote_is_allowed

_GLANCE = 0.0005  # seconds between two looks at a life


@dataclass(frozen=True)
class Verdict:
    """The result of verify_resume.

    kills          kills in all
    inside_saves   those that left a half-written checkpoint
    runs           killed runs that ended and were compared
    hashes         SHA-256 of every compared file of the uninterrupted run, by name: artifact,
                   metric log, lock file, final checkpoint
    differing      the files of killed runs that differ
    """

    kills: int
    inside_saves: int
    runs: int
    hashes: dict[str, str]
    differing: list[str] = field(default_factory=list[str])

    @property
    def equal(self) -> bool:
        """Whether every compared file of every run is the same to the last bit."""
        return not self.differing

    def as_dict(self) -> dict[str, object]:
        """All of it as JSON values."""
        return {"equal": self.equal, **asdict(self)}

    def sentence(self) -> str:
        """The result in one sentence."""
        runs = "run" if self.runs == 1 else f"{self.runs} runs"
        met = (
            f"{self.kills} kill{'s' * (self.kills > 1)} (kill -9), "
            f"{self.inside_saves} inside a save"
        )
        if self.equal:
            return (
                f"equal: after {met}, artifact, metric log and final checkpoint of the {runs} are "
                "the bytes of the unbroken run."
            )
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
    """Train once without interruption, then with `kills` kill -9, each time resumed by the same
    command; compare the bytes.

    The runs are in a temporary folder, or in `folder`, an empty one, which is kept. Their output is
    not shown. `say` is called with a line after each kill. Raises DanluError where the recipe does
    not train.

    >>> import danlu
    >>> danlu.verify_resume("no-such-recipe.yaml")
    Traceback (most recent call last):
        ...
    danlu.errors.RecipeError: no-such-recipe.yaml: there is no such recipe.
    hint: danlu new DATA --target COLUMN writes one
    """
    recipes.read(recipe, registry, overrides)
    with _home(folder) as home:
        command = [sys.executable, "-m", "danlu", "train", str(recipe), *overrides, "--quiet"]
        command += ["--allow-code"] if code_is_allowed() else []
        command += ["--allow-remote"] if remote_is_allowed() else []
        unbroken = home / "unbroken"
        began = ready = time.monotonic()
        with _life([*command, "--run", str(unbroken)], home) as process:
            while process.poll() is None:
                if not (unbroken / "checkpoints").exists():
                    ready = time.monotonic()
                time.sleep(0.01)
        if process.returncode != 0:
            raise DanluError(
                f"the recipe does not train, so there is nothing to prove: {_last_output(home)}",
                where=str(recipe),
            )
        start, training = ready - began, time.monotonic() - ready
        say(f"the unbroken run took {start + training:.1f} s")
        killer = _Killer(
            command,
            home,
            fingerprint(unbroken),
            start,
            training,
            _last_step(unbroken),
            random.Random(seed),
            say,
        )
        return killer.verdict(kills)


@dataclass
class _Killer:
    """Starts, kills and compares. `start` and `training` are the seconds that an uninterrupted run
    takes before and after its first step."""

    command: list[str]
    home: Path
    wanted: dict[str, str]
    start: float
    training: float
    last_step: int
    draw: random.Random
    say: Callable[[str], None]
    deaths: int = 0
    inside: int = 0
    runs: int = 0
    missed: int = 0  # runs in a row that ended before their kill

    def verdict(self, kills: int) -> Verdict:
        differing: list[str] = []
        while self.deaths < kills and not differing:
            differing = self._one_run(kills)
        return Verdict(self.deaths, self.inside, self.runs, self.wanted, differing)

    def _one_run(self, kills: int) -> list[str]:
        """The files that differ in a run that is killed until it ends, or until there are enough
        kills."""
        run, before = self.home / "killed", self.deaths
        while True:
            already = _half_written(run)
            with _life([*self.command, "--run", str(run)], self.home) as process:
                if self.deaths < kills and self._strike(process, run, already):
                    self._count(kills, bool(_half_written(run) - already))
                    continue
                code = process.wait()
            if code != 0:
                return [f"the same command ended with exit code {code} ({_last_output(self.home)})"]
            self.missed += self.deaths < kills
            self.runs += self.deaths > before
            got = fingerprint(run)
            shutil.rmtree(run)
            return sorted(
                name for name in {*self.wanted, *got} if self.wanted.get(name) != got.get(name)
            )

    def _count(self, kills: int, inside: bool) -> None:
        self.deaths, self.inside, self.missed = self.deaths + 1, self.inside + inside, 0
        self.say(f"kill {self.deaths} of {kills}{' (inside a save)' if inside else ''}")

    def _strike(self, process: subprocess.Popen[bytes], run: Path, already: set[str]) -> bool:
        """Kill at a drawn moment, or after a drawn number of saves; False where the process ended
        by itself."""
        # a save can be too quick to be seen: after some misses the moment is drawn, earlier after
        # each miss
        sightings = self.draw.randrange(1, 4) if self.deaths % 2 == 1 and self.missed < 3 else 0
        left = self.start + self.training * (1 - _last_step(run) / max(self.last_step, 1))
        moment, seen = time.monotonic() + left * self.draw.random() * 0.8**self.missed, set[str]()
        while process.poll() is None:
            if sightings:
                seen |= _half_written(run) - already
            if len(seen) >= sightings if sightings else time.monotonic() >= moment:
                process.kill()
                return process.wait() != 0  # it may have ended just before the kill
            time.sleep(_GLANCE)
        return False


def fingerprint(run: Path) -> dict[str, str]:
    """SHA-256 of every file that must be the same in a resumed run, by name: artifact, metric log,
    lock file, final checkpoint."""
    last = run / "checkpoints" / f"step-{_last_step(run):010d}"
    files = [
        run / "metrics.jsonl",
        run / "recipe.lock.yaml",
        *(run / "artifact").glob("*"),
        *last.glob("*"),
    ]
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if path.is_file()
    }


def _last_step(run: Path) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    steps = sorted((run / "checkpoints").glob("step-" + 10 * "[0-9]"))
    return int(steps[-1].name.removeprefix("step-")) if steps else 0


def _half_written(run: Path) -> set[str]:
    """Names of the checkpoints that are being written, or were when their process was killed."""
    with contextlib.suppress(FileNotFoundError):
        return {
            path.name for path in (run / "checkpoints").iterdir() if path.match(".step-*.writing")
        }
    return set()


@contextlib.contextmanager
def _home(folder: Path | None) -> Generator[Path]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise DanluError(
                "the folder for the proof is not empty.", where=str(folder), hint="name a new one"
            )
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="danlu-verify-") as temporary:
        yield Path(temporary)


@contextlib.contextmanager
def _life(command: Sequence[str], home: Path) -> Generator[subprocess.Popen[bytes]]:
    """A process that is killed at the end of the `with`, if it still runs."""
    with (
        (home / "said").open("wb") as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _last_output(home: Path) -> str:
    """The end of the last process's output, on one line."""
    return (
        " ".join((home / "said").read_text("utf-8", "replace").split())[-500:]
        or "it printed nothing"
    )
