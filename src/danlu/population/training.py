"""The loop of a population: K recipes of one shape in, K outcomes out; what `danlu.training` is for one.

Every random number is that of the trial's own training: initial weights, order of rows, masks of dropout and augmentations are functions of
(seed, step). So a trial in a stack goes the way of its own sequential run, up to the rounding of its sums.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from danlu import shelf
from danlu.apparatus import Apparatus, assemble, fresh_module, plan
from danlu.batches import Batches
from danlu.errors import Interrupted, RunError
from danlu.interruption import Interruption
from danlu.placement import AUGMENTATION, HIDING, STEP, draw_seed
from danlu.population.lanes import Lane, watchers_of
from danlu.population.likeness import shape_key, why_not
from danlu.population.moving import Mover, movers, rule_key
from danlu.population.stack import Stack
from danlu.recipe import Recipe
from danlu.step.gradients import walk_back
from danlu.step.supervised import repeated
from danlu.terms import IGNORED, Batch


@dataclass(frozen=True)
class Event:
    """An evaluation of one trial: `number` is its place among the recipes, `score` the deciding one (None: it has no meaning)."""

    number: int
    step: int
    score: float | None
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class Decision:
    """What is to be done after evaluations: trials that stop, and trials that go on from another's state with a recipe of their own."""

    prune: frozenset[int] = frozenset()
    copies: Mapping[int, tuple[int, Recipe]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """How a trial ended: `state` complete, pruned or failed (with its cause); `scores` of the validation split at its best step, or at
    its last where the recipe keeps no best; `curve` its (step, deciding score), `losses` its (step, training loss)."""

    state: str
    cause: str
    scores: dict[str, Any]
    step: int
    curve: list[tuple[int, float | None]]
    losses: list[tuple[int, float | None]]
    seconds: float
    metric: str
    better: str


def train_population(
    recipes: Sequence[Recipe],
    decide: Callable[[list[Event]], Decision] | None = None,
    *,
    folds: Sequence[tuple[int, int] | None] | None = None,
    interruption: Interruption | None = None,
    tell: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Train recipes of one shape as one program; the outcomes in their order.

    `decide` hears the evaluations of each step at which there are some and says what follows. `folds` gives each recipe a (fold, of how
    many) of its own data. `tell` is called after every step with its number. Nothing is written. Raises RunError where the recipes
    cannot stand in one stack, Interrupted when a signal asks to stop.
    """
    if len({shape_key(recipe) for recipe in recipes}) > 1:
        raise RunError("these trials differ in shape or data, so they cannot be trained as one program.")
    if reason := next((why for why in map(why_not, recipes) if why), ""):
        raise RunError(f"trials of this recipe cannot be trained as one program: {reason}.", hint="tune.on=one_by_one")
    return Population(recipes, folds, interruption).run(decide, tell)


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
        self.built = [assemble(recipes[0], folds[0] if folds else None)]
        if precision is not None:
            self.built[0].placement = replace(self.built[0].placement, precision=precision)
        first = self.built[0]
        self.placement = first.placement
        self.placement.use()
        # folds of one recipe see different rows of the same data: each has what was fitted on its own training rows
        lanes = [self._lane(number, recipe, first, folds) for number, recipe in enumerate(recipes)]
        # trials of one rule side by side, so that it moves neighbours at once
        self.lanes = sorted(lanes, key=lambda lane: rule_key(lane.recipe))
        self.everyone = lanes
        averaged = first.recipe.regularization.ema_decay is not None
        self.stack = Stack([lane.module for lane in self.lanes], self.placement, averaged=averaged)
        self.stack.template.train()
        self.movers: list[Mover] = movers(self.stack, self.lanes)
        self.autocast = self.placement.autocast()
        self.members = int(getattr(first.state.module, "members", 1))
        described = first.data.examples.described, first.data.task.output
        self.augmentations = [shelf.build_augmentation(part, *described) for part in first.recipe.data.augmentations]
        self.hide = getattr(first.data.task, "corrupt", None)
        self._split_by_seed()
        self._set_losses()
        self.began = time.perf_counter()

    def _lane(self, number: int, recipe: Recipe, first: Apparatus, folds: Any) -> Lane:
        if number == 0:
            module = first.state.module
        else:
            module = fresh_module(recipe, first.data, self.placement)[0].to(self.placement.device)
            module.train()
        planned = plan(recipe.train, first.batches.steps_per_epoch, len(first.data.splits["validation"]) > 0)
        metric, better = first.evaluator.metric, first.evaluator.better
        rate = float(getattr(recipe.optimizer.options, "learning_rate"))  # noqa: B009 - every optimizer promises it
        return Lane(
            number, recipe, module, planned, shelf.build_schedule(recipe.schedule, planned.total_steps), rate,
            watchers_of(recipe, None, planned, metric, better), metric, better,
            recipe.regularization.restore_best and planned.evaluate_every > 0,
        )  # fmt: skip

    def _split_by_seed(self) -> None:
        """The batches of each seed; where all lanes have one, they share every batch."""
        first = self.built[0]
        seeds = list(dict.fromkeys(lane.recipe.train.seed for lane in self.lanes))
        kept = getattr(self, "batches", {})
        self.batches: dict[int, Batches] = {seed: kept.get(seed) or self._batches(first, seed) for seed in seeds}
        self.shared = len(seeds) == 1

    @staticmethod
    def _batches(first: Apparatus, seed: int) -> Batches:
        size = None if first.recipe.train.batch_size == "all" else int(first.recipe.train.batch_size)
        lengths = None
        if first.batches.lengths is not None:
            from danlu.batches import lengths_of

            lengths = lengths_of(first.data.examples.inputs)
        return Batches(first.rows, first.data.splits["train"], size, seed, lengths, first.data.examples.phase)

    def _set_losses(self) -> None:
        """One loss for all; where smoothing differs, the loss is a straight line in it, drawn through two of its points."""
        first = self.built[0]
        part = first.recipe.loss
        smoothing = [float(getattr(lane.recipe.loss.options, "label_smoothing", 0.0) or 0.0) for lane in self.lanes]
        self.smoothing: Tensor | None = None
        self.loss = shelf.build_loss(part, first.data.task)
        if len(set(smoothing)) > 1:
            ends = [replace(part, options=part.options.model_copy(update={"label_smoothing": each})) for each in (0.0, 0.5)]
            self.loss, self.smoother = (shelf.build_loss(each, first.data.task) for each in ends)
            self.smoothing = torch.tensor([2 * each for each in smoothing], device=self.placement.device)
        elif smoothing:
            self.loss = shelf.build_loss(self.lanes[0].recipe.loss, first.data.task)

    # --- the loop

    def run(
        self, decide: Callable[[list[Event]], Decision] | None = None, tell: Callable[[int], None] | None = None
    ) -> list[Outcome]:
        """Steps until every trial has ended."""
        n = 0
        while self.lanes:
            self.step(n)
            n += 1
            self._after(n, decide)
            if tell is not None:
                tell(n)
            if self.interruption is not None and self.interruption.asked:
                raise Interrupted(
                    f"{self.interruption.name} at step {n:,} of a population.",
                    exit_code=self.interruption.asked,
                    hint="run the same command again: these trials start anew, those that ended are kept",
                )
        return [
            Outcome(lane.state or "complete", lane.cause, lane.scores, lane.step, lane.curve, lane.losses, lane.seconds, lane.metric, lane.better)
            for lane in self.everyone
        ]  # fmt: skip

    def step(self, n: int) -> None:
        """Update n of every lane."""
        stack = self.stack
        self.placement.seed(draw_seed(self.lanes[0].recipe.train.seed, STEP, n))
        stack.chance.seed([draw_seed(lane.recipe.train.seed, STEP, n) for lane in self.lanes])
        batch = self._batch(n)
        stack.clear()
        total, count = self._losses(batch)
        walk_back(total, count.reciprocal())
        self._notice(n, total.detach(), count, batch)
        self._regularize()
        self._clip()
        rates = [lane.rate * lane.schedule(n) for lane in self.lanes]
        for mover in self.movers:
            mover.move(stack, rates, n + 1)
        if stack.average is not None:
            decays = [float(lane.recipe.regularization.ema_decay or 0.0) for lane in self.lanes]
            stack.update_average([min(decay, (1 + n) / (10 + n)) for decay in decays])

    def _batch(self, n: int) -> Batch:
        """The batch that all lanes share, or one a lane, (K, B, ...)."""
        if self.shared:
            return self._shown(next(iter(self.batches.items())), n)
        shown = {seed: self._shown((seed, batches), n) for seed, batches in self.batches.items()}
        each = [shown[lane.recipe.train.seed] for lane in self.lanes]
        inputs = {name: _side_by_side([batch.inputs[name] for batch in each]) for name in each[0].inputs}
        targets = [batch.target for batch in each]
        if isinstance(targets[0], dict):
            target: Any = {name: _side_by_side([found[name] for found in targets], IGNORED) for name in targets[0]}
        else:
            target = None if targets[0] is None else _side_by_side(targets, IGNORED)
        return Batch(inputs, target, torch.stack([batch.rows for batch in each]))

    def _shown(self, held: tuple[int, Batches], n: int) -> Batch:
        seed, batches = held
        batch = batches.take(n)
        if self.hide is not None:
            batch = self.hide(batch, draw_seed(seed, HIDING, n))
        if self.augmentations:
            generator = self.placement.generator()
            generator.manual_seed(draw_seed(seed, AUGMENTATION, n))
            for augment in self.augmentations:
                batch = augment(batch, generator)
        return batch

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(sum, count) of each lane's loss, (K,) each."""
        if self.autocast is None:
            outputs = self.stack.forward(batch.inputs, shared=self.shared)
        else:
            with self.autocast:
                outputs = self.stack.forward(batch.inputs, shared=self.shared)
            outputs = outputs.float()
        total, count = self._measured(self.loss, outputs, batch)
        if self.smoothing is not None:
            other, _ = self._measured(self.smoother, outputs, batch)
            share = self.smoothing.view(-1, *(1,) * (total.ndim - 1))
            total = total + share * (other - total)
        return total, count

    def _measured(self, loss: Any, outputs: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        def one(outputs: Tensor, target: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
            asked = Batch({}, target, rows)
            total, count = loss(outputs, asked if self.members == 1 else repeated(asked, self.members))
            return total, torch.as_tensor(count)

        whole = None if self.shared else 0
        total, count = vmap(one, in_dims=(0, whole, whole), randomness="different")(outputs, batch.target, batch.rows)
        return total, count

    def _notice(self, n: int, total: Tensor, count: Tensor, batch: Batch) -> None:
        """Add up each lane's loss; a lane whose loss is NaN or infinite has failed."""
        rows = batch.rows.shape[-1]
        totals, counts = total, count
        if total.ndim > 1:  # of several tasks, the sum of their means, times rows
            totals = (total / count).flatten(1).sum(1) * rows
            counts = torch.full_like(totals, float(rows))
        for lane, value, number in zip(self.lanes, totals.tolist(), counts.tolist()):
            if value - value != 0:
                lane.end("failed", f"step {n + 1:,}: the loss is NaN or infinite; lower optimizer.learning_rate, or set train.clip_norm")
            else:
                lane.loss_sum, lane.loss_count = lane.loss_sum + value, lane.loss_count + number

    def _regularize(self) -> None:
        """Add the gradients of each lane's L1 and L2 penalties, on matrices and kernels only."""
        l1 = [lane.recipe.regularization.l1 for lane in self.lanes]
        l2 = [lane.recipe.regularization.l2 for lane in self.lanes]
        if not any(l1) and not any(l2):
            return
        with torch.no_grad():
            for name, gradient in self.stack.gradients().items():
                weight = self.stack.moving[name].detach()
                if weight.ndim >= 3:
                    first, second = (_column(each, weight) for each in (l1, l2))
                    gradient.add_(second * weight).add_(first * weight.sign())

    def _clip(self) -> None:
        """Shorten each lane's gradient as its recipe asks."""
        values = [lane.recipe.train.clip_value for lane in self.lanes]
        norms = [lane.recipe.train.clip_norm for lane in self.lanes]
        if not any(values) and not any(norms):
            return
        gradients = list(self.stack.gradients().values())
        with torch.no_grad():
            if any(values):
                for each in gradients:
                    most = _column([value if value is not None else float("inf") for value in values], each)
                    torch.minimum(torch.maximum(each, -most, out=each), most, out=each)
            if any(norms):
                squares = torch.stack([each.flatten(1).norm(dim=1) for each in gradients]).norm(dim=0)
                most = torch.tensor([float("inf") if norm is None else norm for norm in norms], device=squares.device)
                share = (most / (squares + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
                for each in gradients:
                    each.mul_(share.view(-1, *(1,) * (each.ndim - 1)))

    # --- after an update

    def _after(self, n: int, decide: Callable[[list[Event]], Decision] | None) -> None:
        """Reports, evaluations and what follows of them, where some lane's plan has one after n updates."""
        epoch = n / self.built[0].plan.steps_per_epoch
        for lane in self.lanes:
            if not lane.state and (n % lane.plan.report_every == 0 or n == lane.plan.total_steps):
                lane.hear_loss(n, epoch)
        due = [
            lane
            for lane in self.lanes
            if not lane.state and lane.plan.evaluate_every and (n % lane.plan.evaluate_every == 0 or n == lane.plan.total_steps)
        ]
        if due:
            self._evaluate(n, epoch, due, decide)
        for lane in self.lanes:
            lane.step = n
            if n >= lane.plan.total_steps:
                lane.end("complete")
        self._let_go([place for place, lane in enumerate(self.lanes) if not lane.state])

    def _evaluate(self, n: int, epoch: float, due: list[Lane], decide: Callable[[list[Event]], Decision] | None) -> None:
        first = self.built[0]
        found = first.evaluator.score_many(self.stack.answers, len(self.stack), "validation", first.data.splits["validation"])
        self.stack.template.train()
        by_lane = {lane.number: scores for lane, scores in zip(self.lanes, found)}
        events = []
        for lane in sorted(due, key=lambda each: each.number):
            score = lane.hear_scores(n, epoch, by_lane[lane.number])
            events.append(Event(lane.number, n, score, dict(by_lane[lane.number].values)))
        if decide is None:
            return
        decision = decide(events)
        for lane in self.lanes:
            if lane.number in decision.prune:
                lane.end("pruned", f"pruned at step {n:,}")
        for target, (source, recipe) in decision.copies.items():
            self._copy(source, target, recipe)

    def _copy(self, source: int, target: int, recipe: Recipe) -> None:
        """Go on with trial `target` from the state of trial `source`, with the numbers of a recipe of its own."""
        places = {lane.number: place for place, lane in enumerate(self.lanes)}
        here, there = places[source], places[target]
        lane = self.lanes[there]
        if not any(mover.copy(self.stack, here, there, recipe) for mover in self.movers):
            raise RunError("trials of different optimizers cannot go on from one another.", hint="leave optimizer out of the space")
        self.stack.copy(here, there)
        lane.recipe, lane.rate = recipe, float(getattr(recipe.optimizer.options, "learning_rate"))  # noqa: B009
        lane.schedule = shelf.build_schedule(recipe.schedule, lane.plan.total_steps)
        self._set_losses()

    def _let_go(self, staying: list[int]) -> None:
        """Take lanes that ended out of the stack."""
        if len(staying) == len(self.lanes):
            return
        now = time.perf_counter()
        share = (now - self.began) / len(self.lanes)
        self.began = now
        for place, lane in enumerate(self.lanes):
            lane.seconds += share
            if place not in staying:
                lane.module = None  # type: ignore[assignment]
        self.lanes = [self.lanes[place] for place in staying]
        if not staying:
            return
        self.stack.keep(staying)
        for mover in self.movers:
            mover.keep(self.stack, staying)
        self._split_by_seed()
        self._set_losses()


def _side_by_side(tensors: Sequence[Tensor], padding: int = 0) -> Tensor:
    """(K, B, ...), of tensors that may be padded to different lengths (B, T, ...): brought to the longest."""
    longest = max(each.shape[1] if each.ndim > 1 else 0 for each in tensors)

    def padded(each: Tensor) -> Tensor:
        short = longest - each.shape[1] if each.ndim > 1 else 0
        return torch.nn.functional.pad(each, (0, 0) * (each.ndim - 2) + (0, short), value=padding) if short else each

    return torch.stack([padded(each) for each in tensors])


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, *(1,) * (like.ndim - 1))


