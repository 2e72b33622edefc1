"""BentoML: a service with adaptive batching and `max_concurrency`. A batchable API takes an array, so the body is one with a batch axis.

Two workers, because on two cores they answered 566 a second and one 264.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

NAME = "BentoML"
REQUIRES = ("bentoml==1.4.39",)
STYLES = {
    "2 workers": "bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=500), max_concurrency 256, workers=2"
}
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
    artifact, port, style = sys.argv[1:4]
    told: dict[str, Any] = {
        "BENTO_ARTIFACT": artifact,
        "BENTO_WORKERS": style.partition(" ")[0],
        "BENTO_MOST": "256",
        "BENTOML_DO_NOT_TRACK": "True",
    }
    service = "servers.apps.bentoml_app:Classifier"
    command = [
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        service,
        "--host",
        "127.0.0.1",
        "--port",
        port,
    ]
    os.execve(sys.executable, command, {**os.environ, **told})


if __name__ == "__main__":
    main()
