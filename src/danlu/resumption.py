"""Proof, on the user's own recipe, that a run killed anywhere ends in the same bytes as one never killed."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from danlu import recipe as recipes
from danlu import shelf
from danlu.errors import DanluError

COMPARED = ("artifact/weights.safetensors", "artifact/preprocessing.safetensors", "metrics.jsonl")


@dataclass(frozen=True)
class Verdict:
    """What the proof found. `inside_saves` counts kills while a checkpoint was being written; `differing` names files that differ."""

    kills: int
    inside_saves: int
    hashes: dict[str, str]
    differing: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether every compared file is the same to the last bit."""
        return not self.differing

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"equal": self.equal, **asdict(self)}

    def sentence(self) -> str:
        """The verdict in words."""
        met = f"{self.kills} kills (kill -9), {self.inside_saves} of them inside a save"
        if self.equal:
            return f"equal: after {met}, weights, preprocessing and metric log are the bytes of the unbroken run."
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
    """Train once unbroken and once with `kills` kill -9 at random moments (half of them aimed inside a save); compare the bytes.

    Both runs are real processes in a temporary folder (or `folder`, which is kept). Raises DanluError where the recipe does not train.
    """
    recipes.read(recipe, shelf, overrides)
    with tempfile.TemporaryDirectory(prefix="danlu-verify-") as temporary:
        home = folder or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        _finish(recipe, overrides, home / "unbroken")
        lasted = time.monotonic() - began
        say(f"the unbroken run took {lasted:.1f} s")
        draw = random.Random(seed)
        done = inside = 0
        startup = min(lasted * 0.5, 2.0)
        while done < kills:
            process = _start(recipe, overrides, home / "killed")
            hit = _kill(process, home / "killed", draw, startup, max(lasted - startup, 0.05), aim=done % 2 == 1)
            if hit is None:  # it had finished before its moment came: the next life starts over, so that every kill meets a living run
                if done + 1 < kills:
                    say(f"kill {done + 1}: the run ended first; starting it over")
                _clear_finished(home / "killed")
                if lasted < startup + 0.1:
                    startup *= 0.7
                continue
            done, inside = done + 1, inside + hit
            say(f"kill {done} of {kills}{' (inside a save)' if hit else ''}")
        _finish(recipe, overrides, home / "killed")
        hashes = {name: _hash(home / "unbroken" / name) for name in COMPARED}
        differing = [name for name in COMPARED if _hash(home / "killed" / name) != hashes[name]]
        return Verdict(done, inside, hashes, differing)


def _command(recipe: str | Path, overrides: Sequence[str], run: Path) -> list[str]:
    return [sys.executable, "-m", "danlu", "train", str(recipe), *overrides, "--run", str(run), "--quiet"]


def _start(recipe: str | Path, overrides: Sequence[str], run: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(_command(recipe, overrides, run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _finish(recipe: str | Path, overrides: Sequence[str], run: Path) -> None:
    ended = subprocess.run(_command(recipe, overrides, run), capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise DanluError(f"the run ended with exit code {ended.returncode}: {ended.stderr.strip()}", where=str(recipe))


def _kill(process: subprocess.Popen[bytes], run: Path, draw: random.Random, startup: float, span: float, aim: bool) -> bool | None:
    """Kill at a drawn moment, or (aim) at the next save after it. True where a save was being written; None if it ended by itself."""
    moment = time.monotonic() + startup * draw.random() + span * draw.random()
    checkpoints = run / "checkpoints"
    while process.poll() is None:
        writing = any(checkpoints.glob(".step-*.writing")) if time.monotonic() >= moment else False
        if time.monotonic() >= moment and (writing or not aim):
            process.send_signal(signal.SIGKILL)
            process.wait()
            return any(checkpoints.glob(".step-*.writing"))
        time.sleep(0.0005 if aim else 0.002)
    return None


def _clear_finished(run: Path) -> None:
    import shutil

    shutil.rmtree(run, ignore_errors=True)


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
