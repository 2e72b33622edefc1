"""Layers that turn tokens of a text into vectors."""
