"""The small version of kills.py: runs killed -9 end in the bytes of unbroken ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from family_recipes import FAMILIES
from hard_recipes import RECIPES
from kills import Count, killed_run, unbroken
from lives import Lives


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_killed_at_random_moments_is_bit_for_bit_the_unbroken_one(
    name: str, tmp_path: Path, found: Lives
) -> None:
    subject = unbroken(name, tmp_path, found, fresh=False)
    draw, count = random.Random(name), Count()
    for number in range(2):
        killed_run(subject, tmp_path / f"run-{number}", draw, found, count, fresh=0.0)
    assert not count.differing
    assert count.kills >= 2


@pytest.mark.parametrize("name", FAMILIES)
def test_a_killed_run_of_any_family_is_bit_for_bit_the_unbroken_one(
    name: str, tmp_path: Path, found: Lives
) -> None:
    subject = unbroken(name, tmp_path, found, fresh=False)
    count = Count()
    killed_run(subject, tmp_path / "run", random.Random(name), found, count, fresh=0.0)
    assert not count.differing
    assert count.kills >= 1
