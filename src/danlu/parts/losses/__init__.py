"""Losses: the number that training makes small.

A part offers
  Config                 its options (danlu.recipe.Options)
  FITS, SCORED           see LossFacts in _base.py; SCORED is optional
  build(config, task)    the loss: a `Loss`, or an `AdversarialLoss` for tasks of STEP "adversarial"
                         (both in _base.py). `task` derives from the classes that its ASKS promises.
                         Raises RecipeError for options that do not fit the task
"""
