"""What the tests of faults share: processes to kill, and a recipe that has already been trained once, unbroken."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # they read /proc and fork

from lives import Lives, lives


@pytest.fixture(scope="session")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    """Lives forked from one process with everything imported."""
    with lives(tmp_path_factory.mktemp("lives")) as each:
        yield each


@pytest.fixture(scope="session")
def shelf_of_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is trained once and read by several tests."""
    return tmp_path_factory.mktemp("runs")
