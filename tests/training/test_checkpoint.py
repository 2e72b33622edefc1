"""A checkpoint is whole or not there, and what is read is what was written."""

from __future__ import annotations

import random
import shutil
import threading
from pathlib import Path

import pytest
import torch

from danlu.errors import CheckpointError, RunError
from danlu.training.checkpoint import Checkpoints
from leftovers import left_by_a_killed_writer


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {
        "weights.a": torch.full((3, 5), float(step)),
        "optimizer.0.step": torch.tensor(float(step)),
        "weights.n": torch.tensor([step]),
        "weights.h": torch.full((7,), step, dtype=torch.bfloat16),
    }


def saved(folder: Path, steps: list[int], keep: int = 2, best: int = -1) -> Checkpoints:
    checkpoints = Checkpoints(folder, "run", keep)
    checkpoints.prepare(tensors(0))
    for step in steps:
        checkpoints.save(step, tensors(step), {"step": step, "loss": 0.1 + 0.2}, best)
    checkpoints.wait()
    return checkpoints


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    found = saved(tmp_path, [7]).newest()
    assert found is not None
    assert found[1] == {"step": 7, "loss": 0.1 + 0.2}
    assert all(
        torch.equal(found[0][name], each) and found[0][name].dtype == each.dtype
        for name, each in tensors(7).items()
    )


def test_the_state_is_copied_when_save_is_called_not_when_it_is_written(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "run", 2)
    state = tensors(1)
    checkpoints.save(1, state, {})
    state["weights.a"].zero_()
    checkpoints.wait()
    found = checkpoints.newest()
    assert found is not None and torch.equal(found[0]["weights.a"], tensors(1)["weights.a"])


def test_what_must_be_on_the_disk_first_is_put_there_by_the_writer_before_the_checkpoint(
    tmp_path: Path,
) -> None:
    checkpoints = Checkpoints(tmp_path, "run", 2)
    seen: list[object] = []
    checkpoints.save(
        1,
        tensors(1),
        {},
        first=lambda: seen.extend([threading.current_thread(), checkpoints.steps()]),
    )
    checkpoints.wait()
    assert seen[0] is not threading.current_thread() and seen[1] == []
    assert checkpoints.steps() == [1]

    def full() -> None:
        raise OSError(28, "No space left on device")

    checkpoints.save(2, tensors(2), {}, first=full)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.wait()
    assert checkpoints.steps() == [1], "a checkpoint must not be there without it"


def test_the_last_k_and_the_best_are_kept(tmp_path: Path) -> None:
    assert saved(tmp_path, [1, 2, 3, 4, 5], keep=2, best=2).steps() == [2, 4, 5]


def test_every_single_bit_flip_and_truncation_is_noticed(tmp_path: Path) -> None:
    """The small version of tests/faults/flips.py: flips at random places of every file."""
    saved(tmp_path / "good", [3])
    draw = random.Random(0)
    for file in ("checkpoint.json", "state.safetensors"):
        for trial in range(60):
            shutil.rmtree(tmp_path / "bad", ignore_errors=True)
            shutil.copytree(tmp_path / "good", tmp_path / "bad")
            path = tmp_path / "bad" / "step-0000000003" / file
            data = bytearray(path.read_bytes())
            if trial % 5 == 4:
                data = data[: draw.randrange(len(data))]
            else:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            path.write_bytes(data)
            with pytest.raises(CheckpointError) as caught:
                Checkpoints(tmp_path / "bad", "run", 2).newest()
            assert file in str(caught.value)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path: Path) -> None:
    saved(tmp_path, [3, 6])
    path = tmp_path / "step-0000000006" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    checkpoints = Checkpoints(tmp_path, "run", 2)
    found = checkpoints.newest()
    assert found is not None and found[1]["step"] == 3
    assert (
        "step-0000000006" in checkpoints.notices[0]
        and "state.safetensors" in checkpoints.notices[0]
    )
    assert checkpoints.steps() == [3], "the damaged one must not be tried again"


def test_no_good_checkpoint_is_exit_code_4_and_none_at_all_is_a_fresh_start(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "empty", "run", 2).newest() is None
    saved(tmp_path, [3])
    (tmp_path / "step-0000000003" / "checkpoint.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        Checkpoints(tmp_path, "run", 2).newest()
    assert caught.value.exit_code == 4


def test_a_checkpoint_of_another_run_or_step_is_not_loaded(tmp_path: Path) -> None:
    saved(tmp_path, [3])
    with pytest.raises(CheckpointError, match="another run"):
        Checkpoints(tmp_path, "stranger", 2).newest()
    (tmp_path / "step-0000000003").rename(tmp_path / "step-0000000004")
    with pytest.raises(CheckpointError, match="step 3"):
        Checkpoints(tmp_path, "run", 2).newest()


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError):
        Checkpoints(tmp_path / "file" / "checkpoints", "run", 2).prepare(tensors(0))


def test_a_disk_without_room_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 990, 10))  # type: ignore[attr-defined]
    with pytest.raises(RunError, match="free"):
        Checkpoints(tmp_path, "run", 2).prepare(tensors(0))


def test_leftovers_of_a_killed_writer_are_removed_and_never_read(tmp_path: Path) -> None:
    saved(tmp_path, [3])
    left_by_a_killed_writer(tmp_path / "step-0000000004")
    checkpoints = Checkpoints(tmp_path, "run", 2)
    checkpoints.prepare(tensors(0))
    found = checkpoints.newest()
    assert found is not None and found[1]["step"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-0000000003"]
