"""The training loop of a population: K recipes of one shape are trained together, as
danlu.training.loop trains one.

Every random number is that of the trial's own training: initial weights, the order of rows, dropout
masks and augmentations are functions of (seed, step). So a trial in a stack has the losses and
scores of its own training, up to the rounding of sums."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from danlu import registry
from danlu.compat.torch_vmap import over_models
from danlu.errors import Interrupted, RunError
from danlu.layers.averaging import members_of
from danlu.layers.tensors import as_floats
from danlu.parts.losses._base import Loss
from danlu.parts.optimizers._base import learning_rate_of
from danlu.recipe import Recipe
from danlu.system.placement import AUGMENTATION, HIDING, STEP, draw_seed
from danlu.system.signals import Interruption
from danlu.terms import IGNORED, Batch, Scores
from danlu.training.population.batched_optimizer import (
    BatchedOptimizer,
    OptimizerPerTrial,
    build_optimizers,
    rule_key,
)
from danlu.training.population.grouping import reason_not_stackable, stack_key
from danlu.training.population.stack import Stack
from danlu.training.population.trial_state import TrialState, stopping_watchers
from danlu.training.setup import TrainingSetup, build_training, fresh_module, plan_training
from danlu.training.step import formulas
from danlu.training.step.gradients import backward
from danlu.training.step.supervised import repeat_rows

# (seed, fold): what decides the split, and with it what transforms learn
DataKey: TypeAlias = tuple[int, tuple[int, int] | None]


@dataclass(frozen=True)
class TrialEvaluation:
    """An evaluation of one trial: `number` is its index among the recipes, `score` the deciding
    score, None where it is undefined."""

    number: int
    step: int
    score: float | None
    scores: Mapping[str, object]


@dataclass(frozen=True)
class Decision:
    """What follows evaluations.

    prune    trials that stop
    copies   {target: (source, recipe)}: trial `target` continues from the state of trial `source`,
             with its own recipe
    """

    prune: frozenset[int] = frozenset()
    copies: Mapping[int, tuple[int, Recipe]] = field(default_factory=dict[int, tuple[int, Recipe]])


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    state    "complete", "pruned" or "failed"; `cause` says why
    scores   of the validation split at its best step, or at its last where the recipe keeps no best
    curve    (step, deciding score) of each evaluation; `losses` (step, training loss)
    """

    state: str
    cause: str
    scores: dict[str, object]
    step: int
    curve: list[tuple[int, float | None]]
    losses: list[tuple[int, float | None]]
    seconds: float
    metric: str
    better: str
    best_step: int = -1
    parameters: int = 0


def train_population(
    recipes: Sequence[Recipe],
    decide: Callable[[list[TrialEvaluation]], Decision] | None = None,
    *,
    folds: Sequence[tuple[int, int] | None] | None = None,
    interruption: Interruption | None = None,
    tell: Callable[[int], None] | None = None,
    precision: str | None = None,
) -> list[Outcome]:
    """Train recipes of one shape as one program; their outcomes in the same order. No file is
    written.

    decide      called with the evaluations of a step, where there are any; says what follows
    folds       (fold, folds) of each recipe's data; None: the recipe's own split
    tell        called after every step with its number
    precision   the number format where train.precision is auto

    Raises RunError where the recipes cannot be stacked, Interrupted when a signal asks to stop."""
    if len({stack_key(recipe) for recipe in recipes}) > 1:
        raise RunError(
            "these trials differ in shape or data, so they cannot be trained as one program."
        )
    if reason := next((why for why in map(reason_not_stackable, recipes) if why), ""):
        raise RunError(
            f"trials of this recipe cannot be trained as one program: {reason}.",
            hint="tune.on=one_by_one",
        )
    return Population(recipes, folds, interruption, precision).run(decide, tell)


class Population:
    """K trials in one stack, and the steps they take together."""

    def __init__(
        self,
        recipes: Sequence[Recipe],
        folds: Sequence[tuple[int, int] | None] | None = None,
        interruption: Interruption | None = None,
        precision: str | None = None,
    ) -> None:
        self.interruption = interruption
        folds = folds or [None] * len(recipes)
        # trials of one seed and one fold share every batch
        self.data_keys = [(recipe.train.seed, fold) for recipe, fold in zip(recipes, folds)]
        self.setups: dict[DataKey, TrainingSetup] = {}
        trials: list[TrialState] = []
        for number, (recipe, key) in enumerate(zip(recipes, self.data_keys)):
            fresh = key not in self.setups
            if fresh:
                self.setups[key] = self._build_setup(recipe, key[1], precision)
            trials.append(self._build_trial(number, recipe, self.setups[key], fresh))
        self.first = self.setups[self.data_keys[0]]
        self.placement = self.first.placement
        self.placement.use()
        # trials with one update rule side by side: neighbouring rows are updated together
        self.trials = sorted(trials, key=lambda trial: rule_key(trial.recipe))
        self.all_trials = trials
        self.stack = Stack(
            [trial.module for trial in self.trials],
            self.placement,
            averaged=recipes[0].regularization.ema_decay is not None,
        )
        self.stack.template.train()
        self.optimizers: list[BatchedOptimizer] = build_optimizers(self.stack, self.trials)
        self.autocast = self.placement.autocast()
        if self._may_be_narrow():
            self.stack.keep_low_precision(torch.bfloat16)
        self.members = members_of(self.stack.template)
        self._set_losses()
        self.began = time.perf_counter()

    @staticmethod
    def _build_setup(
        recipe: Recipe, fold: tuple[int, int] | None, precision: str | None
    ) -> TrainingSetup:
        built = build_training(recipe, fold)
        if precision is not None and recipe.train.precision == "auto":
            built.placement = replace(built.placement, precision=precision)
            built.evaluator.placement = built.placement
        return built

    def _build_trial(
        self, number: int, recipe: Recipe, setup: TrainingSetup, fresh: bool
    ) -> TrialState:
        if fresh:
            module = setup.state.module
        else:
            module = fresh_module(recipe, setup.data, setup.placement)[0].to(setup.placement.device)
            module.train()
        planned = plan_training(
            recipe.train, setup.batches.steps_per_epoch, len(setup.data.splits["validation"]) > 0
        )
        metric, better = setup.evaluator.metric, setup.evaluator.better
        rate = learning_rate_of(recipe.optimizer.options)
        return TrialState(
            number,
            recipe,
            module,
            planned,
            registry.build_schedule(recipe.schedule, planned.total_steps),
            rate,
            stopping_watchers(recipe, None, planned, metric, better),
            metric,
            better,
            recipe.regularization.restore_best and planned.evaluate_every > 0,
            sum(parameter.numel() for parameter in module.parameters()),
        )

    def _may_be_narrow(self) -> bool:
        """Whether only autocast and the optimizers' own kernels use matrices and gradients in every
        update."""
        touched = [
            trial.recipe.train.clip_norm
            or trial.recipe.train.clip_value
            or trial.recipe.regularization.l1
            or trial.recipe.regularization.l2
            for trial in self.trials
        ]
        by_kernels = all(isinstance(optimizer, OptimizerPerTrial) for optimizer in self.optimizers)
        narrow = self.placement.precision == "bfloat16" and self.placement.device.type == "cpu"
        return narrow and by_kernels and len(self.setups) == 1 and not any(touched)

    def _setup_of(self, trial: TrialState) -> TrainingSetup:
        return self.setups[self.data_keys[trial.number]]

    def _set_losses(self) -> None:
        """One loss for all trials. Where their label smoothing differs: the loss is linear in it,
        so it is interpolated between two values."""
        first = self.first
        part = first.recipe.loss
        smoothing = [
            float(trial.recipe.loss.options.model_dump().get("label_smoothing") or 0.0)
            for trial in self.trials
        ]
        self.smoothing: Tensor | None = None
        self.loss = registry.build_loss(part, first.data.task)
        if len(set(smoothing)) > 1:
            ends = [
                replace(part, options=part.options.model_copy(update={"label_smoothing": share}))
                for share in (0.0, 0.5)
            ]
            self.loss, self.smoother = (registry.build_loss(end, first.data.task) for end in ends)
            self.smoothing = torch.tensor(
                [2 * share for share in smoothing], device=self.placement.device
            )
        elif smoothing:
            self.loss = registry.build_loss(self.trials[0].recipe.loss, first.data.task)

    # --- the loop

    def run(
        self,
        decide: Callable[[list[TrialEvaluation]], Decision] | None = None,
        tell: Callable[[int], None] | None = None,
    ) -> list[Outcome]:
        """Train until every trial has ended."""
        n = 0
        while self.trials:
            self.step(n)
            n += 1
            self._after(n, decide)
            if tell is not None:
                tell(n)
            if self.interruption is not None and self.interruption.exit_code:
                raise Interrupted(
                    f"{self.interruption.name} at step {n:,} of a population.",
                    exit_code=self.interruption.exit_code,
                    hint="run the same command again: finished trials are kept, these start again",
                )
        return [_outcome(trial) for trial in self.all_trials]

    def step(self, n: int) -> None:
        """Update n of every trial."""
        stack = self.stack
        self.placement.seed(draw_seed(self.trials[0].recipe.train.seed, STEP, n))
        stack.generators.seed(
            [draw_seed(trial.recipe.train.seed, STEP, n) for trial in self.trials]
        )
        stack.clear()
        for rows, batch, shared in self._batches(n):
            total, count = self._losses(rows, batch, shared)
            backward(total, formulas.mean_share(count))
            self._record_losses(n, rows, total.detach(), count, batch)
        self._regularize()
        self._clip()
        rates = [trial.rate * trial.schedule(n) for trial in self.trials]
        for optimizer in self.optimizers:
            optimizer.step(stack, rates, n + 1)
        if stack.average is not None:
            decays = [float(trial.recipe.regularization.ema_decay or 0.0) for trial in self.trials]
            stack.update_average([formulas.average_share(decay, n) for decay in decays])

    def _batches(self, n: int) -> Iterator[tuple[list[int] | None, Batch, bool]]:
        """(rows of the stack or None for all, their batch, whether they share it), until every
        trial has had its own.

        Where trials have batches of their own, those of one shape go together: (K, B, ...).
        """
        keys = list(dict.fromkeys(self.data_keys[trial.number] for trial in self.trials))
        shown = {key: self._shown(self.setups[key], n) for key in keys}
        if len(keys) == 1:
            yield None, shown[keys[0]], True
            return
        rows_by_size: dict[int, list[int]] = {}
        for row, trial in enumerate(self.trials):
            rows_by_size.setdefault(len(shown[self.data_keys[trial.number]]), []).append(row)
        for rows in rows_by_size.values():
            batches = [shown[self.data_keys[self.trials[row].number]] for row in rows]
            yield (None if len(rows_by_size) == 1 else rows), _stack_batches(batches), False

    def _shown(self, setup: TrainingSetup, n: int) -> Batch:
        """The batch of update n as the model is shown it."""
        seed = setup.recipe.train.seed
        batch = setup.batches.take(n)
        if setup.update.hide is not None:
            batch = setup.update.hide(batch, draw_seed(seed, HIDING, n))
        if setup.update.augmentations:
            generator = self.placement.generator()
            generator.manual_seed(draw_seed(seed, AUGMENTATION, n))
            for augment in setup.update.augmentations:
                batch = augment(batch, generator)
        return batch

    def _losses(self, rows: list[int] | None, batch: Batch, shared: bool) -> tuple[Tensor, Tensor]:
        """(sum, count) of each trial's loss, (K,) each."""
        if self.autocast is None:
            outputs = self.stack.forward(batch.inputs, shared=shared, rows=rows)
        else:
            with self.autocast:
                outputs = self.stack.forward(batch.inputs, shared=shared, rows=rows)
            outputs = outputs.float()
        total, count = self._apply_loss(self.loss, outputs, batch, shared)
        if self.smoothing is not None:
            smoothed, _ = self._apply_loss(self.smoother, outputs, batch, shared)
            smoothing = self.smoothing if rows is None else self.smoothing[rows]
            share = smoothing.view(-1, *(1,) * (total.ndim - 1))
            total = total + share * (smoothed - total)
        return total, count

    def _apply_loss(
        self, loss: Loss, outputs: Tensor, batch: Batch, shared: bool
    ) -> tuple[Tensor, Tensor]:
        """(sum, count) of one loss for each trial, (K,) each; `outputs` (K, B, ...)."""
        # a target is a tensor, a dict of tensors, or None, which vmap takes for no tensor
        stacked = {"rows": batch.rows, "target": batch.target}
        if shared:
            stacked = {}
        elif batch.target is None:
            del stacked["target"]

        def run(own: tuple[Tensor, dict[str, Any]]) -> tuple[Tensor, Tensor]:
            outputs, tensors = own
            target, rows = batch.target, batch.rows
            if not shared:
                target, rows = tensors.get("target"), tensors["rows"]
            shown = Batch({}, target, rows)
            total, count = loss(
                outputs, shown if self.members == 1 else repeat_rows(shown, self.members)
            )
            return total, torch.as_tensor(count)

        return over_models(len(outputs), run, (outputs, stacked))

    def _record_losses(
        self, n: int, rows: list[int] | None, total: Tensor, count: Tensor, batch: Batch
    ) -> None:
        """Add up each trial's loss; a trial whose loss is NaN or infinite has failed."""
        totals, counts = formulas.reported_loss(total, count, batch.rows.shape[-1], stacked=True)
        trials = self.trials if rows is None else [self.trials[row] for row in rows]
        for trial, value, number in zip(trials, as_floats(totals), as_floats(counts)):
            if value - value != 0:
                trial.end(
                    "failed",
                    f"step {n + 1:,}: the loss is NaN or infinite; lower optimizer.learning_rate, "
                    "or set train.clip_norm",
                )
            else:
                trial.loss_sum, trial.loss_count = trial.loss_sum + value, trial.loss_count + number

    def _regularize(self) -> None:
        """Add the gradients of each trial's L1 and L2 penalties, on matrices and kernels only."""
        l1 = [trial.recipe.regularization.l1 for trial in self.trials]
        l2 = [trial.recipe.regularization.l2 for trial in self.trials]
        if not any(l1) and not any(l2):
            return
        weights = {
            name: weight.detach() for name, weight in self.stack.trained.items() if weight.ndim >= 3
        }
        gradients = {k: v for k, v in self.stack.gradients().items() if k in weights}
        formulas.add_penalties(
            list(gradients.values()),
            [weights[name] for name in gradients],
            self._per_trial(l1),
            self._per_trial(l2),
        )

    def _clip(self) -> None:
        """Clip each trial's gradient as its recipe asks."""
        values = [trial.recipe.train.clip_value for trial in self.trials]
        norms = [trial.recipe.train.clip_norm for trial in self.trials]
        gradients = list(self.stack.gradients().values())
        if any(values):
            limits = [math.inf if value is None else value for value in values]
            formulas.clip_values(gradients, self._per_trial(limits))
        if any(norms):
            limits = [math.inf if norm is None else norm for norm in norms]
            formulas.clip_norm(gradients, self._per_trial(limits).float())

    def _per_trial(self, values: Sequence[float]) -> Tensor:
        """(K,), float64: every digit of the recipe's numbers."""
        return torch.tensor(values, dtype=torch.float64, device=self.placement.device)

    # --- after an update

    def _after(self, n: int, decide: Callable[[list[TrialEvaluation]], Decision] | None) -> None:
        """Reports, evaluations and what follows of them, where some trial's plan has one after n
        updates."""
        epoch = n / self.first.plan.steps_per_epoch
        for trial in self.trials:
            if not trial.state and (
                n % trial.plan.report_every == 0 or n == trial.plan.total_steps
            ):
                trial.record_loss(n, epoch)
        due = [
            trial
            for trial in self.trials
            if not trial.state
            and trial.plan.evaluate_every
            and (n % trial.plan.evaluate_every == 0 or n == trial.plan.total_steps)
        ]
        if due:
            self._evaluate(n, epoch, due, decide)
        for trial in self.trials:
            trial.step = n
            if n >= trial.plan.total_steps:
                trial.end("complete")
        self._remove_finished([row for row, trial in enumerate(self.trials) if not trial.state])

    def _evaluate(
        self,
        n: int,
        epoch: float,
        due: list[TrialState],
        decide: Callable[[list[TrialEvaluation]], Decision] | None,
    ) -> None:
        by_lane: dict[int, Scores] = {}
        for key in dict.fromkeys(self.data_keys[trial.number] for trial in due):
            rows = [
                row for row, trial in enumerate(self.trials) if self.data_keys[trial.number] == key
            ]
            setup = self.setups[key]
            answers = partial(
                self.stack.predict, rows=None if len(rows) == len(self.trials) else rows
            )
            scores_of_rows = setup.evaluator.score_many(
                answers,
                [self.trials[row].recipe.loss for row in rows],
                "validation",
                setup.data.splits["validation"],
            )
            by_lane |= {
                self.trials[row].number: scores for row, scores in zip(rows, scores_of_rows)
            }
        events: list[TrialEvaluation] = []
        for trial in sorted(due, key=lambda trial: trial.number):
            score = trial.record_scores(n, epoch, by_lane[trial.number])
            events.append(
                TrialEvaluation(trial.number, n, score, dict(by_lane[trial.number].values))
            )
        if decide is None:
            return
        decision = decide(events)
        for trial in self.trials:
            if trial.number in decision.prune:
                trial.end("pruned", f"pruned at step {n:,}")
        for target, (source, recipe) in decision.copies.items():
            self._copy(source, target, recipe)

    def _copy(self, source: int, target: int, recipe: Recipe) -> None:
        """Go on with trial `target` from the state of trial `source`, with the numbers of a recipe
        of its own."""
        rows = {trial.number: row for row, trial in enumerate(self.trials)}
        source_row, target_row = rows[source], rows[target]
        trial = self.trials[target_row]
        if not any(
            optimizer.copy_row(self.stack, source_row, target_row, recipe)
            for optimizer in self.optimizers
        ):
            raise RunError(
                "trials of different optimizers cannot go on from one another.",
                hint="leave optimizer out of the space",
            )
        self.stack.copy(source_row, target_row)
        trial.recipe, trial.rate = recipe, learning_rate_of(recipe.optimizer.options)
        trial.schedule = registry.build_schedule(recipe.schedule, trial.plan.total_steps)
        self._set_losses()

    def _remove_finished(self, staying: list[int]) -> None:
        """Take trials that ended out of the stack."""
        if len(staying) == len(self.trials):
            return
        now = time.perf_counter()
        share = (now - self.began) / len(self.trials)
        self.began = now
        for row, trial in enumerate(self.trials):
            trial.seconds += share
            if row not in staying:
                trial.module = None  # type: ignore[assignment]
        self.trials = [self.trials[row] for row in staying]
        if not staying:
            return
        self.stack.keep(staying)
        for optimizer in self.optimizers:
            optimizer.keep_rows(self.stack, staying)
        self._set_losses()


def _outcome(trial: TrialState) -> Outcome:
    return Outcome(
        trial.state or "complete",
        trial.cause,
        trial.scores,
        trial.step,
        trial.curve,
        trial.losses,
        trial.seconds,
        trial.metric,
        trial.better,
        trial.best_step,
        trial.parameters,
    )


def _stack_batches(batches: Sequence[Batch]) -> Batch:
    """K batches with the same number of rows as one batch of tensors (K, B, ...)."""
    inputs = {
        name: _stack_padded([batch.inputs[name] for batch in batches]) for name in batches[0].inputs
    }
    targets = [batch.target for batch in batches]
    target: Any = None
    if isinstance(targets[0], dict):
        named = cast("list[dict[str, Tensor]]", targets)
        target = {
            name: _stack_padded([target[name] for target in named], IGNORED) for name in named[0]
        }
    elif targets[0] is not None:
        target = _stack_padded(targets, IGNORED)
    return Batch(inputs, target, torch.stack([batch.rows for batch in batches]))


def _stack_padded(tensors: Sequence[Tensor], padding: int = 0) -> Tensor:
    """Tensors (B, T, ...) stacked to (K, B, T, ...), padded to the longest T."""
    longest = max(tensor.shape[1] if tensor.ndim > 1 else 0 for tensor in tensors)

    def padded(tensor: Tensor) -> Tensor:
        short = longest - tensor.shape[1] if tensor.ndim > 1 else 0
        return (
            torch.nn.functional.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, short), value=padding)
            if short
            else tensor
        )

    return torch.stack([padded(tensor) for tensor in tensors])
