"""Optimizers: one update of the weights.

A part offers
  Config                                    its options; learning_rate is always among them
  build(config, groups) -> Optimizer        a torch.optim.Optimizer over `groups` (list of dicts: "params", optionally "weight_decay",
                                            and "learning_rate_scale", which build leaves alone); fused forms where torch has them
  initial(parameter) -> dict                the state of the pure rule: Tensors like the parameter
  update(parameter, gradient, state, step, options) -> (parameter, state)
                                            the same formula as a pure function of tensors, torch operators only, no branch on a value, so
                                            that torch.func.vmap can run many trials; `step` counts from 1; `options` maps option
                                            name to a float or a 0-dim Tensor
  FULL_BATCH (optional)                     True where one update takes all training rows (gradient descent)
The docstring gives the formula and its paper. A contract test holds rule and torch together to 1e-6 over 50 steps.
"""
