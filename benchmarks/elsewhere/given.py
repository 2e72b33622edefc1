"""What frameworks.py hands to every framework: rows, weights, the order of batches, as .npz without pickle; and the line it hears back."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


class Given:
    """`rows` uint8 (N, H, W, C), normalised by `mean` and `std`; `weights` in the order of the
    layers, outputs first (torch's layout)."""

    def __init__(self, folder: Path) -> None:
        with np.load(str(folder / "given.npz"), allow_pickle=False) as held:
            self.arrays = {name: held[name] for name in held.files}
        about = json.loads((folder / "given.json").read_text())
        self.network, self.batch_size = about["network"], about["batch_size"]
        self.learning_rate, self.momentum = about["learning_rate"], about["momentum"]
        self.mean, self.std = np.float32(about["mean"]), np.float32(about["std"])
        self.test_rows, self.test_labels = self.arrays["test_rows"], self.arrays["test_labels"]
        self.check, self.wanted = (
            self.test_rows[: len(self.arrays["wanted"])],
            self.arrays["wanted"],
        )
        self.weights = [self.arrays[f"weight_{number}"] for number in range(about["weights"])]

    def train(self) -> Any:
        """(rows, labels) of the epoch in the order of its updates."""
        order = self.arrays["order"]
        return self.arrays["rows"][order], self.arrays["labels"][order]

    def first(self) -> Any:
        """(rows, labels) of the first update, and of as many more as the last one has: what has to
        be compiled for."""
        rows, labels = self.train()
        last = len(rows) % self.batch_size or self.batch_size
        keep = np.r_[np.arange(self.batch_size), np.arange(last)]
        return rows[keep], labels[keep]

    def prepared(self, rows: Any) -> Any:
        """float32 (N, C, H, W), normalised."""
        return ((rows.astype(np.float32) / 255 - self.mean) / self.std).transpose(0, 3, 1, 2).copy()


def told(
    given: Given, outputs: Any, answers: Any, seconds: Any, warm: float, versions: str
) -> None:
    """Print what was measured as one line of JSON; `seconds` on the wall and of the processor."""
    found = {
        "difference": float(np.abs(np.asarray(outputs, dtype=np.float64) - given.wanted).max()),
        "accuracy": float((np.asarray(answers).argmax(1) == given.test_labels).mean()),
        "seconds": seconds[0],
        "processor": seconds[1],
        "warm": warm,
        "versions": f"{versions}, numpy {np.__version__}, Python {sys.version_info[0]}.{sys.version_info[1]}",
    }
    print(f"danlu {json.dumps(found)}")
