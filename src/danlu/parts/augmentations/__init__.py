"""Augmentations: random changes of a training batch, on tensors, on the batch's device.

A part offers
  Config       its options, a danlu.recipe.Options
  build(config, inputs, output) -> Augmentation
  TAKES (optional)
               the kinds of input it changes; ("image",) unless set

`inputs` maps a name to danlu.terms.InputSpec, `output` is a danlu.terms.OutputSpec. What an
augmentation must keep is said in danlu.parts.augmentations._base.Augmentation. It works on whole
batches, without a Python loop over rows.
"""
