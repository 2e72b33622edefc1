"""The loop of a population: K recipes of one shape in, K outcomes out; what `danlu.training.loop` is for one.

Every random number is that of the trial's own training: initial weights, order of rows, masks of
dropout and augmentations are functions of (seed, step). So a trial in a stack goes the way of its
own sequential run, up to the rounding of its sums."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from danlu import registry
from danlu.compat.torch_vmap import VmapLevel
from danlu.errors import Interrupted, RunError
from danlu.layers.averaging import members_of
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
from danlu.training.step.gradients import backward
from danlu.training.step.supervised import repeat_rows


@dataclass(frozen=True)
class TrialEvaluation:
    """An evaluation of one trial: `number` is its place among the recipes, `score` the deciding one
    (None: it has no meaning)."""

    number: int
    step: int
    score: float | None
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """What is to be done after evaluations: trials that stop, and trials that go on from another's
    state with a recipe of their own."""

    prune: frozenset[int] = frozenset()
    copies: Mapping[int, tuple[int, Recipe]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: `state` complete, pruned or failed (with its cause); `scores` of the
    validation split at its best step, or at its last where the recipe keeps no best; `curve` its
    (step, deciding score), `losses` its (step, training loss)."""

    state: str
    cause: str
    scores: dict[str, Any]
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
    """Train recipes of one shape as one program; the outcomes in their order.

    `decide` hears the evaluations of each step at which there are some and says what follows.
    `folds` gives each recipe a (fold, of how many) of its own data. `tell` is called after every
    step with its number. `precision` stands in for what train.precision auto would become. Nothing
    is written. Raises RunError where the recipes cannot stand in one stack, Interrupted when a
    signal asks to stop."""
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
        # what a seed or a fold decides is the split, and with it what transforms learn: trials that
        # share both share every batch
        self.data_keys = [(recipe.train.seed, fold) for recipe, fold in zip(recipes, folds)]
        self.setups: dict[Any, TrainingSetup] = {}
        lanes = []
        for number, (recipe, key) in enumerate(zip(recipes, self.data_keys)):
            fresh = key not in self.setups
            if fresh:
                self.setups[key] = self._build_setup(recipe, key[1], precision)
            lanes.append(self._build_trial(number, recipe, self.setups[key], fresh))
        self.first = self.setups[self.data_keys[0]]
        self.placement = self.first.placement
        self.placement.use()
        # trials of one rule side by side, so that it moves neighbours at once
        self.trials = sorted(lanes, key=lambda lane: rule_key(lane.recipe))
        self.all_trials = lanes
        self.stack = Stack(
            [lane.module for lane in self.trials],
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
        self, number: int, recipe: Recipe, ground: TrainingSetup, fresh: bool
    ) -> TrialState:
        if fresh:
            module = ground.state.module
        else:
            module = fresh_module(recipe, ground.data, ground.placement)[0].to(
                ground.placement.device
            )
            module.train()
        planned = plan_training(
            recipe.train, ground.batches.steps_per_epoch, len(ground.data.splits["validation"]) > 0
        )
        metric, better = ground.evaluator.metric, ground.evaluator.better
        rate = learning_rate_of(recipe.optimizer.options)
        return TrialState(
            number, recipe, module, planned, registry.build_schedule(recipe.schedule, planned.total_steps), rate,
            stopping_watchers(recipe, None, planned, metric, better), metric, better,
            recipe.regularization.restore_best and planned.evaluate_every > 0, sum(parameter.numel() for parameter in module.parameters()),
        )  # fmt: skip

    def _may_be_narrow(self) -> bool:
        """Whether nobody but autocast and the optimizers' own kernels touches matrices and
        gradients in every update."""
        touched = [
            lane.recipe.train.clip_norm
            or lane.recipe.train.clip_value
            or lane.recipe.regularization.l1
            or lane.recipe.regularization.l2
            for lane in self.trials
        ]
        by_kernels = all(isinstance(mover, OptimizerPerTrial) for mover in self.optimizers)
        narrow = self.placement.precision == "bfloat16" and self.placement.device.type == "cpu"
        return narrow and by_kernels and len(self.setups) == 1 and not any(touched)

    def _setup_of(self, lane: TrialState) -> TrainingSetup:
        return self.setups[self.data_keys[lane.number]]

    def _set_losses(self) -> None:
        """One loss for all; where smoothing differs, the loss is a straight line in it, drawn
        through two of its points."""
        first = self.first
        part = first.recipe.loss
        smoothing = [
            float(getattr(lane.recipe.loss.options, "label_smoothing", 0.0) or 0.0)
            for lane in self.trials
        ]
        self.smoothing: Tensor | None = None
        self.loss = registry.build_loss(part, first.data.task)
        if len(set(smoothing)) > 1:
            ends = [
                replace(part, options=part.options.model_copy(update={"label_smoothing": each}))
                for each in (0.0, 0.5)
            ]
            self.loss, self.smoother = (registry.build_loss(each, first.data.task) for each in ends)
            self.smoothing = torch.tensor(
                [2 * each for each in smoothing], device=self.placement.device
            )
        elif smoothing:
            self.loss = registry.build_loss(self.trials[0].recipe.loss, first.data.task)

    # --- the loop

    def run(
        self,
        decide: Callable[[list[TrialEvaluation]], Decision] | None = None,
        tell: Callable[[int], None] | None = None,
    ) -> list[Outcome]:
        """Steps until every trial has ended."""
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
                    hint="run the same command again: these trials start anew, those that ended are kept",
                )
        return [_outcome(lane) for lane in self.all_trials]

    def step(self, n: int) -> None:
        """Update n of every lane."""
        stack = self.stack
        self.placement.seed(draw_seed(self.trials[0].recipe.train.seed, STEP, n))
        stack.generators.seed([draw_seed(lane.recipe.train.seed, STEP, n) for lane in self.trials])
        stack.clear()
        for places, batch, shared in self._batches(n):
            total, count = self._losses(places, batch, shared)
            backward(total, count.reciprocal())
            self._record_losses(n, places, total.detach(), count, batch)
        self._regularize()
        self._clip()
        rates = [lane.rate * lane.schedule(n) for lane in self.trials]
        for mover in self.optimizers:
            mover.step(stack, rates, n + 1)
        if stack.average is not None:
            decays = [float(lane.recipe.regularization.ema_decay or 0.0) for lane in self.trials]
            stack.update_average([min(decay, (1 + n) / (10 + n)) for decay in decays])

    def _batches(self, n: int) -> Iterator[tuple[list[int] | None, Batch, bool]]:
        """(places in the stack or None for all, their batch, whether they share it), until every
        lane has had its own.

        Where lanes have batches of their own, those of like shape go together: (K, B, ...).
        """
        keys = list(dict.fromkeys(self.data_keys[lane.number] for lane in self.trials))
        shown = {key: self._shown(self.setups[key], n) for key in keys}
        if len(keys) == 1:
            yield None, shown[keys[0]], True
            return
        rows_by_size: dict[Any, list[int]] = {}
        for row, lane in enumerate(self.trials):
            rows_by_size.setdefault(len(shown[self.data_keys[lane.number]]), []).append(row)
        for rows in rows_by_size.values():
            batches = [shown[self.data_keys[self.trials[row].number]] for row in rows]
            yield (None if len(rows_by_size) == 1 else rows), _stack_batches(batches), False

    def _shown(self, ground: TrainingSetup, n: int) -> Batch:
        """The batch of update n as the model is shown it."""
        seed = ground.recipe.train.seed
        batch = ground.batches.take(n)
        if ground.update.hide is not None:
            batch = ground.update.hide(batch, draw_seed(seed, HIDING, n))
        if ground.update.augmentations:
            generator = self.placement.generator()
            generator.manual_seed(draw_seed(seed, AUGMENTATION, n))
            for augment in ground.update.augmentations:
                batch = augment(batch, generator)
        return batch

    def _losses(
        self, places: list[int] | None, batch: Batch, shared: bool
    ) -> tuple[Tensor, Tensor]:
        """(sum, count) of each lane's loss, (K,) each."""
        if self.autocast is None:
            outputs = self.stack.forward(batch.inputs, shared=shared, places=places)
        else:
            with self.autocast:
                outputs = self.stack.forward(batch.inputs, shared=shared, places=places)
            outputs = outputs.float()
        total, count = self._apply_loss(self.loss, outputs, batch, shared)
        if self.smoothing is not None:
            other, _ = self._apply_loss(self.smoother, outputs, batch, shared)
            share = (self.smoothing if places is None else self.smoothing[places]).view(
                -1, *(1,) * (total.ndim - 1)
            )
            total = total + share * (other - total)
        return total, count

    def _apply_loss(
        self, loss: Any, outputs: Tensor, batch: Batch, shared: bool
    ) -> tuple[Tensor, Tensor]:
        with VmapLevel(len(outputs)) as together:
            shown = (
                Batch({}, batch.target, batch.rows)
                if shared
                else Batch({}, _split_target(together, batch.target), together.split(batch.rows))
            )
            total, count = loss(
                together.split(outputs),
                shown if self.members == 1 else repeat_rows(shown, self.members),
            )
            return together.join(total), together.join(torch.as_tensor(count))

    def _record_losses(
        self, n: int, places: list[int] | None, total: Tensor, count: Tensor, batch: Batch
    ) -> None:
        """Add up each lane's loss; a lane whose loss is NaN or infinite has failed."""
        rows = batch.rows.shape[-1]
        totals, counts = total, count
        if total.ndim > 1:  # of several tasks, the sum of their means, times rows
            totals = (total / count).flatten(1).sum(1) * rows
            counts = torch.full_like(totals, float(rows))
        lanes = self.trials if places is None else [self.trials[row] for row in places]
        for lane, value, number in zip(lanes, totals.tolist(), counts.tolist()):
            if value - value != 0:
                lane.end(
                    "failed",
                    f"step {n + 1:,}: the loss is NaN or infinite; lower optimizer.learning_rate, or set train.clip_norm",
                )
            else:
                lane.loss_sum, lane.loss_count = lane.loss_sum + value, lane.loss_count + number

    def _regularize(self) -> None:
        """Add the gradients of each lane's L1 and L2 penalties, on matrices and kernels only."""
        l1 = [lane.recipe.regularization.l1 for lane in self.trials]
        l2 = [lane.recipe.regularization.l2 for lane in self.trials]
        if not any(l1) and not any(l2):
            return
        with torch.no_grad():
            for name, gradient in self.stack.gradients().items():
                weight = self.stack.trained[name].detach()
                if weight.ndim >= 3:
                    first, second = (_column(each, weight) for each in (l1, l2))
                    gradient.add_(second * weight).add_(first * weight.sign())

    def _clip(self) -> None:
        """Shorten each lane's gradient as its recipe asks."""
        values = [lane.recipe.train.clip_value for lane in self.trials]
        norms = [lane.recipe.train.clip_norm for lane in self.trials]
        if not any(values) and not any(norms):
            return
        gradients = list(self.stack.gradients().values())
        with torch.no_grad():
            if any(values):
                for each in gradients:
                    most = _column(
                        [value if value is not None else float("inf") for value in values], each
                    )
                    torch.minimum(torch.maximum(each, -most, out=each), most, out=each)
            if any(norms):
                squares = torch.stack([each.flatten(1).norm(dim=1) for each in gradients]).norm(
                    dim=0
                )
                most = torch.tensor(
                    [float("inf") if norm is None else norm for norm in norms],
                    device=squares.device,
                )
                share = (most / (squares + 1e-6)).clamp(
                    max=1.0
                )  # as torch.nn.utils.clip_grad_norm_
                for each in gradients:
                    each.mul_(share.view(-1, *(1,) * (each.ndim - 1)))

    # --- after an update

    def _after(self, n: int, decide: Callable[[list[TrialEvaluation]], Decision] | None) -> None:
        """Reports, evaluations and what follows of them, where some lane's plan has one after n
        updates."""
        epoch = n / self.first.plan.steps_per_epoch
        for lane in self.trials:
            if not lane.state and (n % lane.plan.report_every == 0 or n == lane.plan.total_steps):
                lane.record_loss(n, epoch)
        due = [
            lane
            for lane in self.trials
            if not lane.state
            and lane.plan.evaluate_every
            and (n % lane.plan.evaluate_every == 0 or n == lane.plan.total_steps)
        ]
        if due:
            self._evaluate(n, epoch, due, decide)
        for lane in self.trials:
            lane.step = n
            if n >= lane.plan.total_steps:
                lane.end("complete")
        self._remove_finished([row for row, lane in enumerate(self.trials) if not lane.state])

    def _evaluate(
        self,
        n: int,
        epoch: float,
        due: list[TrialState],
        decide: Callable[[list[TrialEvaluation]], Decision] | None,
    ) -> None:
        by_lane: dict[int, Scores] = {}
        for key in dict.fromkeys(self.data_keys[lane.number] for lane in due):
            rows = [
                row for row, lane in enumerate(self.trials) if self.data_keys[lane.number] == key
            ]
            ground = self.setups[key]
            answers = partial(
                self.stack.predict, places=None if len(rows) == len(self.trials) else rows
            )
            scores_of_rows = ground.evaluator.score_many(
                answers,
                [self.trials[row].recipe.loss for row in rows],
                "validation",
                ground.data.splits["validation"],
            )
            by_lane |= {
                self.trials[row].number: scores for row, scores in zip(rows, scores_of_rows)
            }
        events = []
        for lane in sorted(due, key=lambda each: each.number):
            score = lane.record_scores(n, epoch, by_lane[lane.number])
            events.append(TrialEvaluation(lane.number, n, score, dict(by_lane[lane.number].values)))
        if decide is None:
            return
        decision = decide(events)
        for lane in self.trials:
            if lane.number in decision.prune:
                lane.end("pruned", f"pruned at step {n:,}")
        for target, (source, recipe) in decision.copies.items():
            self._copy(source, target, recipe)

    def _copy(self, source: int, target: int, recipe: Recipe) -> None:
        """Go on with trial `target` from the state of trial `source`, with the numbers of a recipe
        of its own."""
        rows = {lane.number: row for row, lane in enumerate(self.trials)}
        source_row, target_row = rows[source], rows[target]
        lane = self.trials[target_row]
        if not any(
            mover.copy_row(self.stack, source_row, target_row, recipe) for mover in self.optimizers
        ):
            raise RunError(
                "trials of different optimizers cannot go on from one another.",
                hint="leave optimizer out of the space",
            )
        self.stack.copy(source_row, target_row)
        lane.recipe, lane.rate = recipe, learning_rate_of(recipe.optimizer.options)
        lane.schedule = registry.build_schedule(recipe.schedule, lane.plan.total_steps)
        self._set_losses()

    def _remove_finished(self, staying: list[int]) -> None:
        """Take lanes that ended out of the stack."""
        if len(staying) == len(self.trials):
            return
        now = time.perf_counter()
        share = (now - self.began) / len(self.trials)
        self.began = now
        for row, lane in enumerate(self.trials):
            lane.seconds += share
            if row not in staying:
                lane.module = None  # type: ignore[assignment]
        self.trials = [self.trials[row] for row in staying]
        if not staying:
            return
        self.stack.keep(staying)
        for mover in self.optimizers:
            mover.keep_rows(self.stack, staying)
        self._set_losses()


def _outcome(lane: TrialState) -> Outcome:
    return Outcome(
        lane.state or "complete", lane.cause, lane.scores, lane.step, lane.curve, lane.losses, lane.seconds,
        lane.metric, lane.better, lane.best_step, lane.parameters,
    )  # fmt: skip


def _split_target(together: VmapLevel, target: Any) -> Any:
    return None if target is None else together.split(target)


def _stack_batches(batches: Sequence[Batch]) -> Batch:
    """Batches of as many rows as one, (K, B, ...)."""
    inputs = {
        name: _stack_padded([batch.inputs[name] for batch in batches]) for name in batches[0].inputs
    }
    targets = [batch.target for batch in batches]
    target: Any = None
    if isinstance(targets[0], dict):
        target = {
            name: _stack_padded([batch_target[name] for batch_target in targets], IGNORED)
            for name in targets[0]
        }
    elif targets[0] is not None:
        target = _stack_padded(targets, IGNORED)
    return Batch(inputs, target, torch.stack([batch.rows for batch in batches]))


def _stack_padded(tensors: Sequence[Tensor], padding: int = 0) -> Tensor:
    """(K, B, ...), of tensors that may be padded to different lengths (B, T, ...): brought to the
    longest."""
    longest = max(each.shape[1] if each.ndim > 1 else 0 for each in tensors)

    def padded(tensor: Tensor) -> Tensor:
        short = longest - tensor.shape[1] if tensor.ndim > 1 else 0
        return (
            torch.nn.functional.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, short), value=padding)
            if short
            else tensor
        )

    return torch.stack([padded(each) for each in tensors])


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(
        -1, *(1,) * (like.ndim - 1)
    )
