"""Ray Tune on a cluster of this one machine: with rows from a DataLoader, as its guide shows, and around the hand-written loop."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from searches import DROPOUT, Work
from tuners import Tuned

NAME = "Ray Tune"
NEEDS = ("ray", "pyarrow")
STYLES = {
    "usual": "a function trainable, rows from a TensorDataset in a DataLoader, one core a trial",
    "bare": "the hand-written loop over resident tensors, one core a trial, actors used again",
}


def run(work: Work, style: str, values: list[dict[str, float]]) -> Tuned:
    """Tune; see tuners. The start is that of the cluster, until the first trial has its rows."""
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault(
        "RAY_TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1"
    )  # no CSV, JSON and TensorBoard files: they only cost
    import ray
    from ray import tune
    from ray.tune.search.basic_variant import BasicVariantGenerator

    from danlu.system.machine import cores

    tensors = tuple(each.cpu().numpy() for each in work.tensors)
    graphics = work.device.startswith("cuda")
    began = time.perf_counter()
    epoch_of = time.time() - began
    ray.init(num_cpus=cores(), include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        trainable = tune.with_parameters(
            _trial,
            tensors=tensors,
            search=work.search,
            folder=str(work.folder),
            device=work.device,
            style=style,
        )
        trainable = tune.with_resources(
            trainable, {"cpu": 1, "gpu": 1 / cores()} if graphics else {"cpu": 1}
        )
        searcher = BasicVariantGenerator(points_to_evaluate=values)
        space = {
            name: tune.loguniform(each["low"], each["high"])
            if each.get("log")
            else tune.uniform(each["low"], each["high"])
            for name, each in work.search.space().items()
        }
        tuner = tune.Tuner(
            trainable,
            param_space=space,
            tune_config=tune.TuneConfig(
                search_alg=searcher, num_samples=len(values), reuse_actors=style == "bare"
            ),
            run_config=tune.RunConfig(storage_path=str(work.folder / "ray"), verbose=0),
        )
        results = list(tuner.fit())
        seconds = time.perf_counter() - began
    finally:
        ray.shutdown()
    scores = {
        tuple(result.config[name] for name in space): result.metrics["best"] for result in results
    }
    start = min(result.metrics["began"] for result in results) - epoch_of - began
    return Tuned(
        seconds, start, None, [scores[tuple(each[name] for name in space)] for each in values]
    )


def _trial(
    config: dict[str, float], tensors: Any, search: Any, folder: str, device: str, style: str
) -> None:
    """One trial, inside a process of Ray's."""
    import torch
    from ray import tune

    began = time.time()
    torch.set_num_threads(1)
    work = Work(search, Path(folder), device)
    work.tensors = tuple(torch.from_numpy(each.copy()).to(device) for each in tensors)
    best = 0.0
    network = work.network(config[DROPOUT])
    optimizer = work.torch_optimizer(network.parameters(), config)
    for _ in range(work.epochs):
        _epoch(work, network, optimizer, style)
        best = max(best, work.accuracy(network))
        tune.report({"best": best, "began": began})


def _epoch(work: Work, network: Any, optimizer: Any, style: str) -> None:
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, TensorDataset

    from tuners.hand import run_epoch

    if style == "bare":
        run_epoch(work, network, optimizer)
        return
    images, labels, _, _ = work.tensors
    for rows, said in DataLoader(TensorDataset(images, labels), work.batch_size, shuffle=True):
        optimizer.zero_grad()
        cross_entropy(network(rows), said).backward()
        optimizer.step()
