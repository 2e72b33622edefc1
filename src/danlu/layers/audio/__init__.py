"""Layers of models that read recordings."""
