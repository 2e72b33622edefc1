"""An artifact in another runtime's form, compared with the original on held-out rows: export.py writes, loader.py opens, parity.py compares."""
