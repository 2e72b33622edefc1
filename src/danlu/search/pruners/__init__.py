"""Pruners: which trials end early.

A part offers
  Config                          its options
  build(config, direction, seed)  a Pruner (danlu.search.pruners._base) of one objective, of which
                                  `direction` ("higher" | "lower") is better
  EXPLOITS                        optional; True where `build` gives an ExploitingPruner, which
                                  ends no trial, but has bad trials copy good ones

Its answers depend on the arguments alone. A contract test asks every pruner the same twice, and
checks that none ends the best trial.
"""
