"""Ways to train one network: what `overhead.py` compares.

A contestant offers
  NAME                          what the table calls it
  NEEDS                         the distributions it is made of
  STYLES                        ways to use it, by name: a sentence each
  run(work, style) -> (Timing, weights)
                                trains work.network() (or its twin) for work.epochs from work.weights; the timing lasts from just before
                                the first update to just after the last one. `weights` are the trained ones, in the order and layout of
                                torch, so that the table can say whether all did the same work
The style "bare" is the fastest way known to use it, in the memory layout that is best here; "usual" is the way its guide shows.
"""
