"""The small version of growth.py: training does not gather memory."""

from __future__ import annotations

from pathlib import Path

from growth import NOISE, growth, memory
from lives import Lives


def test_memory_stands_still_over_hundreds_of_steps_and_saves(tmp_path: Path, found: Lives) -> None:
    seen = memory(500, tmp_path, found)
    assert len(seen) >= 9
    assert growth(seen) <= NOISE
