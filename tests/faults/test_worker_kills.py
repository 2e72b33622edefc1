"""The small version of worker_kills.py, and what else may happen to the processes of a study: Ctrl-C, a disk that is full."""

from __future__ import annotations

import contextlib
import json
import random
import signal
from pathlib import Path

from lives import Lives
from test_full_disk import mounted
from test_signals import until
from worker_kills import Count, alive, children, killed_study, outcome, recipe_of, unbroken


def test_a_study_whose_workers_are_killed_is_the_one_never_killed(
    tmp_path: Path, found: Lives
) -> None:
    recipe = recipe_of(tmp_path, trials=4)
    expected = unbroken(recipe, tmp_path / "unbroken", found)
    assert expected["states"] == {"complete": 4, "pruned": 0, "failed": 0, "running": 0}
    count = Count()
    killed_study(
        recipe,
        tmp_path / "study",
        expected,
        ("worker", "fork_server", "study", "worker"),
        random.Random(3),
        found,
        count,
    )
    assert not count.differing
    assert count.killed == {"worker": 2, "fork_server": 1, "study": 1}


def test_an_interruption_is_passed_on_and_the_same_command_goes_on(
    tmp_path: Path, found: Lives
) -> None:
    recipe, study = recipe_of(tmp_path, trials=2, steps=240), tmp_path / "study"
    life = found.fork("tune", recipe, "--study", study, "--json")
    until(
        lambda: len({path.parent for path in study.glob("trials/*/checkpoints/step-*")}) == 2, life
    )
    family = [each for child in children(life.pid) for each in (child, *children(child))]
    assert len(family) == 3
    life.send(signal.SIGINT)
    assert life.wait() == 130
    assert (
        "SIGINT" in life.err
        and "run the same command again" in life.err
        and "Traceback" not in life.err
    )
    assert not any(map(alive, family))
    saved = [max(each.glob("checkpoints/step-*")) for each in sorted(study.glob("trials/*"))]
    assert len(saved) == 2
    told = outcome(found.run("tune", recipe, "--study", study, "--json").out)
    assert told["states"] == {"complete": 2, "pruned": 0, "failed": 0, "running": 0}
    assert [trial["steps"] for trial in told["trials"]] == [240, 240]
    for number in range(2):  # no update was done twice, but for those since the last report
        steps = [
            json.loads(line)["step"]
            for line in (study / f"trials/{number:04}/metrics.jsonl").read_text().splitlines()
        ]
        assert steps == sorted(steps)


def test_a_full_disk_fails_its_trials_with_the_cause_and_the_study_ends(
    tmp_path: Path, found: Lives
) -> None:
    home = tmp_path / "disk"
    with mounted(home, "2m") as disk:
        recipe = recipe_of(
            tmp_path, trials=2, steps=20, storage=f"sqlite:///{tmp_path / 'study.sqlite'}"
        )
        (disk / "study").mkdir()
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(1 << 16))
        life = found.run(
            "tune", recipe, "--study", disk / "study", "--json", "--allow-remote", code=None
        )
        told = outcome(life.out)
        assert told["states"] == {"complete": 0, "pruned": 0, "failed": 2, "running": 0}
        assert all(
            "disk full" in trial["cause"] and "No space left" in trial["cause"]
            for trial in told["trials"]
        )
