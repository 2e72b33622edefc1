"""LitServe: workers with batching. It has no limit on what waits; a request that took 30 s is given up.

Two workers, because on two cores they answered 924 a second and one 801.
"""

from __future__ import annotations

import sys
from typing import Any

NAME = "LitServe"
REQUIRES = ("litserve==0.2.19",)
STYLES = {"2 workers": "LitAPI(max_batch_size=64, batch_timeout=0.005), workers_per_device=2"}
PATH = "/predict"


def probabilities(answer: dict[str, Any]) -> list[float]:
    """The numbers of an answer."""
    return answer["probabilities"]


def main() -> None:
    """Serve."""
    from servers.apps.litserve_app import run

    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3].partition(" ")[0]))


if __name__ == "__main__":
    main()
