"""Metrics: the outputs of a whole split as one number, or a few.

A part offers
  Config                    its options (danlu.recipe.Options)
  FITS, BETTER, READS_TEXT  see MetricFacts in _base.py; READS_TEXT is optional
  build(config, task)       the metric: a `Metric`, or a `TextMetric` where the part says READS_TEXT
                            (both in _base.py). `task` derives from the classes that its ASKS
                            promises. Raises RecipeError for options that do not fit the task
"""
