"""Schedules: how the learning rate moves.

A part offers
  Config(danlu.recipe.ScheduleOptions)      its options; `warmup` (steps, or a share of all steps below 1) comes with the base
  build(config, total_steps) -> schedule    schedule(step) -> float in [0, 1], step counts from 0; the warm-up is put around it by
                                            danlu.registry.build_schedule, the part sees the steps after it
A pure function of the step, except where the object also offers observe(score, better), state() -> dict and load(state): then it is
told the validation score after every evaluation (reduce on plateau), and its state is kept in the checkpoint.
"""
