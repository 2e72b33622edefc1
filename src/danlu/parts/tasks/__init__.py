"""Tasks: what is asked, which columns, and how outputs become answers.

A part offers
  Config                                    its options
  DEFAULTS                                  recipe keys to values: {"loss": ..., "metrics": [...], "train.epochs": ...}
  recommends(config) (optional)             further ones, which go by the options
  TARGETS                                   (least, most) number of target columns; most None: no limit
  ASKS                                      what outputs and encoded target are, which losses and metrics go by:
                                              classes  logits (N, classes), int64 (N,) class numbers
                                              labels   logits (N, labels), float32 (N, labels) of 0 and 1
                                              numbers  float32 (N, size), float32 (N, size)
                                              several  the outputs of several tasks side by side, a dict by target name
                                              tokens   logits (N, T, classes), int64 (N, T), IGNORED where nothing is asked
                                              steps    float32 (N, steps, size), the same, NaN where nothing is asked
                                              spelling logits (N, T', characters) and int64 (N, S) with 0 after the end (CTC)
                                              pixels   float32 (N, C, H, W), the same
                                              samples  what a generator makes, beside batch.inputs (GAN)
  LOSSES                                    names of the losses that fit it: those whose FITS has ASKS
  METRICS                                   names of the metrics that fit it, likewise
  build(config, targets) -> task            `targets` maps a target name to its Column over the training rows (typed); fits what the
                                            task must know (the classes) and raises DataError if the target does not fit the task
  restore(config, state) -> task            the same task from `task.state()`, for an artifact
A task object offers
  output: OutputSpec                        what the model must return
  target_names: tuple[str, ...]
  state() -> dict                           JSON values
  encode(targets) -> array or dict          targets (dict of Columns) as numpy: int64 (N,) classes, float32 (N, size) numbers or 0/1
                                            labels; a dict by target name for several tasks. Raises DataError naming class and
                                            column for a value never seen in training; a missing target is refused, with the
                                            count of rows
  answers(outputs) -> list[dict]            outputs: float32 Tensor (N, size) on the CPU. One dict a row: {"prediction": value} and,
                                            for classes, {"probabilities": {class: p}}
  score_order: (metric name, "higher" | "lower")   the score that early stopping and "best" go by, unless the recipe names another
  describe() -> str                         one line for the report: "classification of income: 2 classes (<=50K 76 %, >50K 24 %)"
  baseline(train_target, target) -> dict    scores of a constant guess learnt from the encoded training target, by metric name
and, by what it asks
  tokens            classes (names of the classes; () for a vocabulary)
  classes, labels   classes; probabilities(outputs) float64; predicted(outputs): int64 (N,) class numbers, or bool (N, labels)
  classes           class_counts, class_weights(chosen), positive_class (its number)
  labels            label_counts, positive_weights(chosen)
  numbers           to_units(outputs), in_units(differences): in the units of the data, float64; standardised(outputs)
  several           tasks, parts, slices, weights by target name; outputs_of(name, outputs)

For exports, which run without torch (all optional; a task without them is not exported), a task object that can be restored without torch offers
  finish(module, inputs, outputs) -> dict[str, Tensor]    the outputs as finished answers (probabilities, numbers in units of the data), traced
                                            into the export: tensor operations alone
  told(arrays, beside) -> list[dict]        what `answers` (or `respond`) gives, of finished arrays by name as numpy; `beside` holds the other
                                            arrays of the examples, and NAME_sizes, the lengths of rows of tokens or frames
  write(run, given) -> list[dict]           instead of `told`, where answers are written token by token: run(arrays) -> outputs
  scales() -> dict                          by name of a finished array what a difference is divided by before it is judged (1 where it says none)
  exported(module), runs(module, inputs), tried(module, count), asked(), given(table, size)     of a generator, whose export takes noise: what it
                                            is given, its outputs, inputs for a proof, the columns of a row that asks, and their inputs
  frames_rows                               True where `frame` leaves rows as they are

A task whose examples are no rows, or whose inputs and targets are the same columns, offers further (all optional)
  INPUTS_TOO (of the part)                  True where target columns are inputs as well (forecasting: their past)
  READS (of the part)                       kinds of prepared input that `frame` reads ("numbers", ...), where they are not the model's
  needs: tuple[str, ...]                    columns beside the inputs that `frame` looks at, also when rows are to be answered
  adapt(config, data) -> Data               of the part: the recipe's data section with what the task knows better (a running text is
                                            tokenized whole)
  recast(config, table) -> Table            of the part: the table in the rows that the task thinks in (a text in pieces, a series in the
                                            order of time), before it is split; sets Table.continues. Copies as little as it can
  attach(preprocessor)                      the fitted danlu.data.preprocessing.Preprocessor, before `frame`, for a task that reads or writes text
                                            by the tokenizer that the chains hold
  frame(arrays, described, targets, splits, table, answering=False) -> danlu.data.examples.Examples     of the task object.
                                            arrays: what the preprocessing gives, by input name, all rows (arrays or Ragged);
                                            described: the Inputs; targets: {name: Column}, {} where the rows hold none; splits: rows
                                            by split ({"data": all rows} for a file to score or answer); answering: ids are those to
                                            be answered (the last window of a series), target None. Instead of `encode`
  baseline(examples, split) -> dict         with `frame`: scores of a naive guess on examples.splits[split]
  corrupt(batch, seed) -> Batch             hides or changes part of every batch, in training and in evaluation (masked tokens): a pure
                                            function of seed and of batch.rows, never of how rows are cut into batches
  respond(module, batch) -> list[dict]      answers that need more of the module than its outputs (generation). Used instead of
                                            `answers`; each has "prediction"
  in_words(answers, table, ids) -> list[dict]   the answers of examples `ids` completed by what the raw rows hold (the words of a span)
  calibrate(pairs) -> None                  when training ends, before anything is scored: what the task learns from (outputs, batch) of
                                            the validation examples (of training where there are none); kept by `state()`
  answer_column, rewrite(module, batch, column) -> list[str | None]     the name of the text column that holds what is to be written, and the
                                            texts of the batch's rows of it as the model would write them; None where it wrote nothing
                                            that ended. A student may then learn from those (distil.sequences)
  references(batch) -> list[str]            the right answers as text, beside metrics that read text (BLEU)
  samples(module, seed) -> tuple[Sample]    a few things made by a generative model, at each evaluation; pure function of weights, seed
  STEP                                      "supervised" (default) or "adversarial": which danlu.training.step performs an update
"""
