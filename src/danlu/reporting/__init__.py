"""Reports as files: what a study found (tables, one HTML page, PNG plots), and the charts that other verbs draw.

The way of a chart: `history`, `curves`, `importance`, `parallel`, `slices` and `pareto` make a
`drawing.Figure` of what is told; `svg` and `png` draw any Figure, so that the page and the plots
show the same. `page` puts the figures into one self-contained HTML file, `tables` writes the trials
as CSV and Parquet. Begin with `studies`."""

from __future__ import annotations

from danlu.reporting.studies import write_study_report
from danlu.reporting.told import Objective, StudyTold

__all__ = ["Objective", "StudyTold", "write_study_report"]
