"""Trials under muP, away from their base width, are trained in a stack as by themselves: each with its own rate, decay and multipliers."""

from __future__ import annotations

from typing import Any

import pytest

from danlu import registry
from danlu.recipe import Recipe, read
from danlu.training.population import train_population
from danlu.training.setup import build_training


def digits(optimizer: dict[str, Any], hidden: list[int], seed: int) -> Recipe:
    tree = {
        "task": "classification",
        "data": {"source": "sklearn", "target": "label"},
        "model": {
            "name": "mlp",
            "hidden": hidden,
            "dropout": 0.0,
            "parametrization": "mup",
            "base_width": 8,
        },
        "optimizer": optimizer,
        "regularization": {"restore_best": False},
        "train": {
            "steps": 40,
            "batch_size": 64,
            "threads": 1,
            "seed": 0,
            "precision": "float32",
            "compile": False,
        },
    }
    return read(tree, registry)


@pytest.mark.parametrize("name", ["adamw", "momentum", "muon", "adam"])
@pytest.mark.parametrize("hidden", [[32, 32], [256, 256]], ids=["by_rule", "by_kernels"])
def test_a_trial_in_a_stack_ends_as_its_own_training(name: str, hidden: list[int]) -> None:
    rate = {"momentum": 0.05, "muon": 0.01}.get(name, 0.003)
    options = [
        {"name": name, "learning_rate": rate * times, "weight_decay": decay}
        for times, decay in ((1, 0.3), (2, 0.01), (0.5, 3.0))
    ]
    recipes = [digits(each, hidden, 0) for each in options]
    together = [outcome.scores["loss"] for outcome in train_population(recipes)]
    alone = []
    for recipe in recipes:
        built = build_training(recipe)
        for n in range(built.plan.total_steps):
            built.update(n)
        scores = built.evaluator.score(
            built.state.module, "validation", built.data.splits["validation"], final=False
        )
        alone.append(scores.values["loss"])
    # muon multiplies in bfloat16, so that another order of sums shows
    assert together == pytest.approx(alone, abs=1e-2 if name == "muon" else 1e-4)
    assert max(alone) - min(alone) > 0.02, (
        "the trials do not differ enough for the test to see anything"
    )
