"""Pruners: which trials are ended before their time.

A part offers
  Config                                    its options
  build(config, direction, seed) -> pruner  for an objective of which `direction` ("higher" | "lower") is better
    prune(number, curve, others) -> bool    whether trial `number` ends now. `curve` holds its scores so far, one an evaluation, the last
                                            just measured; `others` maps the numbers of all other trials to their curves, none longer
                                            than `curve`: nothing is known of a later evaluation
  EXPLOITS (optional)                       True for population-based training: no trial is ended, but
    exploit(scores, options, generator)     is asked at every turn of the population (see population_based)
An answer depends on these arguments alone. Curves count evaluations, not steps: trials may have batches of other sizes.
A contract test asks every pruner for the same twice, and about a trial that is best, which none ends.
"""
