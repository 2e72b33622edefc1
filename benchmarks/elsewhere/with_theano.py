"""The network in Theano: its outputs, then one epoch. Run by frameworks.py in an environment of its own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import theano
from given import Given, told
from theano import tensor
from theano.tensor.nnet import conv2d, relu
from theano.tensor.signal.pool import pool_2d


def main(folder: Path) -> None:
    given = Given(folder)
    shared = [theano.shared(each.astype("float32")) for each in given.weights]
    x, y = tensor.ftensor4("x"), tensor.lvector("y")
    outputs = forward(given, shared, x)
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    loss = (
        tensor.log(tensor.exp(shifted).sum(axis=1)) - shifted[tensor.arange(y.shape[0]), y]
    ).mean()
    velocities = [theano.shared(np.zeros_like(each.get_value())) for each in shared]
    rate, momentum = np.float32(given.learning_rate), np.float32(given.momentum)
    updates = []
    for weight, velocity, gradient in zip(shared, velocities, tensor.grad(loss, shared)):
        new = momentum * velocity + gradient
        updates += [(velocity, new), (weight, weight - rate * new)]
    began = time.perf_counter()
    answer, update = theano.function([x], outputs), theano.function([x, y], loss, updates=updates)
    found = answer(given.prepared(given.check))
    first, labels = given.first()
    epoch(update, given, given.prepared(first), labels)
    for each, weight in zip(
        shared + velocities, given.weights + [np.zeros_like(each) for each in given.weights]
    ):
        each.set_value(weight.astype("float32"))
    warm = time.perf_counter() - began
    rows, labels = given.train()
    began, worked = time.perf_counter(), time.process_time()
    epoch(update, given, given.prepared(rows), labels)
    seconds = time.perf_counter() - began, time.process_time() - worked
    tests = given.prepared(given.test_rows)
    answers = np.concatenate(
        [answer(tests[start : start + 1000]) for start in range(0, len(tests), 1000)]
    )
    told(given, found, answers, seconds, warm, f"theano {theano.__version__}")


def forward(given: Given, shared: list, x: object) -> object:
    weights, flat = list(shared), x
    if given.network == "cnn":
        for _ in range(2):
            kernel, bias = weights.pop(0), weights.pop(0)
            flat = conv2d(flat, kernel, border_mode="half", filter_flip=False) + bias.dimshuffle(
                "x", 0, "x", "x"
            )
            flat = pool_2d(relu(flat), (2, 2), ignore_border=True)
    first, first_bias, second, second_bias = weights
    hidden = relu(tensor.dot(flat.flatten(2), first.transpose()) + first_bias)
    return tensor.dot(hidden, second.transpose()) + second_bias


def epoch(update: object, given: Given, rows: object, labels: object) -> None:
    for start in range(0, len(rows), given.batch_size):
        update(
            rows[start : start + given.batch_size],
            labels[start : start + given.batch_size].astype("int64"),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
