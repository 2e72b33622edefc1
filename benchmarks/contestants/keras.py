"""Keras 3 on its torch backend: bare, and as its guide shows."""

from __future__ import annotations

import os
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

from cases import CLASSES, PIXELS, Work
from measuring import Clock, Timing

FLAT = (64, 7, 7)  # channels, height and width before the dense layers of the CNN

NAME = "Keras on torch"
NEEDS = ("keras",)
STYLES = {
    "bare": "no metric, log or progress bar; whole batches gathered at once",
    "usual": "fit(images, labels) on NumPy arrays in its own order, accuracy counted, progress bar",
}


def run(work: Work, style: str) -> tuple[Timing, list[Any]]:
    """Train; see contestants."""
    import keras

    from contestants.loading import bare_loader

    clock, usual = Clock(), style == "usual"

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            clock.start()

        def on_train_end(self, logs: Any = None) -> None:
            clock.stop()

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if not usual:  # Keras has looked at a batch before, which took the order of an epoch
                loader.sampler.epoch = epoch

    network = _network(work)
    rate = work.case.learning_rate
    momentum = keras.optimizers.SGD(rate, momentum=0.9)
    optimizer = (
        momentum if work.case.optimizer == "momentum" else keras.optimizers.Adam(rate, epsilon=1e-8)
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if usual:
        network.compile(optimizer, loss, metrics=["accuracy"])
        images, labels = work.images.numpy(), work.labels.numpy()
        network.fit(
            images, labels, batch_size=work.batch_size, epochs=work.epochs, callbacks=[Watch()]
        )
    else:
        network.compile(optimizer, loss)
        loader = bare_loader(work)
        network.fit(loader, epochs=work.epochs, verbose=0, callbacks=[Watch()])
    return clock.timing(work.steps), _as_torch(network)


def _network(work: Work) -> Any:
    """The twin of work.network() in layers of Keras, with the same starting weights."""
    import keras
    from keras import layers

    if work.case.hidden is None:
        keras.config.set_image_data_format("channels_first")  # torch's own layout: no transposition
        body = [keras.Input((1, PIXELS, PIXELS))]
        for width in (32, 64):
            body += [
                layers.Conv2D(width, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(2),
            ]
        body += [layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(CLASSES)]
    else:
        body = [keras.Input((PIXELS * PIXELS,))]
        body += [layers.Dense(width, activation="relu") for width in work.case.hidden]
        body.append(layers.Dense(CLASSES))
    network = keras.Sequential(body)
    network.set_weights([_turned(weight.numpy()) for weight in work.weights])
    return network


def _turned(weight: Any) -> Any:
    """Keras keeps a dense matrix as (in, out), a kernel as (height, width, in, out); it flattens
    (height, width, channels)."""
    if weight.ndim == 2 and weight.shape[1] == FLAT[0] * FLAT[1] * FLAT[2]:
        weight = weight.reshape(len(weight), *FLAT).transpose(0, 2, 3, 1).reshape(len(weight), -1)
    return (
        weight.T
        if weight.ndim == 2
        else weight.transpose(2, 3, 1, 0)
        if weight.ndim == 4
        else weight
    )


def _as_torch(network: Any) -> list[Any]:
    import torch

    return [torch.from_numpy(_back(weight).copy()) for weight in network.get_weights()]


def _back(weight: Any) -> Any:
    """The inverse of _turned."""
    if weight.ndim == 4:
        return weight.transpose(3, 2, 0, 1)
    weight = weight.T
    if weight.ndim == 2 and weight.shape[1] == FLAT[0] * FLAT[1] * FLAT[2]:
        return (
            weight.reshape(len(weight), *FLAT[1:], FLAT[0])
            .transpose(0, 3, 1, 2)
            .reshape(len(weight), -1)
        )
    return weight
