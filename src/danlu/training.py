"""THE LOOP: recipe in, artifact out.

The order of this file is the order of events: the folder, the data, the model, the state (fresh or from the newest good checkpoint), then
update after update, with reports, evaluations and checkpoints at steps that are a function of the recipe; then the test split, and the
artifact. Everything a killed run needs to end in the same bytes is in the state; nothing is remembered elsewhere.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from danlu import artifact as artifacts
from danlu import machine, shelf
from danlu import recipe as recipes
from danlu.batches import Batches, Rows
from danlu.checkpoint import Checkpoints
from danlu.dataset import Dataset, prepare
from danlu.durable import rename_folder
from danlu.errors import ArtifactError, CheckpointError, DanluError, Interrupted, RunError, TrainingStopped
from danlu.evaluation import Evaluator, best_of, flat, rows_at_once
from danlu.interruption import Interruption
from danlu.placement import WEIGHTS, Placement, choose, draw_seed, place, work_of
from danlu.prediction import Artifact, load
from danlu.recipe import Part, Recipe, Train
from danlu.run_folder import RunFolder, run_id
from danlu.state import TrainingState
from danlu.step import NotFinite, SupervisedStep, grad_norm
from danlu.terms import Report
from danlu.watching import Setting, Watchers

Output = Any  # "display" | "lines" | "quiet" | "json"


@dataclass(frozen=True)
class Plan:
    """How many steps, and at which of them something happens: a function of the recipe and the number of rows."""

    steps_per_epoch: int
    total_steps: int
    report_every: int
    evaluate_every: int
    save_every: int


def plan(train: Train, steps_per_epoch: int, has_validation: bool) -> Plan:
    """The Plan of a recipe's train section."""
    total = train.steps if train.steps is not None else max(1, round((train.epochs or 1) * steps_per_epoch), train.least_steps)
    report = train.report_every or max(1, total // 100)
    # once an epoch, but at most about 100 times a run: a full-batch run has as many epochs as steps
    evaluate = train.evaluate_every or steps_per_epoch * max(1, math.ceil(total / steps_per_epoch / 100))
    evaluate = min(evaluate, total)
    save = train.save_every or evaluate * max(1, math.ceil(total / evaluate / 20))
    return Plan(steps_per_epoch, total, report, evaluate if has_validation else 0, save)


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    run: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    output: Output = "quiet",
    fold: tuple[int, int] | None = None,
) -> Artifact:
    """Train a recipe (a Recipe, a file, or a dict) in the run folder `run` (default runs/<recipe name>); returns the artifact.

    The same call continues a run that was cut off, and returns at once the artifact of one that has finished. Raises DanluError: a wrong
    recipe or data, a folder of another run, training that stopped itself, an interruption (state saved).
    """
    if not isinstance(recipe, Recipe):
        recipe = recipes.read(recipe, shelf, overrides)
    elif overrides:
        recipe = recipes.with_changes(recipe, shelf, overrides)
    with Interruption() as interruption:
        try:
            with RunFolder(Path(run) if run is not None else Path("runs") / recipe.name) as folder:
                folder.refuse_another(recipe)
                if folder.finished:
                    return load(folder.path)
                return Training(recipe, folder, interruption, output, fold).run()
        except KeyboardInterrupt:  # outside the loop, where nothing needs saving
            raise Interrupted(
                f"{interruption.name or 'interrupted'}: stopped; what a checkpoint holds is kept.",
                exit_code=interruption.asked or 130,
                hint="run the same command again: it goes on from the last checkpoint",
            ) from None


class Training:
    """One run, from data to artifact."""

    def __init__(
        self, recipe: Recipe, folder: RunFolder, interruption: Interruption, output: Output, fold: tuple[int, int] | None
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.interruption = interruption
        self.output = output
        self.fold = fold
        self.resolved = folder.resolved()
        self.notices: list[str] = []

    def run(self) -> Artifact:
        recipe = self.recipe
        self.placement = place(recipe.train, self.resolved.get("placement"))
        self.placement.use()
        self.data = prepare(recipe, self.fold)
        self.folder.refuse_other_data(self.data.digest, self.data.table.origin)
        self._build()
        self.watchers = self._watchers()
        try:
            step = self._resume()
            with writing(self.folder.path, CheckpointError):
                self.loop(step)
            with writing(self.folder.path, ArtifactError):
                return self._release()
        finally:
            self.checkpoints.close()
            self.watchers.close()

    # --- before the first step

    def _build(self) -> None:
        """Model, optimizer, schedule, loss: everything drawn or fitted anew at every start, the same every time."""
        recipe, data = self.recipe, self.data
        self.rows = Rows(data.arrays, data.preprocessor.pixels, data.target, self.placement)
        full = recipe.train.batch_size == "all"
        size = None if full else int(recipe.train.batch_size)
        self.batches = Batches(self.rows, data.splits["train"], size, recipe.train.seed)
        self.plan = plan(recipe.train, self.batches.steps_per_epoch, len(data.splits["validation"]) > 0)
        self.placement.seed(draw_seed(recipe.train.seed, WEIGHTS, 0))
        module = shelf.build_model(recipe.model, data.preprocessor.inputs, data.task.output)
        if not self.resolved:
            self.placement = choose(self.placement, recipe.train, lambda: self._work_of_step(module))
            self.placement.use()
        module = module.to(self.placement.device)
        module.train()
        optimizer = shelf.build_optimizer(recipe.optimizer, parameter_groups(module, recipe.optimizer))
        self.schedule = shelf.build_schedule(recipe.schedule, self.plan.total_steps)
        regularization = recipe.regularization
        keeps_best = regularization.restore_best and self.plan.evaluate_every > 0
        self.state = TrainingState(module, optimizer, ema=regularization.ema_decay is not None, keep_best=keeps_best)
        if hasattr(self.schedule, "state"):
            self.state.schedule = self.schedule.state()
        self.evaluator = Evaluator(self.rows, data.task, recipe.loss, recipe.metrics, self.placement)
        self.trainable = sum(each.numel() for each in module.parameters() if each.requires_grad)
        self.resolved = self.resolved or self._resolve()
        augmentations = [
            shelf.build_augmentation(part, data.preprocessor.inputs, data.task.output) for part in recipe.data.augmentations
        ]
        loss = shelf.build_loss(recipe.loss, data.task)
        rate = float(getattr(recipe.optimizer.options, "learning_rate"))  # noqa: B009 - every optimizer promises it
        self.step = SupervisedStep(
            self.state, self.batches, loss, self.schedule, rate, augmentations, self.placement, recipe.train, regularization
        )

    def _work_of_step(self, module: torch.nn.Module) -> float:
        """Floating-point operations of one update: one row forward, counted, times three (forward and backward), times rows."""
        one = self.rows.gather(self.batches.indices(0)[:1])
        return 3.0 * work_of(module, {name: tensor.to("cpu") for name, tensor in one.inputs.items()}) * self.batches.batch_size

    def _resolve(self) -> dict[str, Any]:
        data = self.data
        return {
            "placement": self.placement.as_dict(),
            "steps_per_epoch": self.plan.steps_per_epoch,
            "total_steps": self.plan.total_steps,
            "report_every": self.plan.report_every,
            "evaluate_every": self.plan.evaluate_every,
            "save_every": self.plan.save_every,
            "batch_size": self.batches.batch_size,
            "parameters": sum(each.numel() for each in self.state.module.parameters()),
            "data": {
                "origin": data.table.origin,
                "digest": data.digest,
                "rows": {name: len(rows) for name, rows in data.splits.items()},
                "kinds": {name: column.kind for name, column in data.table.columns.items()},
            },
            "fold": list(self.fold) if self.fold else None,
            "versions": machine.versions(),
        }

    def _watchers(self) -> Watchers:
        recipe = self.recipe
        if hasattr(self.schedule, "observe") and self.plan.evaluate_every == 0:
            raise RunError(
                f"schedule {recipe.schedule.name} goes by validation scores, and the validation split has no row.",
                hint="give data.split a share for validation, or choose another schedule",
            )
        parts = list(recipe.watchers)
        if recipe.regularization.early_stopping is not None:
            if self.plan.evaluate_every == 0:
                raise RunError(
                    "early stopping needs a validation split, and it has no row.", hint="give data.split a share for validation"
                )
            parts.append(recipe.regularization.early_stopping)
        rows = self.data.splits
        facts = (
            (
                "data",
                f"{self.data.table.origin}: {len(rows['train']):,} rows to train, {len(rows['validation']):,} to validate, "
                f"{len(rows['test']):,} to test",
            ),
            ("task", self.data.task.describe() if hasattr(self.data.task, "describe") else recipe.task.name),
            (
                "model",
                f"{recipe.model.name}, {self.trainable:,} trainable parameters; {recipe.optimizer.name}; "
                f"{self.plan.total_steps:,} steps of {self.batches.batch_size} rows",
            ),
            ("place", ", ".join(f"{name} {value}" for name, value in self.placement.as_dict().items())),
        )
        self.checkpoints = Checkpoints(self.folder.path / "checkpoints", run_id(recipe, self.resolved), recipe.train.keep)
        steps = self.checkpoints.steps()
        setting = Setting(
            self.folder.path, recipe, self.plan.total_steps, self.plan.steps_per_epoch, self.evaluator.metric, self.evaluator.better,
            steps[-1] if steps else 0, self.output, self.trainable, facts,
        )  # fmt: skip
        return Watchers(parts, [shelf.build_watcher(part, setting) for part in parts])

    def _resume(self) -> int:
        """The step to go on from: that of the newest good checkpoint, else 0."""
        self.checkpoints.prepare(self.state.tensors())
        found = self.checkpoints.newest()
        self.lock = self.folder.write_lock(self.recipe, self.resolved)
        if found is not None:
            self._restore(*found)
        else:
            self.watchers.load({})
        now = machine.versions()
        moved = [f"{name} {then} -> {now.get(name)}" for name, then in self.resolved["versions"].items() if now.get(name) != then]
        self._tell("start", message=f"going on from step {self.state.step:,}" if found is not None else "")
        for message in [*self.data.notices, *self.checkpoints.notices]:
            self._tell("notice", message=message)
        if moved:
            self._tell(
                "notice",
                message=f"versions changed since this run began ({', '.join(moved)}): the last bits may differ from an unbroken run.",
            )
        return self.state.step

    def _restore(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Everything as it was when a checkpoint was saved."""
        self.state.restore(tensors, facts)
        if hasattr(self.schedule, "load"):
            self.schedule.load(self.state.schedule)
        self.watchers.load(self.state.watchers)
        self.step.skip = frozenset(self.state.skipped)

    # --- the loop

    def loop(self, n: int) -> None:
        """Updates n, n + 1, ... to the end of the plan, or until a watcher or a signal asks to stop."""
        total, step, state = self.plan.total_steps, self.step, self.state
        self.clock, self.clock_step = time.perf_counter(), n
        self.interruption.patient = True
        if n == 0 and self.recipe.train.on_nan == "roll_back":
            self._save()
        while n < total and not state.stopped:
            due = self._next_event(n)
            while n < due and not self.interruption.asked:
                try:
                    step(n)
                except NotFinite as found:
                    n = self._not_finite(found)
                    break
                n += 1
            if n == due:
                self._events(n)
            if self.interruption.asked:
                self._interrupted(n)
        self.interruption.patient = False
        if self.interruption.asked:  # between the last look and here
            self._interrupted(n)

    def _next_event(self, n: int) -> int:
        """The first step after n at which something is due."""
        plan = self.plan
        every = [plan.report_every, plan.save_every, *([plan.evaluate_every] if plan.evaluate_every else [])]
        return min(plan.total_steps, *((n // each + 1) * each for each in every))

    def _events(self, n: int) -> None:
        """What is due after n updates: report, evaluation, checkpoint, in this order."""
        plan, last = self.plan, n == self.plan.total_steps
        if n % plan.report_every == 0 or last:
            self._report(n)
        if plan.evaluate_every and (n % plan.evaluate_every == 0 or last):
            self._evaluate(n)
        if n % plan.save_every == 0 or last or self.state.stopped:
            self._save()

    def _report(self, n: int) -> None:
        state = self.state
        seconds, steps = time.perf_counter() - self.clock, n - self.clock_step
        count = float(state.loss_count)
        values = {  # null where every update since the last report was left out
            "loss": float(state.loss_sum) / count if count else None,
            "learning_rate": self.step.learning_rate * self.schedule(n - 1),
            "grad_norm": grad_norm(self.step.parameters) if n - 1 not in state.skipped else None,
        }
        rate = steps / seconds if steps and seconds > 0 else 0.0
        timing = {
            "seconds": seconds,
            "rows_per_second": rate * self.batches.batch_size,
            "memory_bytes": float(machine.resident_memory()),
        }
        if rate:
            timing["eta_seconds"] = (self.plan.total_steps - n) / rate
        state.loss_sum, state.loss_count = 0.0, 0.0
        self.clock, self.clock_step = time.perf_counter(), n
        state.stopped = self._tell("train", finite(values), timing) or state.stopped

    def _evaluate(self, n: int) -> None:
        state, began = self.state, time.perf_counter()
        with state.wearing(state.released):
            scores = self.evaluator.score(state.module, "validation", self.data.splits["validation"])
        values = finite(flat(scores))
        score = best_of(values, self.evaluator.metric)
        sign = 1.0 if self.evaluator.better == "higher" else -1.0
        if score is not None and (state.best_score is None or sign * (score - state.best_score) > 0):
            state.remember_best(score, finite(dict(scores.values)))
        if hasattr(self.schedule, "observe"):
            self.schedule.observe(score, self.evaluator.better)
            state.schedule = self.schedule.state()
        seconds = time.perf_counter() - began
        state.stopped = self._tell("validation", values, {"seconds": seconds}) or state.stopped
        self.clock += seconds

    def _save(self) -> None:
        state = self.state
        state.watchers = self.watchers.state()
        spared = [state.best_step]
        # what a roll-back needs, also after an interruption saved between two planned checkpoints
        if self.recipe.train.on_nan == "roll_back":
            spared.append(self._planned_before(state.step))
        self.checkpoints.save(state.step, state.tensors(), state.facts(), *spared, first=self.watchers.sync)

    def _planned_before(self, n: int) -> int:
        """The newest step up to n at which the recipe, not a signal, had a checkpoint saved."""
        return n // self.plan.save_every * self.plan.save_every

    def _interrupted(self, n: int) -> None:
        self._save()
        self.checkpoints.wait()
        raise Interrupted(
            f"{self.interruption.name} at step {n:,} of {self.plan.total_steps:,}: the state is saved.",
            exit_code=self.interruption.asked,
            hint="run the same command again: it goes on from there",
        )

    def _not_finite(self, found: NotFinite) -> int:
        """Do as train.on_nan says; returns the step to go on with. Raises TrainingStopped for `stop`, and where it keeps happening."""
        state, policy = self.state, self.recipe.train.on_nan
        suspects = self._suspects(found.rows)
        names = [self.data.table.where(row) for row in suspects[:5]]
        which = f"every one of the {len(suspects):,} rows of the batch, among them" if len(suspects) == len(found.rows) else "rows"
        where = f"{which} {', '.join(names)}{f' and {len(suspects) - 5:,} more' if len(suspects) > 5 else ''}"
        message = f"step {found.step + 1:,}: {found.tensor} is NaN or infinite ({where}); no weight was changed by it."
        hint = "lower optimizer.learning_rate, set train.clip_norm, or look at these rows; train.on_nan can skip such updates"
        if policy == "stop" or state.failures >= max(10, self.plan.total_steps // 100):
            if state.failures:
                message += f" It happened {state.failures:,} times before, so training is stopped."
            self._save()
            self.checkpoints.wait()
            raise TrainingStopped(message, hint=hint)
        if policy == "roll_back":
            return self._roll_back(found.step, message)
        state.failures += 1
        state.skipped.append(found.step)
        self._tell("notice", message=f"{message} The update is skipped.")
        state.step = found.step + 1
        return state.step

    def _roll_back(self, last: int, message: str) -> int:
        """Back to the last planned checkpoint; the updates from there to `last` are left out. Returns the step to go on with.

        To repeat them would lead, bit for bit, to where they led before.
        """
        state, first = self.state, self._planned_before(last)
        skipped, failures = [*state.skipped, *range(first, last + 1)], state.failures + 1
        self.checkpoints.wait()
        self._restore(*self.checkpoints.read(first))
        self.clock, self.clock_step = time.perf_counter(), first
        state.skipped, state.failures = sorted(set(skipped)), failures
        self.step.skip = frozenset(state.skipped)
        left_out = f"updates {first + 1:,} to {last + 1:,} are" if first < last else f"update {first + 1:,} is"
        self._tell("notice", message=f"{message} Back to step {first:,}; {left_out} left out.")
        return first

    def _suspects(self, rows: list[int]) -> list[int]:
        """The rows whose own outputs are not finite, else the whole batch."""
        module, bad = self.state.module, []
        module.eval()
        with torch.no_grad():
            for piece in torch.tensor(rows).split(rows_at_once(self.rows)):
                outputs = module(self.rows.gather(self.placement.put(piece)).inputs)
                bad += piece[~torch.isfinite(outputs).reshape(len(piece), -1).all(1).cpu()].tolist()
        module.train()
        return bad or self._by_size(rows)

    def _by_size(self, rows: list[int]) -> list[int]:
        """Rows with the largest input value of each first: where no output is wrong yet, the row that spoils a batch is an extreme one."""
        sizes: list[float] = []
        for piece in torch.tensor(rows).split(rows_at_once(self.rows)):
            inputs = [each for each in self.rows.gather(self.placement.put(piece)).inputs.values() if each.is_floating_point()]
            largest = [each.abs().flatten(1).amax(1) for each in inputs if each.numel()]
            sizes += torch.stack(largest).amax(0).tolist() if largest else [0.0] * len(piece)
        return [row for _, row in sorted(zip(sizes, rows), key=lambda pair: -pair[0])]

    # --- after the last step

    def _release(self) -> Artifact:
        """Best weights in, the test split scored, the artifact written, read back and compared."""
        state, data = self.state, self.data
        self.checkpoints.wait()
        if state.stopped.startswith("diverged"):
            raise TrainingStopped(
                state.stopped, hint="the best checkpoint is kept; lower optimizer.learning_rate and start another run"
            )
        state.put(state.best if state.best is not None else state.released)
        scores: dict[str, Any] = {}
        for split in ("validation", "test"):
            if len(data.splits[split]):
                found = self.evaluator.score(state.module, split, data.splits[split])
                values = finite(flat(found))
                scores[split] = {**values, "rows": found.rows}
                if split == "test":
                    self._tell("test", values)
        if state.stopped:
            self._tell("notice", message=f"stopped at step {state.step:,} of {self.plan.total_steps:,}: {state.stopped}.")
        best = state.best_step if state.best is not None else state.step
        provenance = {**self.resolved, "step": state.step, "best_step": best, "skipped": state.skipped}
        contents = artifacts.Contents(self.recipe, state.module, data.task, data.preprocessor, scores, provenance)
        # it gets its name, by which a run is known to have finished, only after it was read back and compared
        candidate, path = self.folder.path / ".artifact.writing", self.folder.path / "artifact"
        artifacts.write(candidate, contents, self.lock)
        released = load(candidate)
        self._compare(released)
        rename_folder(candidate, path)
        released.path = path
        self._tell("end")
        return released

    def _compare(self, released: Artifact) -> None:
        """The artifact as read back must answer like the model that was measured, bit for bit, on real rows."""
        rows = torch.from_numpy(self.data.splits["train"][:64].copy())
        batch = self.rows.gather(self.placement.put(rows))
        module, again = self.state.module.eval(), released.module.to(self.placement.device)
        with torch.inference_mode():
            if not torch.equal(module(batch.inputs), again(batch.inputs)):
                raise ArtifactError(
                    "the artifact does not answer like the model that was trained, so it is not released.",
                    where=str(self.folder.path),
                    hint="report this: it is a fault of danlu",
                )

    def _tell(
        self, kind: Any, values: Mapping[str, Any] | None = None, timing: Mapping[str, float] | None = None, message: str = ""
    ) -> str:
        step = self.state.step
        return self.watchers.hear(Report(kind, step, step / self.plan.steps_per_epoch, values or {}, timing or {}, message))


@contextmanager
def writing(folder: Path, error: type[DanluError]) -> Iterator[None]:
    """What the system says while a run's files are written, in words: no room, a folder that was removed, ..."""
    try:
        yield
    except OSError as said:
        raise error(
            f"a file could not be written: {said.strerror or said}.",
            where=str(said.filename or folder),
            hint="make room and run the same command again: it goes on from the last checkpoint",
        ) from None


def finite(value: Any) -> Any:
    """Scores with None in place of every number that is NaN or infinite, which JSON cannot hold and no score can be compared with."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def parameter_groups(module: torch.nn.Module, optimizer: Part) -> list[dict[str, Any]]:
    """Matrices and kernels, which weight decay shrinks; then biases and norms, which it leaves alone (their size says nothing).

    One group where nothing decays: each group is a call of the kernel, and 7 microseconds a step.
    """
    trainable = [each for each in module.parameters() if each.requires_grad] or [torch.zeros(1)]
    decayed = [each for each in trainable if each.ndim >= 2]
    spared = [each for each in trainable if each.ndim < 2]
    if not getattr(optimizer.options, "weight_decay", 0.0):
        return [{"params": decayed + spared}]
    return [*([{"params": decayed}] if decayed else []), *([{"params": spared, "weight_decay": 0.0}] if spared else [])]


def default_output() -> str:
    """How progress is shown when nobody says: a live display on a terminal, plain lines elsewhere."""
    return "display" if sys.stderr.isatty() else "lines"


__all__ = ["Dataset", "Part", "Placement", "Plan", "plan", "train"]
