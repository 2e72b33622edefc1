"""danlu: `danlu serve`, as its guide shows it."""

from __future__ import annotations

import sys
from typing import Any

NAME = "danlu"
NEEDS = ("fastapi", "uvicorn", "httptools")
STYLES = {"usual": "danlu serve ARTIFACT"}
PATH = "/v1/predict"


def probabilities(answer: dict[str, Any]) -> list[float]:
    """The numbers of an answer."""
    return list(answer["answers"][0]["probabilities"].values())


def main() -> None:
    """Serve."""
    from danlu import serve

    serve(sys.argv[1], port=int(sys.argv[2]))


if __name__ == "__main__":
    main()
