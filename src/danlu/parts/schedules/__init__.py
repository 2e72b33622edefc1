"""Schedules: the learning rate over the steps of a training.

A part offers
  Config       its options, a danlu.recipe.ScheduleOptions (which brings `warmup`)
  build(config, total_steps) -> schedule

The schedule is a function (danlu.parts.schedules._base.Schedule), or a ScoreSchedule where it
depends on validation scores. danlu.registry.build_schedule puts the warm-up before it: a part sees
only the steps after the warm-up.
"""
