"""Transforms: a column to the next column, until it is what a model takes.

A part offers
  Config       its options, a danlu.recipe.Options
  TAKES        the kinds of column it accepts, a tuple of danlu.terms.Kind
  fit(config, column) -> state            what it learns from the training rows
  apply(config, state, column) -> Column  the changed column
  graph(config, state, graph, value) -> Value (optional)
               `apply` as nodes of an ONNX graph
See danlu.parts.transforms._base.Transform for what each must keep.

The transforms of a column end in one of
  number     (N,) or (N, D) float without a missing value      "numbers" of the model
  category   without a missing value; code 0 means unknown     "categories" of the model
  image      uint8                                             "image" of the model
  sequence   tokens (danlu.terms: PADDING, UNKNOWN, ...)       "tokens" of the model
             with `cardinalities`; a missing row has length 0
  frames     float32 (frames, F), finite; a missing row has    "frames" of the model
             length 0
Several columns that end in tokens (or frames) are separate inputs called "tokens.COLUMN"; a single
one is called "tokens".
"""
