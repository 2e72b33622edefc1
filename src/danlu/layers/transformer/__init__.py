"""Transformer blocks, encoders and language models."""
