"""The machine: devices, random draws, atomic files, locks, signals, trust, keys, signatures."""
