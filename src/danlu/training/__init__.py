"""Training: the loop, what it runs, and the state it keeps.

loop.py is the loop (read it first), setup.py builds what it runs, step/ makes one update,
checkpoint.py keeps its state."""
