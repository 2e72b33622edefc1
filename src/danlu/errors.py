"""Every error danlu raises on purpose.

    DanluError                 exit code 2: wrong use or wrong input
    ├── RecipeError            every problem of a recipe, all at once, each with file:line
    ├── PartError              a part that does not exist or breaks its shelf's promise
    ├── DataError              a file, row or column that cannot be read as asked
    ├── PlacementError         a device, dtype or thread count this machine does not have
    ├── MissingExtra           a library that is not installed; names the extra to install
    ├── RunError               a run folder that cannot be used (other recipe, in use, unwritable, no room)
    ├── TrainingStopped        exit code 3: training stopped itself (NaN, divergence)
    ├── CheckpointError        exit code 4: no usable checkpoint
    ├── ArtifactError          exit code 4: no usable artifact
    └── Interrupted            exit code 130 or 143: a signal; the state is saved

A message says the rule, the value and where; the hint says the remedy. What is raised here is shown without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (file:line, or file row column), what rule it breaks with which value, and the remedy."""

    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\nhint: {self.hint}" if self.hint else text


class DanluError(Exception):
    """The root: something a user can cause and mend. `exit_code` is what the command line returns."""

    exit_code = 2

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        self.problem = Problem(where, message, hint)
        super().__init__(str(self.problem))


class RecipeError(DanluError):
    """A recipe that breaks one rule or several; `problems` holds all of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(first.message, where=first.where, hint=first.hint)
        self.args = ("\n".join(str(problem) for problem in self.problems),)


class PartError(DanluError):
    """A part that is on no shelf, or that breaks the promise of its shelf."""


class DataError(DanluError):
    """A file, row or column that cannot be read as asked."""


class PlacementError(DanluError):
    """A device, dtype or thread count that this machine does not have."""


class RunError(DanluError):
    """A run folder that cannot be used: another recipe's, in use by another process, not writable, or without room."""


class TrainingStopped(DanluError):
    """Training stopped itself before it could do harm (NaN, infinity, divergence)."""

    exit_code = 3


class CheckpointError(DanluError):
    """No usable checkpoint, or one that could not be written."""

    exit_code = 4


class ArtifactError(DanluError):
    """No usable artifact."""

    exit_code = 4


class Interrupted(DanluError):
    """A signal asked training to stop; the state was saved. `exit_code` is 130 (SIGINT) or 143 (SIGTERM, SIGUSR1)."""

    def __init__(self, message: str, *, exit_code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class MissingExtra(DanluError):
    """A library that is not installed."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {library}, which is not installed.", hint=f"pip install 'danlu[{extra}]'")


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names most like `name`, best first; at most `count`, none when nothing is near."""
    names = list(names)
    lowered = {candidate.lower().replace("-", "_"): candidate for candidate in reversed(names)}
    plain = name.lower().replace("-", "_").replace(" ", "_")
    if plain in lowered:
        return [lowered[plain]]
    found = [lowered[match] for match in difflib.get_close_matches(plain, lowered, n=count, cutoff=0.55)]
    if len(plain) >= 2:  # what somebody began to write: "lr" finds nothing, "classif" finds classification
        found += [candidate for key, candidate in lowered.items() if key.startswith(plain) and candidate not in found]
    return found[:count]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """'did you mean X?' for the nearest name, or ''."""
    found = nearest(name, names, 1)
    return f"did you mean {found[0]}?" if found else ""
