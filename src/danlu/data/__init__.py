"""A recipe's data, from files to batches: cache, checks, column pipelines, preprocessing, examples, batches. Start with dataset.py."""
