"""What a training needs, built from a recipe anew at every start, and the same every time: rows, batches, model, state, update, scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from danlu import registry
from danlu.data.batches import Batches, Rows, lengths_of
from danlu.data.dataset import Dataset, prepare
from danlu.errors import RunError
from danlu.layers.parametrization import scale_groups
from danlu.layers.quantization.nf4 import parameter_count
from danlu.layers.vision.test_time_augmentation import TestTimeAugmentation
from danlu.parts.losses._base import Loss
from danlu.parts.optimizers._base import learning_rate_of, weight_decay_of
from danlu.parts.schedules._base import Schedule, ScoreSchedule
from danlu.parts.tasks._base import HidesInputs
from danlu.recipe import Part, Recipe, Train
from danlu.system import machine
from danlu.system.placement import (
    WEIGHTS,
    Placement,
    decide_auto,
    draw_seed,
    forward_flops,
    peak_flops,
    placement_for,
)
from danlu.terms import InputSpec, Table
from danlu.training import finetuning
from danlu.training.evaluation import Evaluator
from danlu.training.pretrained_weights import PretrainedStart, load_pretrained
from danlu.training.progressive_resizing import ProgressiveResizing
from danlu.training.state import TrainingState
from danlu.training.step import AdversarialStep, SupervisedStep, Update


@dataclass(frozen=True)
class Plan:
    """How many steps, and at which of them something happens: a function of the recipe and the
    number of rows."""

    steps_per_epoch: int
    total_steps: int
    report_every: int
    evaluate_every: int
    save_every: int


def plan_training(train: Train, steps_per_epoch: int, has_validation: bool) -> Plan:
    """The Plan of a recipe's train section."""
    total = (
        train.steps
        if train.steps is not None
        else max(1, round((train.epochs or 1) * steps_per_epoch), train.least_steps)
    )
    report = train.report_every or max(1, total // 100)
    # once an epoch, but at most about 100 times a run: a full-batch run has as many epochs as steps
    evaluate = train.evaluate_every or steps_per_epoch * max(
        1, math.ceil(total / steps_per_epoch / 100)
    )
    evaluate = min(evaluate, total)
    save = train.save_every or evaluate * max(1, math.ceil(total / evaluate / 20))
    return Plan(steps_per_epoch, total, report, evaluate if has_validation else 0, save)


@dataclass(frozen=True)
class TrainingOverrides:
    """What a compressor brings to a training.

    module    goes on from here, in place of one that the recipe builds (None)
    digest    stands for all that the training is a function of beside its recipe, so that a run is known by it
    changes   what an artifact of the result tells; `close` may add to it
    close     makes of the trained module what is released
    learns    (loss, module, data) -> the loss it is trained by; scores are those of the recipe's own
    reads     (the recipe's data) -> the data that is trained on; validation and test stay as they are
    """

    module: torch.nn.Module | None
    digest: str
    changes: list[dict[str, Any]]
    close: Callable[[torch.nn.Module], None] = lambda module: None
    learns: Callable[[Loss, torch.nn.Module, Dataset], Loss] = lambda loss, module, data: loss
    reads: Callable[[Dataset], Dataset] = lambda data: data


@dataclass
class TrainingSetup:
    """Everything of one training but the folder it writes to and those who watch it."""

    recipe: Recipe
    data: Dataset
    placement: Placement
    rows: Rows
    batches: Batches
    plan: Plan
    state: TrainingState
    schedule: Schedule | ScoreSchedule
    update: Update
    evaluator: Evaluator
    start: PretrainedStart | None = None

    @property
    def trainable(self) -> int:
        """How many numbers an update may move."""
        return sum(
            parameter.numel()
            for parameter in self.state.module.parameters()
            if parameter.requires_grad
        )

    @cached_property
    def peak_rate(self) -> float:
        """Updates a second at the measured peak of this machine's matrix products; 0 where examples
        are no tokens.

        Work is counted over what has weights: attention's own products are left out.
        """
        examples = self.data.examples
        one = self.rows.gather(self.batches.indices(0)[:1])
        if not examples.units or "tokens" not in one.inputs:
            return 0.0
        work = forward_flops(self.state.module, one.inputs) / max(
            one.inputs["tokens"].shape[1], 1
        )  # of one token
        return peak_flops(self.placement) / max(
            3.0 * work * examples.units * self.batches.batch_size, 1.0
        )

    def record(self) -> dict[str, Any]:
        """What was decided and found, as plain data, for the lock file and the artifact."""
        data = self.data
        return {
            "placement": self.placement.as_dict(),
            "steps_per_epoch": self.plan.steps_per_epoch,
            "total_steps": self.plan.total_steps,
            "report_every": self.plan.report_every,
            "evaluate_every": self.plan.evaluate_every,
            "save_every": self.plan.save_every,
            "batch_size": self.batches.batch_size,
            "parameters": parameter_count(self.state.module),
            "data": {
                "origin": data.table.origin,
                "digest": data.digest,
                "rows": {name: len(rows) for name, rows in data.splits.items()},
                "kinds": {name: column.kind for name, column in data.table.columns.items()},
                "decimal": decimal_mark(data.table),
            },
            "versions": machine.versions(),
            **({"weights": self.start.digest} if self.start is not None else {}),
        }

    def sentences(self) -> tuple[tuple[str, str], ...]:
        """(subject, what is to be known of it) in plain words."""
        recipe, rows = (
            self.recipe,
            {name: f"{len(row_numbers):,}" for name, row_numbers in self.data.splits.items()},
        )
        return (
            (
                "data",
                f"{self.data.table.origin}: {rows['train']} rows to train, {rows['validation']} to validate, {rows['test']} to test",
            ),
            ("task", self.data.task.describe()),
            (
                "model",
                f"{recipe.model.name}, {self.trainable:,} trainable parameters; {recipe.optimizer.name}; "
                f"{self.plan.total_steps:,} steps of {self.batches.batch_size} rows",
            ),
            (
                "place",
                ", ".join(f"{name} {value}" for name, value in self.placement.as_dict().items()),
            ),
        )


def build_training(
    recipe: Recipe,
    fold: tuple[int, int] | None = None,
    decided: Mapping[str, Any] | None = None,
    *,
    look: Callable[[Dataset], None] = lambda data: None,
    rates: tuple[float, Callable[[int], float]] | None = None,
    overrides: TrainingOverrides | None = None,
) -> TrainingSetup:
    """The Apparatus of a recipe.

    `decided` is the placement that a lock file recorded; `look` sees the data before anything is
    built and may refuse it; `rates` (learning rate, step -> scale) stands in for the recipe's own,
    without averages; `given` brings the module. Raises DanluError for what the data, the machine or
    the combination of options does not allow."""
    placement = placement_for(recipe.train, decided)
    placement.use()
    data = prepare(recipe, fold)
    look(data)
    data = data if overrides is None else overrides.reads(data)
    examples = data.examples
    rows = Rows(examples.inputs, data.preprocessor.pixels, examples.target, placement)
    size = None if recipe.train.batch_size == "all" else int(recipe.train.batch_size)
    lengths = lengths_of(examples.inputs) if recipe.train.group_by_length else None
    batches = Batches(rows, data.splits["train"], size, recipe.train.seed, lengths, examples.phase)
    planned = plan_training(
        recipe.train, batches.steps_per_epoch, len(data.splits["validation"]) > 0
    )
    if overrides is None or overrides.module is None:
        module, start, sentence = fresh_module(recipe, data, placement)
    else:
        module, start, sentence = overrides.module, None, ""
    if overrides is not None:
        start = PretrainedStart(overrides.digest, start.notice if start is not None else "")
    data.notices += [
        *([start.notice] if start is not None and start.notice else []),
        *([sentence] if sentence else []),
    ]
    if not decided:
        placement = decide_auto(
            placement, recipe.train, lambda: _work_of_step(module, rows, batches)
        )
        placement.use()
    module = module.to(placement.device)
    module.train()
    optimizer = optimizer_over(module, recipe)
    schedule = registry.build_schedule(recipe.schedule, planned.total_steps)
    _refuse_without_validation(recipe, schedule, planned)
    regularization = recipe.regularization
    if rates is not None:
        regularization = regularization.model_copy(
            update={"ema_decay": None, "restore_best": False}
        )
    keeps_best = regularization.restore_best and planned.evaluate_every > 0
    state = TrainingState(
        module, optimizer, ema=regularization.ema_decay is not None, keep_best=keeps_best
    )
    if isinstance(schedule, ScoreSchedule):
        state.schedule = schedule.state()
    described = examples.input_specs, data.task.output
    augmentations = [
        registry.build_augmentation(part, *described) for part in recipe.data.augmentations
    ]
    rate = learning_rate_of(recipe.optimizer.options)
    rate, scale = rates or (rate, schedule)
    hide = data.task.corrupt if isinstance(data.task, HidesInputs) else None
    resize = _resizing(recipe.train, examples.input_specs, planned, module, batches)
    settings = (
        scale,
        rate,
        augmentations,
        placement,
        recipe.train,
        regularization,
        hide,
        resize,
    )
    update: Update
    if registry.task_facts(recipe.task.name).step == "adversarial":
        sides = registry.build_adversarial_loss(recipe.loss, data.task)
        update = AdversarialStep(state, batches, sides, *settings)
    else:
        loss = registry.build_loss(recipe.loss, data.task)
        loss = loss if overrides is None else overrides.learns(loss, module, data)
        update = SupervisedStep(state, batches, loss, *settings)
    views = TestTimeAugmentation(recipe.data.test_time_augmentation, *described)
    evaluator = Evaluator(
        rows, data.task, recipe.loss, recipe.metrics, placement, recipe.train.seed, views
    )
    return TrainingSetup(
        recipe, data, placement, rows, batches, planned, state, schedule, update, evaluator, start
    )


def fresh_module(
    recipe: Recipe, data: Dataset, placement: Placement
) -> tuple[torch.nn.Module, PretrainedStart | None, str]:
    """(the module as a training of the recipe begins with it, on the CPU; the weights it took over;
    what section finetune made of it)."""
    placement.seed(draw_seed(recipe.train.seed, WEIGHTS, 0))
    module = registry.build_model(recipe.model, data.examples.input_specs, data.task.output)
    start = load_pretrained(module, recipe, data.task.output.names)
    return (
        module,
        start,
        finetuning.prepare_finetuning(
            module, recipe.finetune, None if start is None else start.fresh
        ),
    )


def groups_over(module: torch.nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The parameter groups of a module: what weight decay spares, tables, and what learns at a
    share of the rate, apart."""
    optimizer = recipe.optimizer
    groups = finetuning.split_by_rate(
        parameter_groups(module, optimizer),
        finetuning.learning_rate_shares(module, recipe.finetune),
    )
    facts = registry.optimizer_facts(optimizer.name)
    return scale_groups(
        groups,
        module,
        optimizer=optimizer.name,
        update=facts.update_length,
        decay=facts.decay,
        weight_decay=weight_decay_of(optimizer.options),
    )


def optimizer_over(module: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over a module's parameters."""
    return registry.build_optimizer(recipe.optimizer, groups_over(module, recipe))


def decimal_mark(table: Table) -> str:
    """The decimal mark that the table's numbers were written with; "auto" where they show none, or
    both.

    Kept with the artifact: 5,250 in a file to be answered must mean what it meant in training.
    """
    marks = set()
    for column in table.columns.values():
        if column.kind == "number" and column.values.ndim == 1:
            if "decimal comma" in column.reason:
                marks.add(",")
            elif (np.mod(column.values[np.isfinite(column.values)], 1) != 0).any():
                marks.add(".")
    return marks.pop() if len(marks) == 1 else "auto"


def _work_of_step(module: torch.nn.Module, rows: Rows, batches: Batches) -> float:
    """Floating-point operations of one update: one row forward, counted, times three (forward and
    backward), times rows."""
    one = rows.gather(batches.indices(0)[:1])
    return (
        3.0
        * forward_flops(module, {name: tensor.to("cpu") for name, tensor in one.inputs.items()})
        * batches.batch_size
    )


def _resizing(
    train: Train,
    described: Mapping[str, InputSpec],
    planned: Plan,
    module: torch.nn.Module,
    batches: Batches,
) -> ProgressiveResizing | None:
    """What brings images to the size of an update, tried on the model; None where the recipe asks
    for none."""
    options = train.progressive_resizing
    if options is None:
        return None
    resizing = ProgressiveResizing(
        described, options.start, round(options.until * planned.total_steps), options.multiple
    )
    resizing.refuse_unable(module, batches.rows.gather(batches.indices(0)[:1]).inputs)
    return resizing


def _refuse_without_validation(
    recipe: Recipe, schedule: Schedule | ScoreSchedule, planned: Plan
) -> None:
    if planned.evaluate_every:
        return
    if isinstance(schedule, ScoreSchedule):
        raise RunError(
            f"schedule {recipe.schedule.name} goes by validation scores, and the validation split has no row.",
            hint="give data.split a share for validation, or choose another schedule",
        )
    if recipe.regularization.early_stopping is not None:
        raise RunError(
            "early stopping needs a validation split, and it has no row.",
            hint="give data.split a share for validation",
        )


def parameter_groups(module: torch.nn.Module, optimizer: Part) -> list[dict[str, Any]]:
    """Matrices and kernels, which weight decay shrinks; then biases and norms, which it leaves
    alone (their size says nothing).

    Where the optimizer asks for it (SPARES_TABLES), tables stand apart from matrices and say
    `"muon": False`. One group where nothing decays: each group is a call of the kernel, and 7
    microseconds a step."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad] or [
        torch.zeros(1)
    ]
    tables = (
        embedding_tables(module)
        if registry.optimizer_facts(optimizer.name).spares_tables
        else set()
    )
    decayed = [
        parameter for parameter in trainable if parameter.ndim >= 2 and parameter not in tables
    ]
    spared = [parameter for parameter in trainable if parameter.ndim < 2]
    looked_up = [
        parameter for parameter in trainable if parameter.ndim >= 2 and parameter in tables
    ]
    groups: list[dict[str, Any]] = [{"params": looked_up, "muon": False}] if looked_up else []
    if not weight_decay_of(optimizer.options):
        return [{"params": decayed + spared}, *groups] if decayed + spared else groups
    groups = [*([{"params": decayed}] if decayed else []), *groups]
    return [*groups, *([{"params": spared, "weight_decay": 0.0}] if spared else [])]


def embedding_tables(module: torch.nn.Module) -> set[torch.Tensor]:
    """Parameters with a row for each code, of which a batch moves a few: embeddings, and what a
    layer names in TABLES."""
    weights: set[torch.Tensor] = {
        layer.weight for layer in module.modules() if isinstance(layer, torch.nn.Embedding)
    }
    return weights | {
        getattr(layer, name) for layer in module.modules() for name in getattr(layer, "TABLES", ())
    }
