"""Write the report of a study: trials.csv, trials.parquet, report.html, and plots/*.png."""

from __future__ import annotations

from pathlib import Path

from danlu.reporting import png
from danlu.reporting.figure import Figure
from danlu.reporting.history import curves, history
from danlu.reporting.importance import Importance, importance_chart, importances
from danlu.reporting.page import html_page
from danlu.reporting.parallel import parallel
from danlu.reporting.pareto import pareto
from danlu.reporting.slices import slices
from danlu.reporting.study_data import StudyData
from danlu.reporting.tables import write_tables
from danlu.system.atomic_files import replace_file
from danlu.system.own_folder import make_subfolder


def write_study_report(folder: Path, study: StudyData, *, plots: bool | None = None) -> list[Path]:
    """Write the report into a folder; the files written, report.html first. The same trials give
    the same bytes.

    `plots`: whether PNG files are drawn; None: where matplotlib is installed. Raises MissingExtra
    where they are requested without matplotlib.
    """
    importance_list = importances(study)
    figures = study_figures(study, importance_list)
    write_tables(folder, study)
    replace_file(folder / "report.html", html_page(study, figures, importance_list).encode("utf-8"))
    written = [folder / name for name in ("report.html", "trials.csv", "trials.parquet")]
    if plots or (plots is None and png.is_available()):
        home = folder / "plots"
        make_subfolder(home)
        for figure in figures:
            replace_file(home / f"{figure.name}.png", png.draw(figure))
            written.append(home / f"{figure.name}.png")
    return written


def study_figures(study: StudyData, importance_list: list[Importance]) -> list[Figure]:
    """The charts for which there are enough trials, in the order of the page."""
    candidates = [
        history(study),
        pareto(study),
        importance_chart(study, importance_list),
        parallel(study),
        slices(study),
        curves(study),
    ]
    return [figure for figure in candidates if figure is not None]
