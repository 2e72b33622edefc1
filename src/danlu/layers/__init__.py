"""Modules that model families share, by subject: attention, vision, text, tabular, audio, ...

Each file's first line says what it holds. A layer's shapes are in its class docstring.
"""
