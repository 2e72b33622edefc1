"""The command line: one file a verb or family of verbs, render.py turns results into lines. No logic stands here."""
