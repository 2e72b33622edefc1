"""Losses: what training makes small.

A part offers
  Config                                    its options
  build(config, task) -> loss               a loss object with
    loss(outputs, batch) -> (sum, count)    sum: the loss summed over rows, a scalar Tensor with gradient; count: what to divide it by,
                                            a scalar Tensor without gradient, equal to loss.count(batch)
    loss.count(batch) -> Tensor             the divisor, from the batch alone (rows, or the sum of their weights), so that gradient
                                            accumulation over unequal micro batches stays exact
Only step.py divides. With several tasks both are vectors, one entry a task, weights already inside the sums.
"""
