"""Splits: which rows are for training, validation and test.

A part offers
  Config                                       its options
  build(config, table, target, seed) -> dict   {"train": rows, "validation": rows, "test": rows}, int64 arrays, sorted ascending,
                                               disjoint. `target` is the first target Column (or None); a split may be empty but train.
A pure function of its arguments. Raises DataError with the remedy when a share comes out empty that was asked for.
"""
