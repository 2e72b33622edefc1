"""Optimizers: one update of the weights.

A part offers
  Config       its options, a danlu.recipe.Options with a `learning_rate`
  build(config, groups) -> torch.optim.Optimizer
  initial, update, UPDATE, DECAY, SPARES_TABLES, initial_of_table, ELEMENTWISE, FULL_BATCH
               (optional)
               see danlu.parts.optimizers._base.OptimizerFacts, which says what each is

`groups` is a list of parameter groups: dicts with "params" and optionally "weight_decay" and
"learning_rate_scale", which `build` leaves alone. Use fused kernels where torch has them. The
caller sets group["lr"] before each step. All state is tensors and numbers in state_dict(), and
load_state_dict() restores every bit. The module's docstring gives the formula and its paper.
"""
