"""Watchers: hear every report; may speak, write or ask to stop. They never touch weights.

A part offers
  Config                                    its options
  build(config, setting) -> watcher         `setting`: danlu.parts.watchers._base.RunInfo (run folder, recipe, quiet, resumed step, better, metric)
    hear(report) -> str | None              a sentence asks training to stop and says why
    state() -> dict, load(state)            optional; JSON values kept in the checkpoint
    sync()                                  optional; when it returns, what the last state() speaks of is on the disk. Called in
                                            the thread that writes checkpoints, before the checkpoint: the loop does not wait
    close()                                 optional
"""
