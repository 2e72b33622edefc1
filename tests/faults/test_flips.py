"""The small version of flips.py: nothing damaged is loaded in silence."""

from __future__ import annotations

from pathlib import Path

from flips import proof, run_folder
from lives import Lives


def test_no_flipped_bit_and_no_cut_loads_in_silence(tmp_path: Path, found: Lives) -> None:
    heard = proof(run_folder(tmp_path, found), flips=80, cuts=40, artifact_flips=40)
    assert {kind: set(verdicts) for kind, verdicts in heard.items()} == {
        "flips, one checkpoint before it": {"the one before it, file named"},
        "cuts, one checkpoint before it": {"the one before it, file named"},
        "flips, the only checkpoint": {"exit code 4, file named"},
        "cuts, the only checkpoint": {"exit code 4, file named"},
        "flips, artifact": {"exit code 4, file named"},
        "cuts, artifact": {"exit code 4, file named"},
    }
