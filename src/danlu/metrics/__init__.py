"""Metrics: outputs of a whole split to a number.

A part offers
  Config                                    its options
  BETTER                                    "higher" or "lower"
  build(config, task) -> metric             a metric object with
    count(outputs, batch) -> dict           name to Tensor, a plain sum over the batch's rows (float64 or int64), or, when
                                            JOINED is True, per-row values that are concatenated in row order
    score(total) -> float | dict            the number from the added (or concatenated) counts; a dict of names to numbers or to nested
                                            lists where the metric is several (precision, recall and F1; a confusion matrix).
                                            Never NaN: where a score has no meaning (AUROC with one class) it is None
  JOINED (optional)                         True when the counts are concatenated, not added (AUROC)
A split's score must not depend on how it was cut into batches.
"""
