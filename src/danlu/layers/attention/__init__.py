"""Attention: the kernel, rotary positions, the multi-head module."""
