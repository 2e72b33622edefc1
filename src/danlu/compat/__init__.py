"""What is private in other libraries (torch, Optuna, uvicorn): one file a library, each entry beside a public fallback and a test of both."""
