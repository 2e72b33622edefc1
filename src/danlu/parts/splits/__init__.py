"""Splits: which rows are for training, validation and test.

A part offers
  Config       its options, a danlu.recipe.Options
  build(config, table, target, seed) -> {"train": rows, "validation": rows, "test": rows}
  decided_by(config) -> str (optional)
               the column that decides the split and is therefore no input
See danlu.parts.splits._base.Split for what each must keep.
"""
