"""Reports as files: what a study found (tables, one HTML page, PNG plots), and the charts that other verbs draw.

The way of a chart: `history`, `curves`, `importance`, `parallel`, `slices` and `pareto` make a
`drawing.Figure` of what is told; `svg` and `png` draw any Figure, so that the page and the plots
show the same. `page` puts the figures into one self-contained HTML file, `tables` writes the trials
as CSV and Parquet. Begin with `studies`."""

from __future__ import annotations

from danlu.reporting.study_data import Objective, StudyData
from danlu.reporting.study_report import write_study_report

__all__ = ["Objective", "StudyData", "write_study_report"]
