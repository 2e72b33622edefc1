"""ONNX exports of every model family, checked on 256 rows that were not trained on: largest
difference from the artifact, size of the graph, seconds.

    python benchmarks/exports.py [FAMILY ...] [--out benchmarks/results/exports-MACHINE.md]

The families are the small recipes of tests/faults/family_recipes.py (tests/parts/test_families.py
checks that none is missing), and linear, mlp and cnn. Each trains for some updates. The rows of the
check come from the same generator with another seed, or are the test and validation splits of the
digits. A family that cannot be exported has a row with the reason."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import danlu
from danlu.errors import DanluError

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "faults"))
import family_recipes as families

ROWS = 256
MORE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "linear": families.of_tables({"name": "linear"}),
    "mlp": families.of_tables({"name": "mlp"}),
    "cnn": families.of_images({"name": "cnn", "width": 4, "blocks": [1]}),
}
ALL = {**families.FAMILIES, **MORE}


def unseen(name: str, folder: Path) -> str | None:
    """A file or folder of more than 256 examples such as the family was trained on, from another
    seed; None for the digits."""
    folder.mkdir()
    text_table, write_text, recordings, draw = (
        families.text_table,
        families.write_text,
        families.write_recordings,
        families.draw,
    )
    families.draw = lambda: np.random.default_rng(12)
    families.text_table = lambda where: text_table(where, 300)
    families.write_text = lambda where: write_text(where, 3000)
    families.write_recordings = lambda where: recordings(where, 260)
    try:
        counts = {"tagging": 300, "translation": 300, "instructions": 12}
        exported = ALL[name](folder, counts[name]) if name in counts else ALL[name](folder)  # type: ignore[call-arg]
    finally:
        families.text_table, families.write_text, families.write_recordings, families.draw = (
            text_table,
            write_text,
            recordings,
            draw,
        )
    source = exported["data"]["source"]
    return source if isinstance(source, str) else source.get("path")


def measured(name: str, home: Path) -> str:
    """The row of one family."""
    folder = home / name
    folder.mkdir()
    danlu.train(ALL[name](folder), run=folder / "run")
    rows = unseen(name, folder / "unseen")
    begin = time.perf_counter()
    try:
        export = danlu.export(folder / "run", "onnx", folder / "onnx", rows)
    except DanluError as error:
        return f"| {name} | | | | | {str(error).splitlines()[0][:120]} |"
    seconds = time.perf_counter() - begin
    proof, size = export.manifest["proof"], (export.path / "model.onnx").stat().st_size
    inside = (
        "preprocessing in the graph"
        if export.raw_columns
        else "tokens, frames or windows made outside"
    )
    length = (
        ""
        if not export.manifest["runs"].get("longest")
        else f"; padded to {export.manifest['runs']['longest']}"
    )
    return f"| {name} | {proof['rows']:,} | {proof['largest_difference']:.1e} | {size / 1e3:,.0f} | {seconds:.1f} | {inside}{length} |"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", choices=[*ALL, []], help="only these families")
    parser.add_argument("--out", help="also write the table to this Markdown file")
    arguments = parser.parse_args()
    lines = [
        "| family | rows | largest difference | graph, kB | export and proof, s | |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as home:
        for name in arguments.families or ALL:
            lines.append(measured(name, Path(home)))
            print("\n".join(lines[-1:] if len(lines) > 3 else lines), flush=True)
            if arguments.out:
                Path(arguments.out).write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()
