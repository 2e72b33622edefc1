"""Killed at a system call, or with one that fails, what changes an artifact in place loses nothing and is never silent.

The full proof: python tests/faults/in_place_kills.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from in_place_kills import prove
from lives import Lives
from syscalls import WHY_NOT


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.parametrize("name", ["encrypt", "sign"])
def test_kills_and_errors_at_system_calls_lose_nothing(
    name: str, tmp_path: Path, found: Lives
) -> None:
    count = prove(tmp_path / name, found, kills=6, errors=4, names=[name], seed=7)
    assert count.wrong == []
    assert count.kills >= 6
    assert count.errors == 4
