"""Bytes and raw values to typed columns. A library that sources, columns and drafting share; nothing here is a part."""
