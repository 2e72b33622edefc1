"""What all tests share: one thread for each process, since several run at once."""

from __future__ import annotations

import os

# before torch is imported, here and in every process that a test starts
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ[
    "MKL_NUM_THREADS"
] = "1"
