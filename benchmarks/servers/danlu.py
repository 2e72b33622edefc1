"""danlu: `danlu serve`, as its guide shows it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

NAME = "danlu"
STYLES = {"artifact": "danlu serve ARTIFACT: torch", "export": "danlu serve EXPORT: ONNX Runtime"}
PATH = "/v1/predict"


def probabilities(answer: dict[str, Any]) -> list[float]:
    """The numbers of an answer."""
    return list(answer["answers"][0]["probabilities"].values())


def prepare(artifact: str, folder: Path, style: str) -> str:
    """What is served: the artifact, or an ONNX export of it."""
    if style == "artifact":
        return artifact
    import danlu

    out = folder / "export"
    if not out.exists():
        danlu.export(artifact, "onnx", out)
    return str(out)


def main() -> None:
    """Serve."""
    from danlu import serve

    serve(sys.argv[1], port=int(sys.argv[2]))


if __name__ == "__main__":
    main()
