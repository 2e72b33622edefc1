"""Optuna around a training loop as short and as fast as it can be written in plain torch.

Data lies in memory as tensors, a batch is an `index_select`, the optimizer is torch's fused one;
nothing is logged or saved but Optuna's own study."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from measuring import Clock
from searches import DROPOUT, Work
from tuners import Tuned

NAME = "Optuna + hand-written loop"
NEEDS = ("optuna",)
STYLES = {
    "one process": "study.optimize over resident tensors, index_select, fused optimizer; as many threads as are fastest",
    "a process a core": "the same in one process a core, one thread each, that share a study in SQLite",
}
_TRIED_STEPS = 150


def train(
    work: Work,
    values: Mapping[str, float],
    report: Callable[[int, float], None] = lambda epoch, score: None,
) -> float:
    """The best validation accuracy of a network trained with `values`; `report` hears that of every
    epoch."""
    network = work.network(values[DROPOUT])
    optimizer = work.torch_optimizer(network.parameters(), values)
    best = 0.0
    for epoch in range(work.epochs):
        run_epoch(work, network, optimizer)
        score = work.accuracy(network)
        report(epoch, score)
        best = max(best, score)
    return best


def run_epoch(work: Work, network: Any, optimizer: Any, steps: int | None = None) -> None:
    """One pass over the training rows in a new random order, or `steps` updates of it."""
    import torch
    from torch.nn.functional import cross_entropy

    images, labels, _, _ = work.tensors
    batches = torch.randperm(len(labels), device=work.device).split(work.batch_size)
    for rows in batches[:steps]:
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(
            network(images.index_select(0, rows)), labels.index_select(0, rows)
        ).backward()
        optimizer.step()


def run(work: Work, style: str, values: list[dict[str, float]]) -> Tuned:
    """Tune; see tuners."""
    return _in_one_process(work, values) if style == "one process" else _in_processes(work, values)


def optimize(objective: Callable[[Any], float], values: list[dict[str, float]]) -> list[float]:
    """Scores of an Optuna study in memory that is told what to try; `objective` takes an Optuna
    trial."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=given(values))
    study.optimize(objective, n_trials=len(values))
    return [trial.value for trial in study.trials]


def given(values: list[dict[str, float]]) -> Any:
    """An Optuna sampler that suggests `values` by the number of the trial.

    study.enqueue_trial would do in one process; two that share a study in SQLite were seen to take
    the same waiting trial."""
    import optuna

    class Given(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
            return {}

        def sample_independent(
            self, study: Any, trial: Any, param_name: str, param_distribution: Any
        ) -> float:
            return values[trial.number][param_name]

    return Given()


def suggested(trial: Any, work: Work) -> dict[str, float]:
    """The values of an Optuna trial, asked for as an objective does."""
    found = {}
    for name, each in work.search.space().items():
        found[name] = trial.suggest_float(
            name, each["low"], each["high"], log=each.get("log", False)
        )
    return found


def _objective(work: Work) -> Callable[[Any], float]:
    return lambda trial: train(
        work, suggested(trial, work), lambda epoch, score: trial.report(score, epoch)
    )


def _in_one_process(work: Work, values: list[dict[str, float]]) -> Tuned:
    import torch

    torch.set_num_threads(fastest_threads(work, values[0]))
    with Clock() as clock:
        scores = optimize(_objective(work), values)
    return Tuned(clock.wall, 0.0, clock.cpu, scores)


def fastest_threads(work: Work, values: Mapping[str, float]) -> int:
    """How many threads train the network fastest: one, or one a core."""
    import torch

    from danlu.system.machine import cores

    took = {}
    for threads in {1, cores()}:
        torch.set_num_threads(threads)
        network = work.network(values[DROPOUT])
        optimizer = work.torch_optimizer(network.parameters(), values)
        run_epoch(work, network, optimizer, 10)
        began = time.perf_counter()
        run_epoch(work, network, optimizer, _TRIED_STEPS)
        took[threads] = time.perf_counter() - began
    return min(took, key=lambda threads: took[threads])


def _in_processes(work: Work, values: list[dict[str, float]]) -> Tuned:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    import optuna

    from danlu.system.machine import cores

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    workers = min(cores(), len(values))
    storage = f"sqlite:///{work.folder / 'study.sqlite'}"
    study = optuna.create_study(
        direction="maximize", storage=storage, study_name=f"{os.getpid()}-{time.time_ns()}"
    )
    shares = [
        len(values) // workers + (number < len(values) % workers) for number in range(workers)
    ]
    context = multiprocessing.get_context("spawn")
    here = (work.search, work.folder, work.device, context.Barrier(workers))
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=here) as pool:
        list(
            pool.map(
                _make_ready,
                range(workers),
                [storage] * workers,
                [study.study_name] * workers,
                [values] * workers,
            )
        )
        with Clock() as clock:
            cpu = sum(pool.map(_optimize, shares))
    return Tuned(clock.wall, 0.0, cpu + clock.cpu, [trial.value for trial in study.trials])


# --- inside a worker

_HERE: dict[str, Any] = {}


def _begin(search: Any, folder: Any, device: str, ready: Any) -> None:
    _HERE.update(work=Work(search, folder, device), ready=ready)


def _make_ready(number: int, storage: str, study: str, values: list[dict[str, float]]) -> None:
    """Import, load, open the study and train a few steps, one worker beside the other; what follows
    is timed."""
    import optuna
    import torch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    torch.manual_seed(number)
    work = _HERE["work"]
    network = work.network(values[0][DROPOUT])
    run_epoch(work, network, work.torch_optimizer(network.parameters(), values[0]), 10)
    _HERE["study"] = optuna.load_study(study_name=study, storage=storage, sampler=given(values))
    _HERE["ready"].wait(timeout=300)


def _optimize(trials: int) -> float:
    """CPU seconds of `trials` trials of the study."""
    with Clock() as clock:
        _HERE["study"].optimize(_objective(_HERE["work"]), n_trials=trials)
    return clock.cpu
