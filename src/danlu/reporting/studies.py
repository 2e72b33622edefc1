"""The report of a study: trials.csv, trials.parquet, report.html, and plots/*.png where matplotlib is installed."""

from __future__ import annotations

from pathlib import Path

from danlu.reporting import png
from danlu.reporting.drawing import Figure
from danlu.reporting.history import curves, history
from danlu.reporting.importance import Importance, chart, importances
from danlu.reporting.page import page
from danlu.reporting.parallel import parallel
from danlu.reporting.pareto import pareto
from danlu.reporting.slices import slices
from danlu.reporting.tables import write_tables
from danlu.reporting.told import StudyTold
from danlu.system.atomic_files import replace_file


def write_study_report(folder: Path, told: StudyTold, *, plots: bool | None = None) -> list[Path]:
    """The files written, report.html first; the same records give the same bytes.

    `plots`: whether PNGs are drawn; None: where matplotlib is installed. Raises MissingExtra where
    they are asked for and it is not."""
    found = importances(told)
    figures = drawn(told, found)
    write_tables(folder, told)
    replace_file(folder / "report.html", page(told, figures, found).encode("utf-8"))
    written = [folder / name for name in ("report.html", "trials.csv", "trials.parquet")]
    if plots or (plots is None and png.able()):
        home = folder / "plots"
        home.mkdir(exist_ok=True)
        for figure in figures:
            replace_file(home / f"{figure.name}.png", png.draw(figure))
            written.append(home / f"{figure.name}.png")
    return written


def drawn(told: StudyTold, found: list[Importance]) -> list[Figure]:
    """The charts for which there are enough trials, in the order of the page."""
    made = [
        history(told),
        pareto(told),
        chart(told, found),
        parallel(told),
        slices(told),
        curves(told),
    ]
    return [figure for figure in made if figure is not None]
