"""Losses: what training makes small.

A part offers
  Config                                    its options
  FITS                                      what a task may ask for that the loss can train: a subset of ("classes", "labels",
                                            "numbers", "several", "tokens", "steps", "spelling", "pixels", "samples"); see danlu/tasks
  build(config, task) -> loss               a loss object with
    loss(outputs, batch) -> (sum, count)    sum: the loss summed over rows, a scalar float32 Tensor with gradient, whatever the
                                            dtype of the outputs; count: what to divide it by, a scalar Tensor without gradient,
                                            equal to loss.count(batch)
    loss.count(batch) -> Tensor             the divisor, from the batch alone (rows, or the sum of their weights), so that gradient
                                            accumulation over unequal micro batches stays exact. It may be shared between
                                            calls: never change it in place
Only step.py divides. With several tasks both are vectors, one entry a task, weights already inside the sums.
"""
