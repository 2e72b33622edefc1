"""What the benchmark of frameworks hands over is danlu's network, whole: numpy alone computes the same outputs of it; its table says what failed."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "elsewhere")]

from given import Given  # noqa: E402

import frameworks  # noqa: E402

if importlib.util.find_spec("keras") is None:
    pytest.skip("keras is not installed: pip install 'danlu[keras]'", allow_module_level=True)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(frameworks, "DATA", tmp_path / "nowhere")
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "given"
    folder.mkdir()
    return folder


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    found = np.maximum(np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None], 0)
    high, wide = found.shape[2] // 2, found.shape[3] // 2
    return (
        found[:, :, : 2 * high, : 2 * wide].reshape(*found.shape[:2], high, 2, wide, 2).max((3, 5))
    )


@pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # of Keras, where it writes a file
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_numpy_alone_computes_the_same_of_what_is_handed_over(network: str, nowhere: Path) -> None:
    told, said = frameworks.hand_over(network, nowhere, 256)
    given = Given(nowhere)
    x = given.prepared(given.check).astype(np.float64)
    weights = list(given.weights)
    while weights[0].ndim == 4:
        x = convolved(x, weights.pop(0), weights.pop(0))
    hidden = np.maximum(x.reshape(len(x), -1) @ weights[0].T + weights[1], 0)
    # 1e-4: what the benchmark allows of every framework
    np.testing.assert_allclose(hidden @ weights[2].T + weights[3], given.wanted, atol=1e-4)
    rows, labels = given.train()
    assert len(rows) == len(labels) == 256 and "256 images to train on" in said
    assert told["accuracy"] > 0.1 and (nowhere / "model.keras").is_file()


def test_a_framework_without_an_environment_is_skipped_saying_so(tmp_path: Path) -> None:
    skipped = frameworks.elsewhere("theano", tmp_path, tmp_path)
    about = {
        "cores": 2,
        "architecture": "x",
        "vectors": "v",
        "system": "s",
        "python": "3",
        "torch": "2",
        "processor": "",
    }
    measured = {
        "difference": 2e-3,
        "accuracy": 0.9,
        "seconds": 2.0,
        "processor": 1.0,
        "warm": 0.5,
        "versions": "jax 0",
    }
    runs = [
        {"network": "mlp", "framework": "theano", **skipped},
        {"network": "mlp", "framework": "jax", **measured},
    ]
    text = frameworks.report(
        {"data": "digits", "machine": about, "cores_used_by_others": 0.0, "runs": runs}
    )
    assert "skipped: there is no environment" in text and "2.0e-03 (TOO FAR)" in text
    assert json.loads(json.dumps(runs))
