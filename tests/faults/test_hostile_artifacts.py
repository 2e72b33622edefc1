"""Artifacts and exports made to do harm do none: a sixteenth of tests/faults/hostile_artifacts.py, which holds all cases and runs all verbs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

for _name in ("cryptography", "onnxruntime", "onnx", "fastapi"):
    pytest.importorskip(_name, reason="pip install 'danlu[crypto,onnx,serve]'")


def test_hostile_artifacts_and_exports_are_refused_and_do_nothing() -> None:
    command = [sys.executable, str(Path(__file__).with_name("hostile_artifacts.py")), "--few"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert found.returncode == 0, f"{found.stdout}\n{found.stderr}"
    assert ": 0 wrong" in found.stdout
