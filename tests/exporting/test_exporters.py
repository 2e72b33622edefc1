"""What every exporter promises, and that no family is left out of the exports that are measured."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from danlu import registry
from danlu.exporting.exporters._base import exporter
from danlu.recipe import Options

sys.path.insert(0, str(Path(__file__).parent.parent / "faults"))
from family_recipes import FAMILIES

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"


@pytest.mark.parametrize("name", registry.names("exporters"))
def test_an_exporter_offers_what_the_shelf_promises(name: str) -> None:
    assert issubclass(registry.config("exporters", name), Options)
    offered = exporter(name)
    libraries, extra = offered.needs
    assert isinstance(libraries, tuple) and bool(libraries) == bool(extra)
    assert isinstance(offered.torch_free, bool)
    assert callable(offered.export) and callable(offered.start)
    assert registry.summary("exporters", name).endswith((".", ":"))


def test_every_family_stands_in_the_measured_table_within_what_is_allowed() -> None:
    """benchmarks/exports.py exports each family and stores the table; here it is held to be whole
    (training and exporting all of them takes minutes)."""
    tables = sorted(RESULTS.glob("*-exports-*.md"))
    assert tables, "run benchmarks/exports.py"
    rows = [
        re.split(r"\s*\|\s*", line.strip("| "))
        for line in tables[-1].read_text("utf-8").split("## int8")[0].splitlines()
        if line.startswith("| ")
    ]
    measured = {cells[0]: cells[2] for cells in rows if cells[0] != "family"}
    assert not {*FAMILIES, "linear", "mlp", "cnn"} - set(measured)
    assert all(float(difference) <= 1e-4 for difference in measured.values()), measured
