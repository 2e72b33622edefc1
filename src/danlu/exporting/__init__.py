"""Exports: an artifact in another runtime's form, kept only when it answers as the artifact does.

export.py writes, loader.py opens, parity.py compares (on the rows that held_out.py selects),
traceable.py makes the module that exporters trace, card.py writes MODEL_CARD.md.
"""
