"""Tasks: what a model is trained to answer, which columns hold it, and how outputs become answers.

A part offers
  Config                      its options (danlu.recipe.Options)
  DEFAULTS                    recipe keys to values: {"loss": ..., "metrics": [...]}
  recommends(config)          further such values, which depend on the options; optional
  ASKS, TARGETS, INPUTS_TOO, READS, STEP, LOSSES, METRICS, adapt, recast
                              see TaskFacts in _base.py; all but ASKS are optional
  build(config, targets)      the task. `targets` maps a target name to its Column over the training
                              rows; what the task must learn of them (its classes) is learnt here.
                              Raises DataError where the target does not fit the task
  restore(config, state)      the same task from `task.state()`, for an artifact. Where the task is
                              to be exported, it must not import torch

The task's class derives from the classes of _base.py that say what it can do: from `Task` or the
class that belongs to its ASKS (`ClassifiesRows`, `PredictsNumbers`, ...); from `EncodesTargets`
where an example is a row, else from `CutsExamples`; from `AnswersOutputs` or `Responds`; from
`Exportable` in one of its forms where its artifacts are to be exported; and from any of the others.
A task of another package is the same, under the entry-point group danlu.tasks.
"""
