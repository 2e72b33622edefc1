"""Hugging Face folders made to do harm do none: a tenth of tests/faults/hostile_hugging_face.py,
which holds all cases and runs all verbs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

for _name in ("transformers", "tokenizers", "fastapi"):
    pytest.importorskip(_name, reason="pip install 'danlu[huggingface,text,serve]'")


def test_hostile_hugging_face_folders_are_refused_and_do_nothing() -> None:
    command = [sys.executable, str(Path(__file__).with_name("hostile_hugging_face.py")), "--few"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    assert ": 0 wrong" in ended.stdout
