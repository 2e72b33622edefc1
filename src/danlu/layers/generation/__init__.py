"""Generating text: key-value caches, sampling, the autoregressive loop."""
