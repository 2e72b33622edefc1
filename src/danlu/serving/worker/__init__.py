"""A worker process: decodes request bodies, batches rows, answers with one model."""
