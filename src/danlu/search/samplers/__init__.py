"""Samplers: which values are tried next.

A part offers (danlu.search.samplers._base.SamplerFacts)
  Config                                              its options
  build(config, space, directions, seed, study_seed)  an optuna.samplers.BaseSampler over the
                                                      `space` (danlu.recipe.Space) for a study with
                                                      these `directions` ("higher" | "lower" each)
  size(config, space) -> int                          optional: how many different trials there are
  refuses(config, space) -> str                       optional: why it cannot search this space
  SEVERAL, LEARNS                                     optional: False for a sampler of one objective
                                                      only; for one that ignores results

It is built anew for every suggestion and stores nothing. `seed` is a function of the study's seed
and the trial's number, `study_seed` is the same for all trials. The Optuna study that it gets
holds, by number, every trial told so far (COMPLETE, PRUNED, FAIL) and those that are running beside
it (RUNNING, with their parameters). So a suggestion is a pure function of (seed, number, trials
told).

In that study a choice is the index of the value among the dimension's choices (an int). Dimensions
are asked for in the order of the space, once each, where they take part. A dimension that the
sampler's relative search space leaves out is drawn by `sample_independent`.

A contract test asks every sampler for the same twice, for values inside the space, with conditions,
and for batches.
"""
