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
  UPDATE                                    how long an update is, which networks of another width must know (danlu/layers/parametrization.py):
                                            "gradient" in proportion to the gradient; "entry" about the learning rate for every weight;
                                            "matrix" a matrix by the length that its shape gives, all else as "entry"
  DECAY (optional)                          "weights" where weight decay shrinks the weights beside the update, by learning_rate *
                                            weight_decay; "gradient", where it does not say: weight_decay * weights join the gradient
  SPARES_TABLES (optional)                  True where embeddings and output layers over a vocabulary must come in a group of their own
                                            that says "muon": False (danlu.training.setup.embedding_tables)
  initial_of_table(parameter) -> dict       with SPARES_TABLES: the state of the pure rule for a parameter of such a group
  ELEMENTWISE (optional)                    True where the pure rule moves each entry by itself, so that parameters may be laid end to
                                            end and moved as one
  FULL_BATCH (optional)                     True where one update takes all training rows (gradient descent)
The docstring gives the formula and its paper. A contract test holds rule and torch together to 1e-6 over 50 steps.
"""
