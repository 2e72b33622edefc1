"""A checked Keras network on another of its backends, in a process of its own: arrays in, arrays out, through files of a folder.

This file is run by its path, by the interpreter that has the backend; it needs numpy and Keras
there, and nothing of danlu.

    python keras_elsewhere.py FOLDER      config.json and model.weights.h5 lie there; each line on standard input is a number n: the rows of
                                          n.npz go through the network, and its outputs become n.out.npz; the answer is a line of JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def serve(folder: Path) -> None:
    """Answer lines until there are no more."""
    import keras  # type: ignore[import-not-found]
    import numpy as np

    config = json.loads((folder / "config.json").read_text("utf-8"))
    network: Any = keras.saving.deserialize_keras_object(config, safe_mode=True)
    network.load_weights(folder / "model.weights.h5")
    names = [each.name for each in network.inputs]
    _say({"backend": keras.config.backend(), "keras": keras.__version__})
    for line in sys.stdin:
        number = int(line)
        with np.load(folder / f"{number}.npz", allow_pickle=False) as given:
            outputs = network([given[name] for name in names], training=False)
        np.savez(
            folder / f"{number}.out.npz", outputs=np.asarray(keras.ops.convert_to_numpy(outputs))
        )
        _say({"done": number})


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(f"danlu {json.dumps(value)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
