"""Many trials as one program: each goes the way of its own training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import danlu
from danlu import read_recipe, registry
from danlu.errors import RunError
from danlu.recipe import Recipe
from danlu.training.population import (
    Decision,
    TrialEvaluation,
    measure_throughput,
    reason_not_stackable,
    stack_key,
    train_population,
)
from danlu.training.population.loop import Population

OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adam", "adamw", "muon")
DIGITS: dict[str, Any] = {
    "task": "classification",
    "data": {"source": {"name": "sklearn", "set": "digits"}, "target": "label"},
    "metrics": ["accuracy"],
    "train": {
        "steps": 12,
        "evaluate_every": 6,
        "batch_size": 48,
        "threads": 1,
        "precision": "float32",
    },
}


def text(folder: Path) -> dict[str, Any]:
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    return {
        "task": {"name": "language_modeling", "context": 16, "samples": 1, "sample_tokens": 2},
        "data": {
            "source": str(folder / "text.txt"),
            "transforms": {"text": [{"name": "tokenize", "kind": "characters"}]},
        },
        "train": {
            "steps": 8,
            "evaluate_every": 8,
            "batch_size": 8,
            "threads": 1,
            "precision": "float32",
        },
    }


def words(folder: Path) -> dict[str, Any]:
    rows = [
        f"{'good' if n % 3 else 'bad'} {' '.join(['very'] * (n % 4))} film {n % 5},{'yes' if n % 3 else 'no'}"
        for n in range(90)
    ]
    (folder / "words.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return {
        "task": "classification",
        "data": {
            "source": str(folder / "words.csv"),
            "target": "label",
            "columns": {"text": "text"},
            "checks": "off",
        },
        "train": {
            "steps": 8,
            "evaluate_every": 8,
            "batch_size": 16,
            "threads": 1,
            "precision": "float32",
        },
    }


FAMILIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "mlp": (lambda folder: DIGITS, {"name": "mlp", "hidden": [24], "dropout": 0.2}),
    "cnn": (lambda folder: DIGITS, {"name": "cnn"}),
    "gpt-nano": (
        text,
        {"name": "gpt", "num_layers": 1, "num_heads": 2, "width": 16, "dropout": 0.1},
    ),
    "rnn": (words, {"name": "rnn"}),
}


def recipes(raw: dict[str, Any], changes: list[dict[str, Any]]) -> list[Recipe]:
    return [read_recipe(raw, change) for change in changes]


def validation(run: Path, metric: str) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row[metric] for row in rows if row["split"] == "validation"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_trial_in_a_stack_goes_the_way_of_its_own_training(
    family: str, optimizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    make, model = FAMILIES[family]
    raw = {**make(tmp_path), "model": model, "optimizer": optimizer}
    # rmsprop's first steps are ten times as long as adam's: at 0.002 rounding alone moves the loss
    # of the cnn by 1e-2 in six steps
    rates = {"sgd": [0.01, 0.05], "momentum": [0.01, 0.05], "rmsprop": [0.00005, 0.0002]}.get(
        optimizer, [0.0005, 0.002]
    )
    if (
        family == "cnn"
    ):  # batch normalization over 48 small images amplifies rounding, the more the faster it learns
        rates = [rate / 5 for rate in rates]
    given = recipes(
        raw,
        [
            {"optimizer.learning_rate": rate, "optimizer.weight_decay": decay}
            for rate in rates
            for decay in (0.0, 0.02)
        ],
    )
    found = train_population(given)
    # four stand in the stack and two are trained alone: the first and the last, one without and one
    # with weight decay
    for number in (0, 3):
        danlu.train(given[number], tmp_path / f"run-{number}")
        alone = validation(tmp_path / f"run-{number}", found[number].metric)
        stacked = [score for _, score in found[number].curve]
        # sums are taken in another order: the issue allows 1e-3 of a validation metric
        assert stacked == pytest.approx(alone, abs=1e-3)


def test_trials_keep_their_own_seeds_dropouts_smoothing_lengths_and_optimizers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    raw = {
        **DIGITS,
        "model": {"name": "mlp", "hidden": [24], "dropout": 0.2},
        "loss": {"name": "cross_entropy"},
    }
    given = recipes(
        raw,
        [
            {"train.seed": 1, "model.dropout": 0.1, "optimizer": "adam", "regularization.l2": 0.01},
            {
                "train.seed": 2,
                "model.dropout": 0.4,
                "optimizer": "momentum",
                "train.steps": 18,
                "loss.label_smoothing": 0.2,
            },
            {
                "train.seed": 2,
                "schedule": "cosine",
                "train.clip_norm": 0.5,
                "loss.label_smoothing": 0.1,
            },
        ],
    )
    found = train_population(given)
    for number, recipe in enumerate(given):
        danlu.train(recipe, tmp_path / f"run-{number}")
        alone = validation(tmp_path / f"run-{number}", found[number].metric)
        assert [score for _, score in found[number].curve] == pytest.approx(alone, abs=1e-4)
    assert [outcome.step for outcome in found] == [12, 18, 12]


def test_folds_of_a_recipe_stand_in_one_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DANLU_CACHE", str(tmp_path / "cache"))
    (recipe,) = recipes(
        {**DIGITS, "model": {"name": "mlp", "hidden": [24], "batch_norm": True}},
        [{"train.steps": 40}],
    )
    found = train_population([recipe] * 3, folds=[(fold, 3) for fold in range(3)])
    for fold in range(3):
        danlu.train(recipe, tmp_path / f"fold-{fold}", fold=(fold, 3))
        alone = validation(tmp_path / f"fold-{fold}", found[fold].metric)
        assert [score for _, score in found[fold].curve] == pytest.approx(alone, abs=1e-3)


def test_a_pruned_trial_leaves_and_changes_nothing_for_the_others() -> None:
    raw = {**DIGITS, "model": {"name": "mlp", "hidden": [24], "dropout": 0.2}}
    given = recipes(
        raw, [{"optimizer.learning_rate": rate} for rate in (0.001, 0.002, 0.004, 0.008)]
    )

    def decide(events: list[TrialEvaluation]) -> Decision:
        return Decision(frozenset({1, 2})) if events[0].step == 6 else Decision()

    kept, pruned = train_population(given), train_population(given, decide)
    assert [outcome.state for outcome in pruned] == ["complete", "pruned", "pruned", "complete"]
    assert [outcome.step for outcome in pruned] == [12, 6, 6, 12]
    for number in (0, 3):
        assert [score for _, score in pruned[number].curve] == pytest.approx(
            [score for _, score in kept[number].curve], abs=1e-5
        )


@pytest.mark.parametrize("width", [8, 400], ids=["moved by the rule", "moved by kernels"])
def test_a_copy_goes_on_like_the_trial_it_was_made_of(width: int) -> None:
    raw = {
        **DIGITS,
        "model": {"name": "mlp", "hidden": [width], "dropout": 0.0},
        "train": {**DIGITS["train"], "steps": 18},
    }
    given = recipes(raw, [{"optimizer.learning_rate": rate} for rate in (0.001, 0.01, 0.004)])

    def decide(events: list[TrialEvaluation]) -> Decision:
        return Decision(copies={2: (0, given[0])}) if events[0].step == 6 else Decision()

    found = train_population(given, decide)
    assert found[2].curve[0] != found[0].curve[0]
    assert [score for _, score in found[2].curve[1:]] == pytest.approx(
        [score for _, score in found[0].curve[1:]], abs=1e-6
    )


@pytest.mark.parametrize("optimizer", ["momentum", "adamw", "rmsprop"])
def test_matrices_kept_in_the_format_of_autocast_change_no_bit(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = {
        **DIGITS,
        "model": {"name": "mlp", "hidden": [640], "dropout": 0.2},
        "optimizer": optimizer,
    }  # large enough to be kept so
    raw["train"] = {**DIGITS["train"], "precision": "bfloat16"}
    asked = recipes(raw, [{"optimizer.learning_rate": rate} for rate in (0.001, 0.003, 0.01)])

    def decide(events: list[TrialEvaluation]) -> Decision:
        return Decision(prune=frozenset({0}) if events[0].step == 6 else frozenset())

    narrow = Population(asked)
    assert narrow.stack.low_precision
    found = narrow.run(decide)
    monkeypatch.setattr(Population, "_may_be_narrow", lambda self: False)
    plain = Population(asked)
    assert not plain.stack.low_precision
    expected = plain.run(decide)
    assert [each.losses for each in found] == [each.losses for each in expected]
    assert [each.scores for each in found] == [each.scores for each in expected]


def test_a_trial_whose_loss_is_no_number_fails_alone() -> None:
    raw = {**DIGITS, "model": {"name": "mlp", "hidden": [24]}, "optimizer": "sgd"}
    found = train_population(
        recipes(raw, [{"optimizer.learning_rate": rate} for rate in (0.01, 1e30, 0.02)])
    )
    assert [outcome.state for outcome in found] == ["complete", "failed", "complete"]
    assert "NaN" in found[1].cause and "learning_rate" in found[1].cause


def test_recipes_of_other_shapes_or_data_are_no_stack() -> None:
    raw = {**DIGITS, "model": {"name": "mlp", "hidden": [24]}}
    base, wide, batch, rate, none = recipes(
        raw,
        [
            {},
            {"model.hidden": [25]},
            {"train.batch_size": 32},
            {"optimizer.learning_rate": 0.1},
            {"model.dropout": 0.0},
        ],
    )
    assert stack_key(base) == stack_key(rate)
    assert len({stack_key(each) for each in (base, wide, batch, none)}) == 4
    with pytest.raises(RunError, match="differ in shape"):
        train_population([base, wide])


def test_what_cannot_be_stacked_says_why() -> None:
    raw = {**DIGITS, "model": {"name": "mlp", "hidden": [24]}}
    (recipe,) = recipes(raw, [{"train.micro_batch": 8}])
    assert "micro_batch" in reason_not_stackable(recipe)
    with pytest.raises(RunError, match="micro_batch"):
        train_population([recipe])


def test_the_pace_is_measured_over_growing_stacks() -> None:
    (recipe,) = recipes({**DIGITS, "model": {"name": "mlp", "hidden": [24]}}, [{}])
    pace = measure_throughput([recipe], 16)
    assert pace.curve[0][0] == 4
    assert pace.size in {size for size, _, _ in pace.curve}
    assert pace.stacked == min(seconds for _, _, seconds in pace.curve) and pace.alone > 0


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in registry.names("optimizers")
        if getattr(registry.take("optimizers", name), "ELEMENTWISE", False)
    ],
)
def test_a_rule_that_moves_each_entry_by_itself_may_move_them_end_to_end(name: str) -> None:
    part = registry.take("optimizers", name)
    options = part.Config().model_dump()
    draw = torch.Generator().manual_seed(0)
    pieces = [torch.randn(shape, generator=draw) for shape in ((3, 4), (5,), (2, 2, 2))]
    whole = torch.cat([each.flatten() for each in pieces])
    states, joined = [part.initial(each) for each in pieces], part.initial(whole)
    for step in range(1, 4):
        gradients = [torch.randn(each.shape, generator=draw) for each in pieces]
        moved = [
            part.update(each, gradient, state, step, options)
            for each, gradient, state in zip(pieces, gradients, states)
        ]
        pieces, states = [each for each, _ in moved], [state for _, state in moved]
        whole, joined = part.update(
            whole, torch.cat([each.flatten() for each in gradients]), joined, step, options
        )
        assert torch.equal(whole, torch.cat([each.flatten() for each in pieces]))
