"""Uses of private names of other libraries (torch, Optuna, uvicorn), one file per library.

Each entry has a public fallback and a test of both."""
