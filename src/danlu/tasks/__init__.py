"""Tasks: what is asked, which columns, and how outputs become answers.

A part offers
  Config                                    its options
  DEFAULTS                                  recipe keys to values: {"loss": ..., "metrics": [...], "train.epochs": ...}
  TARGETS                                   (least, most) number of target columns; most None: no limit
  LOSSES                                    names of the losses that fit it
  METRICS                                   names of the metrics that fit it
  build(config, targets) -> task            `targets` maps a target name to its Column over the training rows (typed); fits what the
                                            task must know (the classes) and raises DataError if the target does not fit the task
  restore(config, state) -> task            the same task from `task.state()`, for an artifact
A task object offers
  output: Output                            what the model must return
  target_names: tuple[str, ...]
  state() -> dict                           JSON values
  encode(targets) -> array or dict          targets (dict of Columns) as numpy: int64 (N,) classes, float32 (N, size) numbers or 0/1
                                            labels; a dict by target name for several tasks. Raises DataError naming class and column
                                            for a value never seen in training; a missing target is refused, with the count of rows
  answers(outputs) -> list[dict]            outputs: float32 Tensor (N, size) on the CPU. One dict a row: {"prediction": value} and,
                                            for classes, {"probabilities": {class: p}}
  score_order: (metric name, "higher" | "lower")   the score that early stopping and "best" go by, unless the recipe names another
"""
