"""Keras 3 networks as torch modules."""
