"""The benchmark of transfer: its search ends with worse rates on both sides of the best, and its table tells what was found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import transfer  # of benchmarks/, not danlu's

ROWS = 100


def digits(width: int, parametrization: str, seed: int) -> dict[str, Any]:
    return {
        "task": "classification",
        "data": {"source": "sklearn", "target": "label"},
        "model": {
            "name": "mlp",
            "hidden": [width],
            "parametrization": parametrization,
            "base_width": transfer.NARROW,
        },
        "optimizer": "adamw",
        "train": {"steps": 3, "batch_size": 32, "threads": 1, "precision": "float32", "seed": seed},
    }


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(transfer.CASES, "tiny", (digits, "tiny"))
    monkeypatch.setitem(transfer.ROWS, "tiny", ROWS)


@pytest.mark.usefixtures("tiny")
def test_a_search_ends_between_worse_rates_and_the_table_tells_the_step_apart() -> None:
    narrow = transfer.Search("tiny", transfer.NARROW, "mup", 1).run()
    assert {narrow.best + side for side in (-2, -1, 1, 2)} <= set(narrow.losses)
    assert narrow.losses[narrow.best] == min(narrow.losses.values())
    wide = transfer.Search("tiny", 2 * transfer.NARROW, "mup", 1).run()
    found = transfer.compared(narrow, wide)
    assert (
        found["loss_moved"]
        == wide.losses[narrow.best]
        >= found["loss_tuned"]
        == min(wide.losses.values())
    )
    assert found["steps_apart"] == wide.best - narrow.best
    text = transfer._report(
        {"machine": transfer.machine(), "cores_used_by_others": 0.0, "seeds": 1, "rows": [found]}
    )
    assert f"{found['steps_apart']:+d}" in text
