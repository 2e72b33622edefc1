"""Many texts from one language model at once: continuous batching over one key-value cache.

engine     Engine: which text gets its next token when; EngineTexts: the same as plain data
kv_slots   the key-value cache that the texts share, one slot each
"""
