"""Compressors: a trained model made smaller or faster, one file per method.

A part offers
  Config                             its options
  compress(config, subject) -> state changes `subject.module`; returns what `replay` needs
  replay(config, state, module)      the same change of a new module, before weights are read
  TRAINS, ROUNDS, NEEDS_STUDENT      optional; whether it trains, whether the model rounds numbers
                                     when it predicts, whether the result is another recipe's model

`_base.Compressor` says what each must do, `_base.Subject` what `compress` works on. A part that
finds nothing to change raises PartError. Layers with a forward of their own are in danlu/layers/.
"""
