"""Optimizers: one update of the weights.

A part offers
  Config                                    its options; learning_rate is always among them
  build(config, groups) -> Optimizer        a torch.optim.Optimizer over `groups` (list of dicts: "params", optionally
                                            "weight_decay", and "learning_rate_scale", which build leaves alone); fused forms where
                                            torch has them. The caller sets group["lr"] before each step. All state is tensors and
                                            numbers in state_dict(), and load_state_dict() restores every bit
  initial(parameter) -> dict                the state of the pure rule: Tensors like the parameter
  update(parameter, gradient, state, step, options) -> (parameter, state)
                                            the same formula as a pure function of tensors, torch operators only, no branch on a
                                            value, so that torch.func.vmap can run many trials; `step` is an int and counts from 1;
                                            `options` maps an option's name to its value: a number as float or 0-dim float64 Tensor
                                            (in float32 1 - 0.999 keeps 5 digits), the rest as they are
  SPARES_TABLES (optional)                  True where embeddings and output layers over a vocabulary must come in a group of their own
                                            that says "muon": False (danlu.apparatus.tables)
  FULL_BATCH (optional)                     True where one update takes all training rows (gradient descent)
The docstring gives the formula and its paper. A contract test holds rule and torch together to 1e-6 over 50 steps.
"""
