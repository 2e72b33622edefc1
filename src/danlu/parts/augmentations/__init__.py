"""Augmentations: random changes of a training batch, on tensors, on the batch's device.

A part offers
  Config                                    its options
  build(config, inputs, output) -> augment  augment(batch, generator) -> Batch; every random number comes from `generator`, a
                                            torch.Generator that the caller seeded with (seed, step)
TAKES (optional): the kinds of input it changes; ("image",) where it does not say.
Whole batches; no Python loop over rows. Shapes and dtypes of the inputs are kept. The argument is not changed in place.
mixup and cutmix make the class target float32 (B, classes).
"""
