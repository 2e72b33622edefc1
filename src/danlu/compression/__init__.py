"""A smaller form of an artifact, measured: compress.py applies compressors, distillation.py teaches a student."""
