"""The training state on disk: atomic, checksummed, without pickle, written in the background; a
damaged one is passed over.

    checkpoints/step-0000001200/checkpoint.json      step, facts, size and SHA-256 of each file, and
                                                     a checksum of its own
    checkpoints/step-0000001200/state.safetensors    every tensor

A checkpoint is written to a hidden folder. Every file and the folder are synced, the folder is
renamed, and its parent synced: at every moment the newest folder with a name is complete. What is
read is verified bit for bit before any of it is used."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

from torch import Tensor

from danlu.errors import CheckpointError, RunError
from danlu.layers.tensors import bytes_of
from danlu.system.atomic_files import (
    atomic_folder,
    make_folder,
    read_checked,
    read_checked_json,
    remove_folder,
    remove_leftovers,
    sha256,
    staged,
    sync_folder,
    with_checksum,
    write_file,
)
from danlu.training.state import StateFacts

FORMAT = 1
_NAME = re.compile(r"step-(\d{10})")


class Checkpoints:
    """The checkpoints of one run. `notices` are sentences about damaged ones."""

    def __init__(self, folder: Path, run_id: str, keep: int) -> None:
        self.folder = folder
        self.run_id = run_id
        self.keep = keep
        self.notices: list[str] = []
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self.newest_step = -1  # of the checkpoints that this process wrote or read

    # --- before step 1

    def prepare(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise RunError, before any work is done, where the folder cannot be written or the disk
        has no room for the checkpoints."""
        try:
            make_folder(self.folder)
            remove_leftovers(self.folder)
            with staged(self.folder / "probe") as probe:
                probe.write(b"danlu")
        except OSError as error:
            raise RunError(
                f"checkpoints cannot be written: {error.strerror or error}.",
                where=str(self.folder),
                hint="choose another --run folder",
            ) from None
        bytes_on_disk = sum(
            path.stat().st_size for path in self.folder.glob("step-*/*") if path.is_file()
        )
        # the newest `keep`, the best one, and the one being written; an optimizer's state does not
        # exist yet and takes at most twice the weights
        weights = bytes_of(
            {name: tensor for name, tensor in tensors.items() if name.startswith("weights.")}
        )
        needed = (bytes_of(tensors) + 3 * weights) * (self.keep + 2) - bytes_on_disk
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise RunError(
                f"checkpoints need about {needed / 1e6:,.1f} MB, and the disk has "
                f"{free / 1e6:,.1f} MB free.",
                where=str(self.folder),
                hint="free some space, choose another --run folder, or lower train.keep",
            )

    # --- writing

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        facts: StateFacts,
        *spared: int,
        first: Callable[[], None] | None = None,
    ) -> None:
        """Copy the state and write it in the background; waits only while the previous checkpoint
        is still being written.

        Of older checkpoints the last `keep` stay, and those of the steps `spared`. `first` is
        called in the writing thread, before the checkpoint is written. A step that this process has
        just written or read is not written again: the state at a step is always the same. Raises
        CheckpointError where the previous write failed."""
        if step == self.newest_step:
            return
        self.wait()
        # The copy is the only thing the loop waits for.
        copies = {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in tensors.items()
        }
        self._writing = self._writer.submit(
            self._write, step, copies, copy.deepcopy(facts), spared, first
        )
        self.newest_step = step

    def wait(self) -> None:
        """Wait until the last checkpoint is on the disk. Raises CheckpointError where it could not
        be written."""
        if self._writing is None:
            return
        writing, self._writing = self._writing, None
        try:
            writing.result()
        except OSError as error:
            good = self.steps()
            raise CheckpointError(
                f"a checkpoint could not be written: {error.strerror or error}.",
                where=str(self.folder),
                hint="free some space and run the same command again: "
                f"it resumes at step {good[-1]:,}"
                if good
                else "free some space and start again",
            ) from None

    def close(self) -> None:
        """Wait for the last write, whether it succeeds or not."""
        self._writer.shutdown(wait=True)

    def _write(
        self,
        step: int,
        tensors: dict[str, Tensor],
        facts: StateFacts,
        spared: tuple[int, ...],
        first: Callable[[], None] | None,
    ) -> None:
        from safetensors.torch import save

        if first is not None:
            first()
        data = save(tensors)
        manifest = {
            "format": FORMAT,
            "run": self.run_id,
            "step": step,
            "files": {"state.safetensors": {"size": len(data), "sha256": sha256(data)}},
            "facts": facts,
        }
        with atomic_folder(self.folder / f"step-{step:010d}") as folder:
            write_file(folder / "state.safetensors", data)
            write_file(folder / "checkpoint.json", with_checksum(manifest))
        for old in self.steps()[: -self.keep]:
            if old not in spared:
                self._remove(old)

    def _remove(self, step: int) -> None:
        # a kill during the removal leaves a hidden folder, never half a named one
        remove_folder(self.folder / f"step-{step:010d}")

    # --- reading

    def steps(self) -> list[int]:
        """The steps of all checkpoints, ascending; they may be damaged."""
        if not self.folder.is_dir():
            return []
        return sorted(
            int(match[1]) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))
        )

    def read(self, step: int) -> tuple[dict[str, Tensor], StateFacts]:
        """(tensors, facts) of one checkpoint, verified bit for bit. Raises CheckpointError naming
        the file."""
        from safetensors.torch import load

        folder = self.folder / f"step-{step:010d}"
        where = folder / "checkpoint.json"
        try:
            manifest = read_checked_json(where)
            if manifest.get("format") != FORMAT:
                raise ValueError(
                    f"it is of format {manifest.get('format')}, and this danlu reads {FORMAT}"
                )
            if manifest["run"] != self.run_id:
                raise ValueError("it belongs to another run")
            if manifest["step"] != step:
                raise ValueError(f"it is the checkpoint of step {manifest['step']:,}")
            entry = manifest["files"]["state.safetensors"]
            where = folder / "state.safetensors"
            tensors = load(read_checked(where, entry["size"], entry["sha256"]))
            return tensors, cast("StateFacts", manifest["facts"])
        except FileNotFoundError:
            raise CheckpointError("the file is missing.", where=str(where)) from None
        except OSError as error:
            raise CheckpointError(
                f"cannot be read: {error.strerror or error}.", where=str(where)
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"this checkpoint is damaged: {error}.", where=str(where)
            ) from None

    def newest(self) -> tuple[dict[str, Tensor], StateFacts] | None:
        """(tensors, facts) of the newest good checkpoint; None where there is no checkpoint.

        A damaged one is named in `notices` and renamed to step-N.damaged, and the one before it is
        read. Raises CheckpointError where there are checkpoints and all are damaged."""
        steps = self.steps()
        failures: list[str] = []
        for step in reversed(steps):
            try:
                checkpoint = self.read(step)
            except CheckpointError as error:
                failures.append(f"{error.problem.where}: {error.problem.message}")
                continue
            for damaged in [later for later in steps if later > step]:
                self._set_aside(damaged)
            self.notices += failures
            self.newest_step = step
            return checkpoint
        if failures:
            raise CheckpointError(
                "no checkpoint of this run is usable: " + " ".join(failures),
                where=str(self.folder),
                hint="remove the checkpoints folder to start this run again",
            )
        return None

    def _set_aside(self, step: int) -> None:
        path = self.folder / f"step-{step:010d}"
        aside = path.with_name(f"{path.name}.damaged")
        if os.path.lexists(aside):
            remove_folder(aside)
        path.rename(aside)
        sync_folder(self.folder)
