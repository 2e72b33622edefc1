"""Layers with weights or activations of few bits."""
