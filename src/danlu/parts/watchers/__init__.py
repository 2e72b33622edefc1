"""Watchers: hear every event of a training; may write, tell the user something, or ask to stop.

A part offers
  Config       its options, a danlu.recipe.Options
  build(config, run) -> Watcher

`run` is a danlu.parts.watchers._base.RunInfo: run folder, recipe, steps, metric, output. The
watcher derives from danlu.parts.watchers._base.Watcher. Watchers never touch weights.
"""
