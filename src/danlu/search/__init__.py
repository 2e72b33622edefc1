"""Hyperparameter search: studies, storage, samplers, pruners, and executors that run trials."""
