"""Text generation for many requests at once: continuous batching over one key-value cache."""
