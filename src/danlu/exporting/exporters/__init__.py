"""Exporters: an artifact as a file that another runtime reads.

A part offers
  Config                                       its options
  NEEDS                                        (library, extra): what must be installed to make it; ("", "") where nothing beyond danlu
  fits(config, artifact) -> str (optional)     "" where it can export this artifact, else a sentence that says why not; asked first
  export(config, artifact, program, folder) -> dict     writes its files into `folder` (names of its own choosing, no folders inside) and gives
                                               what `start` must know of them, JSON values ("about")
  start(folder, about) -> run                  opens those files: run(arrays) -> {output name: array}, see below. Where TORCH_FREE is True
                                               it imports neither torch nor pyarrow; what it reads lies in `folder` under fixed names
  TORCH_FREE                                   whether `start` and `run` work without torch
  lets(config) -> dict (optional)              {"difference": the largest that the proof allows}, where a lower precision needs more than 1e-4
  elsewhere(folder, about) -> dict (optional)   {name: run}: other programs that read the same files, proven too where they are installed
  stages(folder, about) -> run (optional)      as `start`, but gives the network's inputs by name: to tell whether answers part before it or in it
  card(about) -> list[str] (optional)          lines for the model card: how another program runs the files
`artifact` is danlu.artifact.prediction.Artifact, `program` is danlu.exporting.traceable.Program: the network with its answers, as a module of tensors in an order.

What arrays `run` receives is for the part to say, by two keys of `about`:
  "columns"   {column: number of its first transforms that stay outside}, for a part that takes raw columns and does the rest inside; it names
              the columns that lead to numbers, categories and an image. Arrays are called "column NAME", N rows:
                number    float64 (N,) or (N, D), NaN where missing         category  str objects (N,), "" where missing
                boolean   int8 (N,), -1 where missing                       datetime  int64 (N,), microseconds since 1970, -2**63 missing
                image     uint8 (N, H, W, C)                                code      int64 (N,), after all its transforms
              All other inputs come prepared, as below.
  no such key   arrays by input name as `program.inputs` lists them: numbers float32 (N, F), categories int64 (N, C), image uint8
              (N, H, W, C), tokens int64 (N, T) or (N, T, D), frames float32 (N, T, F) beside NAME_lengths int64 (N,), series float32 (N, L, F)
  "longest"   {input: T}, where tokens or frames must be padded to one length; a longer row is then refused
  "left_out"  {output: entries of its last axis that the files have no place for}: marks of danlu's own, at most five
The outputs are those of `program.outputs`: finished answers (probabilities, numbers in units of the data), which the task puts into words.

The proof runs every export from its files as a user would, and no file is left where it fails:
danlu.exporting.export."""
