"""The small version of study_kills.py: a study killed -9 ends as one never killed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from lives import Lives
from study_kills import Count, killed_study, study, unbroken

pytest.importorskip("optuna")


@pytest.mark.parametrize("executor", ["one_by_one", "vectorised"])
def test_a_study_killed_at_random_moments_finds_what_the_unbroken_one_finds(
    executor: str, tmp_path: Path, found: Lives
) -> None:
    subject = unbroken(executor, tmp_path, found, study(executor, trials=6))
    states = {each["state"] for each in subject.found["told"]["trials"]}
    assert {"complete", "failed"} <= states, (
        "the study must hold trials that fail, or too little is proven"
    )
    draw, count = random.Random(executor), Count()
    for number in range(2):
        killed_study(subject, tmp_path / f"study-{number}", draw, found.fork, count)
    assert not count.differing
    assert count.kills >= 2
    assert set(count.ended) == {6}
