"""The small version of every_step.py: any checkpoint leads to the same end."""

from __future__ import annotations

from pathlib import Path

import pytest
from every_step import resume_from, steps_of, whole_run
from lives import Lives


@pytest.mark.parametrize("name", ["tabular", "images"])
def test_resuming_from_any_step_ends_in_the_same_bytes(
    name: str, tmp_path: Path, found: Lives
) -> None:
    recipe, run = whole_run(name, 20, tmp_path, found)
    assert steps_of(run) == list(range(1, 21))
    assert resume_from((1, 9, 13, 20), recipe, run, tmp_path, found) == {
        1: [],
        9: [],
        13: [],
        20: [],
    }
