"""The machine and what it keeps safe: devices, random draws, whole files, locks, signals, trust, encryption, signatures. No deep learning."""
