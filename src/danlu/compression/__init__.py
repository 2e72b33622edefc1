"""A smaller form of an artifact, with its scores measured again.

compress.py applies compressors, distillation.py teaches a student."""
