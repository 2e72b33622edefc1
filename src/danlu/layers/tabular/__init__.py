"""Layers of models that read columns."""
