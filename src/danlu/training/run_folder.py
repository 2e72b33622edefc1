"""The folder of one run: which recipe it belongs to, its lock, and whether the run is finished.

RUN/recipe.lock.yaml    the recipe with every default, and what was resolved: device, precision,
                        threads, versions, data hash
RUN/environment.json    system and installed packages
RUN/metrics.jsonl       RUN/timings.jsonl   RUN/events*   RUN/checkpoints/   RUN/artifact/
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NotRequired, TypedDict, cast

from danlu.data.cache import PATH_OPTIONS
from danlu.errors import DanluError, RecipeError, RunError, RunHeld
from danlu.recipe import FineTune, Recipe, as_plain, differences, read_yaml, write_yaml
from danlu.system import machine
from danlu.system.atomic_files import make_folder, remove_leftovers, replace_file, sha256
from danlu.system.own_folder import claim_folder

LOCK = "recipe.lock.yaml"
# what a training writes, besides event files, whose names are always new
NAMES = (
    "environment.json",
    "metrics.jsonl",
    "timings.jsonl",
    "checkpoints",
    "artifact",
    "samples",
)
_HELD = ".held"  # locked while a process trains in the folder; marks it as danlu's
_SEAL = "# SHA-256 of all above: "


class DataRecord(TypedDict):
    """The data of a run: its origin, SHA-256, rows by split, kinds by column, decimal mark."""

    origin: str
    digest: str
    rows: dict[str, int]
    kinds: dict[str, str]
    decimal: str


class RunRecord(TypedDict):
    """What was decided for a run: the section `resolved` of its lock file.

    weights   SHA-256 of the pretrained weights that the model started from
    fold      [k, folds] in a cross-validation
    """

    placement: dict[str, str | int | bool]
    steps_per_epoch: int
    total_steps: int
    report_every: int
    evaluate_every: int
    save_every: int
    batch_size: int
    parameters: int
    data: DataRecord
    versions: dict[str, str]
    weights: NotRequired[str]
    fold: NotRequired[list[int] | None]


class RunFolder:
    """A run folder, locked by this process inside the `with`. `names` are those that are written.

    Raises RunHeld where another process has the lock; RunError where a name is a link, or belongs
    to something that danlu did not write, and where the folder cannot be written."""

    def __init__(self, path: Path, names: Sequence[str] = NAMES) -> None:
        self.path = path
        self.names = names
        self._lock_file: int | None = None

    def __enter__(self) -> RunFolder:
        try:
            make_folder(self.path)
            was_ours = self.is_ours
            claim_folder(
                self.path, (_HELD, LOCK), is_ours=True, option="--run"
            )  # the lock file says itself whose it is
            claim_folder(self.path, self.names, is_ours=was_ours, option="--run")
            descriptor = os.open(
                self.path / _HELD,
                # Windows has neither
                os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0),
                0o644,
            )
        except OSError as error:
            raise RunError(
                f"the run folder cannot be written: {error.strerror or error}.",
                where=str(self.path),
                hint="choose another --run folder",
            ) from None
        try:
            import fcntl

            fcntl.flock(
                descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB
            )  # the system releases it however the process ends
        except ImportError:  # Windows
            pass
        except OSError:
            os.close(descriptor)
            raise RunHeld(
                "another process is training in this run folder.",
                where=str(self.path),
                hint="wait for it, or choose another --run folder",
            ) from None
        self._lock_file = descriptor
        if was_ours:
            remove_leftovers(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    @property
    def is_ours(self) -> bool:
        """Whether danlu has written to the folder before."""
        held = self.path / _HELD
        return self.started or (
            held.is_file() and not held.is_symlink() and held.stat().st_size == 0
        )

    @property
    def finished(self) -> bool:
        """Whether the folder has an artifact."""
        return (self.path / "artifact" / "artifact.json").is_file()

    @property
    def started(self) -> bool:
        """Whether the folder has a lock file, which says what recipe it belongs to."""
        return (self.path / LOCK).is_file()

    def resolved(self) -> RunRecord | None:
        """The section `resolved` of the lock file, None for a new folder. Raises RunError where it
        cannot be read."""
        return self._read().get("resolved") or None if self.started else None

    def _read(self) -> dict[str, Any]:
        path = self.path / LOCK
        try:
            text, _, checksum = path.read_text("utf-8").rpartition(_SEAL)
            if checksum != sha256(text.encode()) + "\n":
                raise ValueError("it was cut or edited: its checksum does not match")
            return read_yaml(text, LOCK)[0]
        except (OSError, ValueError, RecipeError) as error:
            reason = (
                error.strerror
                if isinstance(error, OSError)
                else "it is not UTF-8"
                if isinstance(error, UnicodeError)
                else error
            )
            raise RunError(
                f"the lock file cannot be used: {reason}.",
                where=str(path),
                hint="restore it, or start in another --run folder",
            ) from None

    def refuse_another(self, recipe: Recipe) -> None:
        """Raise RunError, which names the differences, where this folder belongs to another
        recipe."""
        if not self.started:
            # a run that ended before its first step leaves an empty checkpoints folder
            if (self.path / "artifact").exists() or any(self.path.glob("checkpoints/step-*")):
                raise RunError(
                    "this folder holds checkpoints or an artifact without a lock file.",
                    where=str(self.path),
                    hint="choose another --run folder",
                )
            return
        self._refuse_foreign_artifact()
        recorded, now = self._read(), recipe.as_dict()
        recorded.pop("resolved")
        if (
            recorded["train"]["on_nan"] == "stop"
        ):  # nothing was left out so far, so any policy may take over from here
            recorded["train"]["on_nan"] = now["train"]["on_nan"]
        changed = differences(comparable(recorded), comparable(now))
        if changed:
            shown = "\n  ".join(changed[:20]) + (
                f"\n  and {len(changed) - 20} more" if len(changed) > 20 else ""
            )
            raise RunError(
                "this run folder belongs to another recipe. What differs (folder -> now):\n"
                f"  {shown}",
                where=str(self.path),
                hint="choose another --run folder, or remove this one to start over",
            )

    def _refuse_foreign_artifact(self) -> None:
        path = self.path / "artifact"
        if not self.finished and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
            raise RunError(
                "this run has not finished, so danlu did not write this, and would replace it.",
                where=str(path),
                hint="move it away",
            )

    def refuse_other_data(self, digest: str, origin: str) -> None:
        """Raise RunError where the data changed since this run began."""
        recorded = self.resolved()
        if recorded is not None and recorded["data"]["digest"] != digest:
            raise RunError(
                f"{origin} has changed since this run began, so resuming would mix two data sets.",
                where=str(self.path),
                hint="choose another --run folder, or restore the data",
            )

    def refuse_other_weights(self, digest: str, path: str) -> None:
        """Raise RunError where the pretrained weights are others than when this run began."""
        recorded = self.resolved()
        if self.started and (recorded is None or recorded.get("weights") != digest):
            raise RunError(
                f"model.weights ({path}) holds other weights than when this run began.",
                where=str(self.path),
                hint="choose another --run folder, or restore that artifact",
            )

    def write_lock(self, recipe: Recipe, resolved: RunRecord) -> str:
        """Write environment.json once, and the lock file where it differs; returns its text."""
        path = self.path / LOCK
        text = write_yaml({**recipe.as_dict(), "resolved": resolved})
        text += f"{_SEAL}{sha256(text.encode())}\n"
        if not self.started:
            replace_file(
                self.path / "environment.json", json.dumps(machine.environment(), indent=1).encode()
            )
        if not self.started or path.read_text("utf-8") != text:
            replace_file(path, text.encode())
        return text


def comparable(tree: Mapping[str, object]) -> dict[str, object]:
    """A recipe without what may change between two starts of one run: the paths of its data and
    weights (their content is hashed), watchers, name, and how many checkpoints are kept."""
    copy = json.loads(json.dumps(tree))
    source = copy.get("data", {}).get("source", {})
    for key in PATH_OPTIONS:
        source.pop(key, None)
    copy.get("data", {}).pop("cache", None)
    copy.get("model", {}).pop("weights", None)  # what it holds is hashed
    copy.get("model", {}).pop("path", None)
    if copy.get("finetune") == as_plain(FineTune()):
        copy.pop("finetune")  # runs begun before the section was there say nothing
    copy.pop("watchers", None)
    copy.pop("name", None)
    copy.get("train", {}).pop("keep", None)
    return copy


def run_id(recipe: Recipe, resolved: RunRecord) -> str:
    """SHA-256 of recipe, data and placement: it identifies a run in its checkpoints."""
    compared = comparable(recipe.as_dict())
    train = cast("dict[str, object]", compared["train"])  # a section of a recipe is a mapping
    whole = {
        "recipe": {
            **compared,
            "train": {name: value for name, value in train.items() if name != "on_nan"},
        },
        "data": resolved["data"]["digest"],
        "placement": resolved["placement"],
        "fold": resolved.get("fold"),
        **({"weights": resolved["weights"]} if "weights" in resolved else {}),
    }
    return sha256(json.dumps(whole, sort_keys=True).encode())


@contextmanager
def disk_errors_as(folder: Path, error: type[DanluError]) -> Generator[None]:
    """Inside the `with`, an OSError while files are written becomes a DanluError of class
    `error`."""
    try:
        yield
    except OSError as os_error:
        raise error(
            f"a file could not be written: {os_error.strerror or os_error}.",
            where=str(os_error.filename or folder),
            hint="free some space and run the same command again: "
            "it resumes from the last checkpoint",
        ) from None
