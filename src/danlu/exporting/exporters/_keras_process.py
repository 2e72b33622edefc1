"""A checked Keras network on another backend, in a process of its own, through files.

This file is run by its path, by the interpreter that has the backend; it needs numpy and Keras
there, and nothing of danlu.

    python _keras_process.py FOLDER

config.json and model.weights.h5 are in the folder. Each line on standard input is a number n: the
arrays of n.npz go through the network, its outputs become n.out.npz, and a line of JSON is printed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def serve(folder: Path) -> None:
    """Answer the lines of standard input until there are no more."""
    import keras  # type: ignore[import-not-found]
    import numpy as np

    config = json.loads((folder / "config.json").read_text("utf-8"))
    network: Any = keras.saving.deserialize_keras_object(config, safe_mode=True)
    network.load_weights(folder / "model.weights.h5")
    names = [tensor.name for tensor in network.inputs]
    _write_line({"backend": keras.config.backend(), "keras": keras.__version__})
    for line in sys.stdin:
        number = int(line)
        with np.load(folder / f"{number}.npz", allow_pickle=False) as arrays:
            outputs = network([arrays[name] for name in names], training=False)
        np.savez(
            folder / f"{number}.out.npz", outputs=np.asarray(keras.ops.convert_to_numpy(outputs))
        )
        _write_line({"done": number})


def _write_line(value: dict[str, Any]) -> None:
    sys.stdout.write(f"danlu {json.dumps(value)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
