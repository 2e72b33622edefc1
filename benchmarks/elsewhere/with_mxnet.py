"""The network in MXNet (Gluon, hybridised): its outputs, then one epoch. Run by frameworks.py in an environment of its own."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import mxnet as mx
from given import Given, told
from mxnet import autograd, gluon, nd


def network(given: Given) -> gluon.nn.HybridSequential:
    net = gluon.nn.HybridSequential()
    if given.network == "mlp":
        net.add(gluon.nn.Flatten(), gluon.nn.Dense(128, activation="relu"), gluon.nn.Dense(10))
    else:
        for wide in (32, 64):
            net.add(gluon.nn.Conv2D(wide, 3, padding=1, activation="relu"), gluon.nn.MaxPool2D(2))
        net.add(gluon.nn.Flatten(), gluon.nn.Dense(128, activation="relu"), gluon.nn.Dense(10))
    net.initialize()
    net(nd.array(given.prepared(given.check[:1])))
    put(net, given)
    net.hybridize(static_alloc=True, static_shape=False)
    return net


def put(net: gluon.nn.HybridSequential, given: Given) -> None:
    for parameter, weight in zip(net.collect_params().values(), given.weights):
        parameter.set_data(nd.array(weight))


def main(folder: Path) -> None:
    given = Given(folder)
    net = network(given)
    outputs = net(nd.array(given.prepared(given.check))).asnumpy()
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    first, labels_of_first = given.first()
    began = time.perf_counter()
    epoch(net, loss, given, given.prepared(first), labels_of_first)
    put(net, given)
    warm = time.perf_counter() - began
    rows, labels = given.train()
    began, worked = time.perf_counter(), time.process_time()
    epoch(net, loss, given, given.prepared(rows), labels)
    nd.waitall()
    seconds = time.perf_counter() - began, time.process_time() - worked
    tests = given.prepared(given.test_rows)
    answers = [
        net(nd.array(tests[start : start + 1000])).asnumpy() for start in range(0, len(tests), 1000)
    ]
    told(
        given,
        outputs,
        mx.np.concatenate([mx.np.array(each) for each in answers]).asnumpy(),
        seconds,
        warm,
        f"mxnet {mx.__version__}",
    )


def epoch(
    net: gluon.nn.HybridSequential,
    loss: gluon.loss.Loss,
    given: Given,
    rows: object,
    labels: object,
) -> None:
    options = {"learning_rate": given.learning_rate, "momentum": given.momentum}
    trainer = gluon.Trainer(net.collect_params(), "sgd", options)
    for start in range(0, len(rows), given.batch_size):
        x, y = (
            nd.array(rows[start : start + given.batch_size]),
            nd.array(labels[start : start + given.batch_size]),
        )
        with autograd.record():
            found = loss(net(x), y)
        found.backward()
        trainer.step(len(x))
    nd.waitall()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
