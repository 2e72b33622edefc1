"""Samplers: what is tried next.

A part offers
  Config                                                its options
  build(config, space, directions, seed, study_seed)    an optuna.samplers.BaseSampler over the `space` (danlu.recipe.Space) for studies
                                                        with these `directions` ("higher" | "lower" each)
  size(config, space) -> int                            optional: how many different trials there are at all
It is built anew for every suggestion, and keeps nothing: `seed` is a function of the study's seed and the trial's number, `study_seed` is the
same for all of them, and the study that it is asked about holds every trial told so far (state COMPLETE, PRUNED, FAIL) and those
that run beside it (RUNNING, with their parameters), by number. So a suggestion is a pure function of (seed, number, trials told).
A choice stands in that study as its place among the dimension's choices (an int); dimensions are asked in the space's order, each that
takes part once. A dimension that the sampler's relative search space leaves out is drawn by `sample_independent`.
A contract test asks every sampler for the same twice, for values inside the space, with conditions, and for batches.
"""
