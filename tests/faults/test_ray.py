"""A study on a real Ray cluster of one node, started and stopped here: the same results as one by one, also when a task is killed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from lives import Lives
from ray_cluster import local_cluster
from worker_kills import outcome, recipe_of


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, dict[str, str], int]]:
    with local_cluster() as found:
        yield found


def test_a_study_on_ray_is_the_study_one_by_one_though_a_task_is_killed(
    cluster: tuple[str, dict[str, str], int],
    tmp_path: Path,
    found: Lives,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address, told, head = cluster
    recipe = recipe_of(tmp_path, trials=2)
    expected = found.run(
        "tune", recipe, "tune.on=one_by_one", "--study", tmp_path / "one_by_one", "--json"
    ).out
    monkeypatch.setattr(found, "environment", {**found.environment, **told})
    life = found.fresh(
        "tune",
        recipe,
        "--allow-remote",
        "tune.on=ray",
        f"tune.address={address}",
        "--study",
        tmp_path / "ray",
        "--json",
    )
    end = time.monotonic() + 120
    while (
        not (killed := [task for task in tasks(head) if saved(tmp_path / "ray")])
        and time.monotonic() < end
    ):
        assert life.poll() is None, life.err
        time.sleep(0.02)
    os.kill(killed[0], signal.SIGKILL)
    assert life.wait() == 0, life.err
    assert outcome(life.out) == outcome(expected), (
        "stdout holds the result, and nothing that Ray has to say"
    )
    assert "A worker died" in life.err


def tasks(head: int) -> list[int]:
    """The processes of a cluster that train a trial."""
    found = []
    for each in psutil.Process(head).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if " ".join(each.cmdline()).startswith("ray::_run_task"):
                found.append(each.pid)
    return found


def saved(study: Path) -> bool:
    """Whether every trial that has begun has a checkpoint."""
    begun = list(study.glob("trials/*/.held"))
    return bool(begun) and all(any((each.parent / "checkpoints").glob("step-*")) for each in begun)


def test_where_there_is_no_cluster_one_message_says_so(tmp_path: Path, found: Lives) -> None:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed; pip install 'danlu[ray]'")
    life = found.run(
        "tune",
        recipe_of(tmp_path, trials=2),
        "--allow-remote",
        "tune.on=ray",
        "tune.address=127.0.0.1:1",
        "--study",
        tmp_path / "s",
        code=2,
    )
    assert "there is no Ray cluster at 127.0.0.1:1" in life.err
