"""KerasTuner on Keras' torch backend, as its guide shows; only what to try is given to it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

from cases import CLASSES, PIXELS
from measuring import Clock
from searches import DECAY, DROPOUT, RATE, Work
from tuners import Tuned

NAME = "KerasTuner on torch"
NEEDS = ("keras-tuner", "keras")
STYLES = {
    "usual": "tuner.search(images, labels) on NumPy arrays, validation once an epoch, its own checkpoint an epoch, no progress bar"
}


def run(work: Work, style: str, values: list[dict[str, float]]) -> Tuned:
    """Tune; see tuners."""
    import keras_tuner

    class Given(keras_tuner.Oracle):
        """Tries the values of everyone, in order."""

        given = 0

        def populate_space(self, trial_id: str) -> dict[str, Any]:
            if self.given == len(values):
                return {"status": "STOPPED", "values": None}
            self.given += 1
            return {"status": "RUNNING", "values": values[self.given - 1]}

    images, labels, held_images, held_labels = (each.cpu().numpy() for each in work.tensors)
    with tempfile.TemporaryDirectory(dir=work.folder) as folder, Clock() as clock:
        oracle = Given(
            objective=keras_tuner.Objective("val_accuracy", "max"), max_trials=len(values)
        )
        tuner = keras_tuner.Tuner(
            oracle, lambda options: _network(work, options), directory=folder, project_name="tuning"
        )
        tuner.search(
            images,
            labels,
            batch_size=work.batch_size,
            epochs=work.epochs,
            validation_data=(held_images, held_labels),
            verbose=0,
        )
        trials = sorted(tuner.oracle.trials.values(), key=lambda trial: int(trial.trial_id))
    return Tuned(clock.wall, 0.0, clock.cpu, [float(trial.score) for trial in trials])


def _network(work: Work, options: Any) -> Any:
    import keras
    from keras import layers

    found = {
        name: options.Float(
            name, each["low"], each["high"], sampling="log" if each.get("log") else "linear"
        )
        for name, each in work.search.space().items()
    }
    body: list[Any] = [keras.Input((PIXELS * PIXELS,))]
    for width in work.search.hidden:
        body += [
            layers.Dense(width, activation="relu", kernel_initializer="he_normal"),
            layers.Dropout(found[DROPOUT]),
        ]
    network = keras.Sequential([*body, layers.Dense(CLASSES)])
    if work.search.optimizer == "momentum":
        optimizer = keras.optimizers.SGD(found[RATE], momentum=0.9, weight_decay=found[DECAY])
    else:
        optimizer = keras.optimizers.AdamW(found[RATE], epsilon=1e-8, weight_decay=found[DECAY])
    network.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return network
