"""BentoML: one service with adaptive batching and `max_concurrency`. A batchable API takes an array, so the body is one with a batch axis."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

NAME = "BentoML"
REQUIRES = ("bentoml==1.4.39",)
STYLES = {"batching": "bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=500), max_concurrency 256"}
PATH = "/classify"


def body(image: list[list[int]]) -> str:
    """The request body of an image."""
    return json.dumps({"image": [image]})


def probabilities(answer: list[list[float]]) -> list[float]:
    """The numbers of an answer."""
    (found,) = answer
    return found


def main() -> None:
    """Serve."""
    artifact, port = sys.argv[1:3]
    told: dict[str, Any] = {"BENTO_ARTIFACT": artifact, "BENTO_WORKERS": "1", "BENTO_MOST": "256", "BENTOML_DO_NOT_TRACK": "True"}
    service = "servers.apps.bentoml_app:Classifier"
    command = [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", port]
    os.execve(sys.executable, command, {**os.environ, **told})


if __name__ == "__main__":
    main()
