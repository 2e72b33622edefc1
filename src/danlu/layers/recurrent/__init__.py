"""Recurrent layers and what reads sequences with them."""
