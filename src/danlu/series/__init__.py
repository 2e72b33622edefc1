"""Rows of a table as moments of one or several series: their order, their step, runs without a gap, windows, naive forecasts.

What tasks on series share. `danlu.parts.tasks._series` holds the base of such a task.
"""
