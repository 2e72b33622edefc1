"""Ray Serve: a replica with `serve.batch` and a bound on what waits, on a cluster of this machine alone.

One replica, because on two cores it answered 308 a second and two 212: the proxy has one of them.
"""

from __future__ import annotations

import sys
from typing import Any

NAME = "Ray Serve"
REQUIRES = ("ray[serve]==2.60.0",)
STYLES = {
    "1 replica": "serve.batch(max_batch_size=64, batch_wait_timeout_s=0.005), max_queued_requests 256"
}
PATH = "/"


def probabilities(answer: dict[str, Any]) -> list[float]:
    """The numbers of an answer."""
    return answer["probabilities"]


def main() -> None:
    """Serve."""
    from servers.apps.ray_app import run

    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3].partition(" ")[0]))


if __name__ == "__main__":
    main()
