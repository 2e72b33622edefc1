"""Hyperparameter search: studies, their storage, what is tried next (samplers), what ends early (pruners), where trials run (executors)."""
