"""What a training needs, built from its recipe: rows, batches, model, state, update, evaluation.
The same at every start."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch

from danlu import registry
from danlu.artifact.memory_limit import AllocationLimit
from danlu.data.batches import Batches, Rows, lengths_of
from danlu.data.dataset import Dataset, prepare
from danlu.errors import RunError
from danlu.layers.parametrization import VocabularyTables, scale_groups
from danlu.layers.quantization.nf4 import parameter_count
from danlu.layers.vision.test_time_augmentation import AveragedViews
from danlu.parts.losses._base import Loss
from danlu.parts.optimizers._base import learning_rate_of, weight_decay_of
from danlu.parts.schedules._base import Schedule, ScoreSchedule
from danlu.parts.tasks._base import HidesInputs
from danlu.recipe import Part, Recipe, Train, as_plain
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
from danlu.training.run_folder import RunRecord
from danlu.training.state import TrainingState
from danlu.training.step import AdversarialStep, Step, SupervisedStep

# what torch says of a tensor beyond its address space, or beyond what the system gives
_TOO_LARGE = ("overflow", "can't allocate memory", "not enough memory", "out of memory")


@dataclass(frozen=True)
class Plan:
    """How many updates a training has, and after how many something happens; 0 for never.

    A function of the recipe and the number of training rows."""

    steps_per_epoch: int
    total_steps: int
    report_every: int
    evaluate_every: int
    save_every: int


def plan_training(train: Train, steps_per_epoch: int, has_validation: bool) -> Plan:
    """The Plan of a recipe's train section.

    >>> plan_training(Train(epochs=2, least_steps=0), steps_per_epoch=50, has_validation=True)
    Plan(steps_per_epoch=50, total_steps=100, report_every=1, evaluate_every=50, save_every=50)
    """
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
    """What a compressor replaces in a training.

    module         the module that is trained on; None: one that the recipe builds
    digest         a hash of everything beside the recipe that the training is a function of: it
                   identifies the run
    changes        the changes that the resulting artifact records; `finalize` may append to them
    finalize       finalize(module): makes of the trained module what is released, in place
    wrap_loss      (loss, module, data) -> the loss to train by; scores stay those of the recipe's
    replace_data   (the recipe's data) -> the data to train on; validation and test rows stay
    """

    module: torch.nn.Module | None
    digest: str
    changes: list[dict[str, Any]]
    finalize: Callable[[torch.nn.Module], None] = lambda module: None
    wrap_loss: Callable[[Loss, torch.nn.Module, Dataset], Loss] = lambda loss, module, data: loss
    replace_data: Callable[[Dataset], Dataset] = lambda data: data


@dataclass
class TrainingSetup:
    """Everything of one training but its run folder and its watchers.

    start   the weights that the model starts from; None where all were drawn at random
    """

    recipe: Recipe
    data: Dataset
    placement: Placement
    rows: Rows
    batches: Batches
    plan: Plan
    state: TrainingState
    schedule: Schedule | ScoreSchedule
    update: Step
    evaluator: Evaluator
    start: PretrainedStart | None = None

    @property
    def trainable(self) -> int:
        """How many numbers are trained."""
        return sum(
            parameter.numel()
            for parameter in self.state.module.parameters()
            if parameter.requires_grad
        )

    @cached_property
    def peak_rate(self) -> float:
        """Updates per second at the machine's measured peak of matrix products; 0 where examples
        have no tokens.

        Counts the floating-point operations of layers with weights, not those inside attention.
        """
        examples = self.data.examples
        one = self.rows.gather(self.batches.indices(0)[:1])
        if not examples.units or "tokens" not in one.inputs:
            return 0.0
        tokens = max(one.inputs["tokens"].shape[1], 1)
        work = forward_flops(self.state.module, one.inputs) / tokens
        return peak_flops(self.placement) / max(
            3.0 * work * examples.units * self.batches.batch_size, 1.0
        )

    def record(self) -> RunRecord:
        """What was decided for this run, as JSON values, for the lock file and the artifact."""
        data = self.data
        record: RunRecord = {
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
        }
        if self.start is not None:
            record["weights"] = self.start.digest
        return record

    def sentences(self) -> tuple[tuple[str, str], ...]:
        """(subject, sentence) pairs that describe the run to its user."""
        recipe, rows = (
            self.recipe,
            {name: f"{len(row_numbers):,}" for name, row_numbers in self.data.splits.items()},
        )
        return (
            (
                "data",
                f"{self.data.table.origin}: {rows['train']} rows to train, "
                f"{rows['validation']} to validate, {rows['test']} to test",
            ),
            ("task", self.data.task.describe()),
            (
                "model",
                f"{recipe.model.name}, {self.trainable:,} trainable parameters; "
                f"{recipe.optimizer.name}; {self.plan.total_steps:,} steps of "
                f"{self.batches.batch_size} rows",
            ),
            (
                "place",
                ", ".join(f"{name} {value}" for name, value in self.placement.as_dict().items()),
            ),
        )


def build_training(
    recipe: Recipe,
    fold: tuple[int, int] | None = None,
    decided: Mapping[str, str | int | bool] | None = None,
    *,
    check_data: Callable[[Dataset], None] = lambda data: None,
    rates: tuple[float, Callable[[int], float]] | None = None,
    overrides: TrainingOverrides | None = None,
) -> TrainingSetup:
    """The TrainingSetup of a recipe.

    fold         (k, folds): fold number k is the validation split
    decided      the placement that a lock file recorded
    check_data   called with the data before anything is built; may raise
    rates        (learning rate, step -> factor) in place of the recipe's own, without a weight
                 average
    overrides    what a compressor replaces

    Raises DanluError for what the data, the machine or the combination of options does not
    allow."""
    placement = placement_for(recipe.train, decided)
    placement.use()
    data = prepare(recipe, fold)
    check_data(data)
    data = data if overrides is None else overrides.replace_data(data)
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
    update: Step
    if registry.task_facts(recipe.task.name).step == "adversarial":
        sides = registry.build_adversarial_loss(recipe.loss, data.task)
        update = AdversarialStep(state, batches, sides, *settings)
    else:
        loss = registry.build_loss(recipe.loss, data.task)
        loss = loss if overrides is None else overrides.wrap_loss(loss, module, data)
        update = SupervisedStep(state, batches, loss, *settings)
    views = AveragedViews(recipe.data.test_time_augmentation, *described)
    evaluator = Evaluator(
        rows, data.task, recipe.loss, recipe.metrics, placement, recipe.train.seed, views
    )
    return TrainingSetup(
        recipe, data, placement, rows, batches, planned, state, schedule, update, evaluator, start
    )


def fresh_module(
    recipe: Recipe, data: Dataset, placement: Placement
) -> tuple[torch.nn.Module, PretrainedStart | None, str]:
    """(the module that a training of the recipe starts from, on the CPU; the pretrained weights in
    it; a sentence about what section finetune trains, or "")."""
    placement.seed(draw_seed(recipe.train.seed, WEIGHTS, 0))
    module = _build_in_memory(recipe, data)
    start = load_pretrained(module, recipe, data.task.output.names)
    return (
        module,
        start,
        finetuning.prepare_finetuning(
            module, recipe.finetune, None if start is None else start.fresh
        ),
    )


def _build_in_memory(recipe: Recipe, data: Dataset) -> torch.nn.Module:
    """The recipe's model. Raises RunError before a tensor is allocated with which weights and
    gradients would take more memory than there is."""
    _, free = machine.memory()
    limit = AllocationLimit(free // 2)
    needed = ""
    try:
        with limit:
            return registry.build_model(recipe.model, data.examples.input_specs, data.task.output)
    except MemoryError:
        needed = f"at least {2 * (limit.most - limit.left) / 1e9:,.1f} GB"
    except RuntimeError as error:
        if not any(words in str(error) for words in _TOO_LARGE):
            raise
        needed = "more than any machine has"
    raise RunError(
        f"the model {recipe.model.name} is too large: weights and gradients take {needed} of "
        f"memory, and {free / 1e9:,.1f} GB are free.",
        where=recipe.path,
        hint=f"make it smaller: {', '.join(_sizes(recipe)) or 'see danlu show'}",
    )


def _sizes(recipe: Recipe) -> list[str]:
    """The options of the model that are whole numbers or lists of them, as overrides."""
    options = cast("dict[str, object]", as_plain(recipe.model.options))
    return [f"model.{name}={value}" for name, value in options.items() if _is_size(value)]


def _is_size(value: object) -> bool:
    if isinstance(value, list):
        sizes = cast("list[object]", value)
        return 0 < len(sizes) <= 10 and type(sizes[0]) is int
    return type(value) is int and value > 1


def groups_over(module: torch.nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """The parameter groups of a module for its optimizer.

    Groups of their own have parameters without weight decay, embeddings, and parameters with
    another learning rate."""
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
    """The decimal mark that the table's numbers were written with, "," or "."; "auto" where they
    have none, or both.

    The artifact stores it: 5,250 must mean the same in a file to predict as in training.
    """
    marks: set[str] = set()
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
            f"schedule {recipe.schedule.name} goes by validation scores, and the validation split "
            "has no row.",
            hint="give data.split a share for validation, or choose another schedule",
        )
    # what a model recommends is no demand: without a validation split it has no effect
    written = cast("Mapping[str, object]", recipe.raw.get("regularization") or {})
    if recipe.regularization.early_stopping is not None and written.get("early_stopping"):
        raise RunError(
            "early stopping needs a validation split, and it has no row.",
            hint="give data.split a share for validation",
        )


def parameter_groups(module: torch.nn.Module, optimizer: Part) -> list[dict[str, object]]:
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
        else set[torch.Tensor]()
    )
    decayed = [
        parameter for parameter in trainable if parameter.ndim >= 2 and parameter not in tables
    ]
    spared = [parameter for parameter in trainable if parameter.ndim < 2]
    looked_up = [
        parameter for parameter in trainable if parameter.ndim >= 2 and parameter in tables
    ]
    decays = bool(weight_decay_of(optimizer.options))
    first = decayed if decays else decayed + spared
    groups: list[dict[str, object]] = []
    if first:
        groups.append({"params": first})
    if looked_up:
        groups.append({"params": looked_up, "muon": False})
    if decays and spared:
        groups.append({"params": spared, "weight_decay": 0.0})
    return groups


def embedding_tables(module: torch.nn.Module) -> set[torch.Tensor]:
    """Parameters with a row for each code, of which a batch moves a few: embeddings, and what a
    layer names in TABLES."""
    weights: set[torch.Tensor] = {
        layer.weight for layer in module.modules() if isinstance(layer, torch.nn.Embedding)
    }
    return weights | {
        getattr(layer, name)
        for layer in module.modules()
        if isinstance(layer, VocabularyTables)
        for name in layer.TABLES
    }
