"""Metrics: outputs of a whole split to a number.

A part offers
  Config                                    its options
  FITS                                      what a task may ask for that the metric can score: a subset of ("classes", "labels",
                                            "numbers", "several", "tokens", "steps", "spelling", "pixels", "samples"); see danlu/tasks
  BETTER                                    "higher" or "lower"
  build(config, task) -> metric             a metric object with
    count(outputs, batch) -> dict           name to Tensor, a plain sum over the batch's rows (float64 or int64), or, when
                                            JOINED is True, per-row values that are concatenated in row order. Targets are those
                                            of `task.encode`, never mixed
    score(total) -> float | dict            the number from the added (or concatenated) counts; where the metric is several, or a
                                            table, a dict of full names to numbers or to nested lists ("price/rmse", a confusion
                                            matrix). Never NaN: where a score has no meaning (AUROC with one class) it is None
    JOINED (optional)                       True when the counts are concatenated, not added (AUROC)
    compare(predictions, references) -> float | dict   instead of count and score, for a metric that reads text (READS_TEXT = True of the
                                            part): lists of str of the whole split; `predictions` are those of task.respond or
                                            task.answers. Computed when training ends and by `danlu evaluate`, not on the way
    label (optional)                        what the score is called where the part's name does not say it all (top_5)
A split's score must not depend on how it was cut into batches: what is added are whole numbers or float64 sums, and what depends on
order or on rounding near a tie is taken from all rows at once.
"""
