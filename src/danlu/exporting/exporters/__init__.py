"""Exporters: an artifact as a file that another runtime reads.

A part offers `Config` (its options) and what danlu.exporting.exporters._base.Exporter lists: NEEDS,
TORCH_FREE, export, start; further refusal, tolerances, other_runtimes, preprocessing_run, card.

`export` gets the artifact (danlu.artifact.prediction.Artifact) and its network with finished
answers as one module of tensors (danlu.exporting.traceable.TraceableModel). The function that
`start` returns takes arrays by name and gives those of `model.outputs`: finished answers
(probabilities, numbers in units of the data), which the task turns into words.

Which arrays it takes, the exporter says by keys of the dict that `export` returns (RunInfo):

  "columns"   {column: number of its first transforms that danlu runs outside of the file}, for an
              exporter that takes raw columns. It names the columns that lead to numbers, categories
              and an image. Arrays are called "column NAME" and have N rows:
                number    float64 (N,) or (N, D), NaN where missing
                category  str objects (N,), "" where missing
                boolean   int8 (N,), -1 where missing
                datetime  int64 (N,), microseconds since 1970, -2**63 where missing
                image     uint8 (N, H, W, C)
                code      int64 (N,), a category after all its transforms
              All other inputs come prepared, as without the key.
  no such key  prepared arrays by input name, as `model.inputs` lists them: numbers float32 (N, F),
              categories int64 (N, C), image uint8 (N, H, W, C), tokens int64 (N, T) or (N, T, D),
              frames float32 (N, T, F) beside NAME_lengths int64 (N,), series float32 (N, L, F)
  "longest"   {input: T}: tokens or frames are padded to this one length; a longer row is refused
  "left_out"  {output: entries of its last axis that the files lack}: special tokens of danlu's own,
              at most five
  "features"  names of the network's number columns, for the output "unusable" (see the loader)

Every export is compared with its artifact, from its files as a user would run them, and nothing is
kept where the answers differ: danlu.exporting.export.
"""
