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
  SCORED (optional)                         False where the loss cannot score outputs by themselves: evaluation leaves it out
An adversarial loss (FITS "samples", SCORED False) offers instead of the call
    discriminator(real_logits, fake_logits), generator(fake_logits)      each -> (sum, count)
    penalised, penalty(judge, real, fake) -> sum                         judge(images) -> logits; twice differentiable
    options                                 discriminator_steps, penalty_every, and a learning rate scale a side
Only danlu.training.step divides. With several tasks both are vectors, one entry a task, weights already inside the sums.
"""
