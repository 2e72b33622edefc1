"""Rows of a table as time series: a library that the tasks on series share.

    time_order.py        sorts rows by series and time, and finds gaps
    time_step.py         the step of a series, its season, the times that follow
    windows.py           runs without gaps, and where windows over them may lie
    naive_forecasts.py   the baselines: the last season, the last value, the mean

`danlu.parts.tasks._series` holds the base class of such a task.
"""
