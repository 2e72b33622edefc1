"""The benchmark of servers: everybody serves the same network, every answer is checked, and what is measured stands in the table."""

from __future__ import annotations

import gzip
import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

for library in ("fastapi", "uvicorn", "httptools"):
    pytest.importorskip(library, reason="pip install 'danlu[serve]'")

import torch  # noqa: E402

import danlu  # noqa: E402
import load  # noqa: E402
import serving  # noqa: E402
from servers.apps.network import network  # noqa: E402

ROWS = 96


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cnn that was trained for some steps on images that nobody could tell apart."""
    home = tmp_path_factory.mktemp("serving")
    random = np.random.default_rng(3)
    for part, prefix in ((ROWS, "train"), (ROWS, "t10k")):
        images = random.integers(0, 256, (part, 28, 28)).astype(np.uint8)
        head = b"\x00\x00\x08\x03" + b"".join(int(each).to_bytes(4, "big") for each in images.shape)
        (home / f"{prefix}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(head + images.tobytes())
        )
        labels = (np.arange(part) % 10).astype(np.uint8)
        head = b"\x00\x00\x08\x01" + part.to_bytes(4, "big")
        (home / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(head + labels.tobytes())
        )
    recipe = Path(__file__).parents[2] / "recipes" / "fashion_mnist_cnn.yaml"
    danlu.train(
        recipe,
        home / "run",
        [f"data.source.path={home}", "train.steps=3", "train.epochs=null", "train.threads=1"],
    )
    return home / "run"


def test_the_plain_network_answers_as_the_artifact(artifact: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1)).astype(np.uint8)
    threads = torch.get_num_threads()
    with torch.inference_mode():
        found = network(artifact)(torch.from_numpy(pixels[:, :, :, 0])).numpy()
    torch.set_num_threads(threads)
    expected = [
        list(each["probabilities"].values())
        for each in danlu.load(artifact).predict({"image": pixels})
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)  # float32 sums in another order


def test_danlu_is_measured_and_no_answer_is_wrong(artifact: Path, tmp_path: Path) -> None:
    images, expected = serving.questions(str(artifact), tmp_path)
    options = Namespace(seconds=1.0, open_seconds=1.0)
    found = serving.measure(
        "danlu", "artifact", str(artifact), (images, expected), options, sys.executable
    )
    for tally in (found["closed"], found["open"]):
        assert (
            tally["wrong"] == 0
            and set(tally["statuses"]) <= {"200", "503"}
            and tally["goodput"] > 0
        )
    assert found["rate"] == pytest.approx(3 * found["closed"]["goodput"])
    assert len(serving.line(found).split("|")) == len(serving.COLUMNS) + 2


def test_a_wrong_answer_is_counted() -> None:
    tally = load.Load(0, "/", ["{}"], [[0.25, 0.75]], lambda answer: answer)
    for told, wrong in (
        ([0.25, 0.75], 0),
        ([0.2501, 0.75], 0),
        ([0.26, 0.74], 1),
        ([0.25], 2),
        ("no", 3),
    ):
        tally.answered(0, 0.0, "200", json.dumps(told).encode())
        assert tally.tally.wrong == wrong


def test_answers_in_pieces_are_whole_once_the_last_one_has_come() -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked"
    whole = head + b"\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n"
    assert load._body(whole, len(head)) == b"[1,2]"
    assert load._body(whole[:-7], len(head)) is None
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5"
    assert load._body(head + b"\r\n\r\n[1,2]", len(head)) == b"[1,2]"
    assert load._body(head + b"\r\n\r\n[1,2", len(head)) is None


def test_a_peer_without_an_environment_is_left_out() -> None:
    for name in ("litserve", "bentoml", "ray"):
        with pytest.raises(LookupError, match="--setup"):
            serving.python_of(name, None)
    assert serving.python_of("danlu", None) == sys.executable
