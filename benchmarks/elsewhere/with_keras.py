"""The network as danlu's Keras export on TensorFlow or JAX: its outputs, then one epoch. Run by frameworks.py in an environment of its own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import keras
from given import Given, told
from numpy import asarray


def main(folder: Path) -> None:
    given = Given(folder)
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    outputs = asarray(keras.ops.convert_to_numpy(model(given.check, training=False)))
    optimizer = keras.optimizers.SGD(given.learning_rate, momentum=given.momentum)
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile="auto"
    )
    first = given.first()
    began = time.perf_counter()
    weights = [keras.ops.convert_to_numpy(each.value).copy() for each in model.variables]
    model.fit(
        *first, batch_size=given.batch_size, epochs=1, shuffle=False, verbose=0
    )  # compiles, for the rows of an epoch's two sizes
    for variable, weight in zip(model.variables, weights):
        variable.assign(weight)
    for variable in optimizer.variables:
        if variable.path.endswith("momentum"):
            variable.assign(keras.ops.zeros(variable.shape))
    warm = time.perf_counter() - began
    rows, labels = given.train()
    began, worked = time.perf_counter(), time.process_time()
    model.fit(rows, labels, batch_size=given.batch_size, epochs=1, shuffle=False, verbose=0)
    seconds = time.perf_counter() - began, time.process_time() - worked
    answers = model.predict(given.test_rows, batch_size=1000, verbose=0)
    import importlib.metadata as metadata

    name = {"tensorflow": "tensorflow-cpu", "jax": "jax"}[keras.config.backend()]
    told(
        given,
        outputs,
        answers,
        seconds,
        warm,
        f"{keras.config.backend()} {metadata.version(name)}, keras {keras.__version__}",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
