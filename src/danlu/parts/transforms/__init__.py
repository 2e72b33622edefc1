"""Transforms: a column to the next column, until it is what a model takes; fitted on the training split only.

A part offers
  Config                                   its options
  TAKES                                    the kinds it accepts, a tuple of danlu.terms.Kind
  fit(config, column) -> state             what it learnt from the training rows: a dict of JSON values and numpy arrays; travels in
                                           the artifact, so it holds no object of another type
  apply(config, state, column) -> Column   the changed column, same number of rows; never changes its argument; any number of rows
                                           down to 1; a value never seen in training is allowed and never raises
A chain of transforms ends in one of
  number     (N,) or (N, D) float without a missing value            "numbers" of the model
  category   without a missing value; code 0 means unknown           "categories" of the model
  image      uint8                                                   "image" of the model
  sequence   tokens (danlu.terms: PADDING, UNKNOWN, ...), with `cardinalities`; a missing row has length 0      "tokens" of the model
  frames     float32 (frames, F), finite; a missing row has length 0  "frames" of the model
Several columns that lead to tokens (or frames) are inputs of their own, called "tokens.COLUMN"; one alone is "tokens".
numpy only (and, for tokens, the tokenizers library). Whole columns at a time; no Python loop over rows.

A part may offer further
  graph(config, state, graph, value) -> Value   `apply` as nodes of an ONNX graph (danlu.parts.transforms._onnx_graph.Graph, Value), for exports; a part
                                           without it is run outside of the graph

Three keys of a state are read by others: "notice", a plain sentence the reader wants told; of an
image, "pixels": {"mean": [...], "std": [...]} by channel, by which batches are scaled; of tokens
and frames, "longest": the length of the longest row that a model must be ready for. State arrays
hold finite numbers. Categories are learnt by their text, never by their code or place in the
column's `categories`, which may differ from table to table. Row i of what apply gives depends on
row i alone, to the last bit, so that a row served alone gets the answer it got among others."""
