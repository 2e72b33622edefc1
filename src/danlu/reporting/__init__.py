"""Reports as files: tables, one HTML page and PNG plots of a study; charts for other verbs.

How a chart is made: `history`, `importance`, `parallel`, `slices` and `pareto` build a
`figure.Figure` from a `study_data.StudyData`; `svg` and `png` draw any Figure, so that the page and
the plots show the same. `page` puts the figures into one self-contained HTML file; `tables` writes
the trials as CSV and Parquet. Begin with `study_report`.
"""

from __future__ import annotations

from danlu.reporting.study_data import Objective, StudyData
from danlu.reporting.study_report import write_study_report

__all__ = ["Objective", "StudyData", "write_study_report"]
