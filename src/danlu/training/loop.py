"""The training loop: a recipe becomes an artifact. Read this file first.

The order of the file is the order of events: the run folder, the data, the model, the state (new,
or from the newest good checkpoint), then one update after another, with reports, evaluations and
checkpoints at steps that are a function of the recipe; at the end the test split and the artifact.
A killed run ends in the same bytes as one never killed, because everything it needs to go on is in
the state that a checkpoint holds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from danlu import recipe as recipes
from danlu import registry
from danlu.artifact import artifact as artifacts
from danlu.artifact.prediction import Artifact, load
from danlu.data.batches import rows_at_once
from danlu.errors import ArtifactError, CheckpointError, Interrupted, TrainingStopped
from danlu.layers.tensors import from_array
from danlu.parts.schedules._base import ScoreSchedule
from danlu.parts.tasks._base import Calibrates
from danlu.parts.watchers._base import RunInfo, Watcher, Watchers
from danlu.recipe import Recipe
from danlu.system import machine
from danlu.system.atomic_files import atomic_folder
from danlu.system.signals import Interruption
from danlu.system.standard_streams import stderr_is_terminal
from danlu.terms import Sample, TrainingEvent
from danlu.training.checkpoint import Checkpoints
from danlu.training.evaluation import as_plain_scores, deciding_score, without_nonfinite
from danlu.training.finetuning import merge_adapters
from danlu.training.nan_rows import find_nonfinite_rows
from danlu.training.pretrained_weights import recipe_to_store, weights_of
from danlu.training.run_folder import RunFolder, RunRecord, disk_errors_as, run_id
from danlu.training.setup import TrainingOverrides, build_training
from danlu.training.state import StateFacts
from danlu.training.step import NonFiniteError, SupervisedStep, grad_norm

# how progress is shown
Output = Literal["display", "lines", "quiet", "json"]


def train(
    recipe: Recipe | str | Path | Mapping[str, object],
    run: str | Path | None = None,
    overrides: Sequence[str] | Mapping[str, object] = (),
    *,
    output: Output = "quiet",
    fold: tuple[int, int] | None = None,
    beside: Watcher | None = None,
    training_overrides: TrainingOverrides | None = None,
) -> Artifact:
    """Train a recipe (a Recipe, a file, or a dict) in the run folder `run` (default runs/<recipe
    name>); returns the artifact.

    The same call resumes a run that was interrupted, and returns the artifact of a finished run at
    once.

    overrides            changes of the recipe, as "train.steps=100" or {"train.steps": 100}
    output               how progress is shown
    fold                 (k, folds): train on all folds but number k, which is the validation split
    beside               a watcher that the recipe does not name; what it raises ends the training
    training_overrides   what replaces parts of the training, for a compressor

    Raises DanluError: the recipe or the data is wrong, the folder belongs to another run, training
    stopped itself, or a signal interrupted it (the state is then saved)."""
    if not isinstance(recipe, Recipe):
        recipe = recipes.read(recipe, registry, overrides)
    elif overrides:
        recipe = recipes.with_changes(recipe, registry, overrides)
    with Interruption() as interruption:
        try:
            with RunFolder(Path(run) if run is not None else Path("runs") / recipe.name) as folder:
                folder.refuse_another(recipe)
                if folder.finished:
                    return load(folder.path)
                return Training(
                    recipe, folder, interruption, output, fold, beside, training_overrides
                ).run()
        except KeyboardInterrupt:  # outside the loop, where nothing needs saving
            raise Interrupted(
                f"{interruption.name or 'interrupted'}: stopped; "
                "the checkpoints written so far are kept.",
                exit_code=interruption.exit_code or 130,
                hint="run the same command again: it resumes from the last checkpoint",
            ) from None


class Training:
    """One run, from data to artifact."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        interruption: Interruption,
        output: Output,
        fold: tuple[int, int] | None,
        beside: Watcher | None = None,
        training_overrides: TrainingOverrides | None = None,
    ) -> None:
        self.training_overrides = training_overrides
        self.recipe = recipe
        self.folder = folder
        self.interruption = interruption
        self.output: Output = output
        recorded = folder.resolved()
        self.setup = build_training(
            recipe,
            fold,
            None if recorded is None else recorded.get("placement"),
            check_data=lambda data: folder.refuse_other_data(data.digest, data.table.origin),
            overrides=training_overrides,
        )
        if self.setup.start is not None:
            folder.refuse_other_weights(self.setup.start.digest, str(weights_of(recipe)))
        self.resolved: RunRecord = recorded or {
            **self.setup.record(),
            "fold": list(fold) if fold else None,
        }
        self.state, self.plan, self.data = self.setup.state, self.setup.plan, self.setup.data
        self.checkpoints = Checkpoints(
            folder.path / "checkpoints", run_id(recipe, self.resolved), recipe.train.keep
        )
        self.watchers = self._watchers(beside)

    def run(self) -> Artifact:
        """Train from the first step, or from where a killed run stopped, to the artifact."""
        try:
            step = self._resume()
            with disk_errors_as(self.folder.path, CheckpointError):
                self.loop(step)
            with disk_errors_as(self.folder.path, ArtifactError):
                return self._release()
        finally:
            self.checkpoints.close()
            self.watchers.close()

    # --- before the first step

    def _watchers(self, beside: Watcher | None) -> Watchers:
        recipe, built = self.recipe, self.setup
        stopping = recipe.regularization.early_stopping
        parts = [*recipe.watchers, *([stopping] if stopping is not None else [])]
        steps = self.checkpoints.steps()
        run = RunInfo(
            self.folder.path,
            recipe,
            self.plan.total_steps,
            self.plan.steps_per_epoch,
            built.evaluator.metric,
            built.evaluator.better,
            steps[-1] if steps else 0,
            self.output,
            built.trainable,
            built.sentences(),
        )
        watchers = [registry.build_watcher(part, run) for part in parts]
        return Watchers(parts, watchers, beside)

    def _resume(self) -> int:
        """Restore the newest good checkpoint; returns its step, 0 where there is none."""
        self.checkpoints.prepare(self.state.tensors())
        checkpoint = self.checkpoints.newest()
        self.lock = self.folder.write_lock(self.recipe, self.resolved)
        if checkpoint is not None:
            self._restore(*checkpoint)
        else:
            self.watchers.load({})
        now = machine.versions()
        moved = [
            f"{name} {then} -> {now.get(name)}"
            for name, then in self.resolved["versions"].items()
            if now.get(name) != then
        ]
        self._tell(
            "start",
            message=f"resuming at step {self.state.step:,}" if checkpoint is not None else "",
        )
        for message in [*self.data.notices, *self.checkpoints.notices]:
            self._tell("notice", message=message)
        if moved:
            self._tell(
                "notice",
                message=f"versions changed since this run began ({', '.join(moved)}): the last "
                "bits may differ from those of an uninterrupted run.",
            )
        return self.state.step

    def _restore(self, tensors: Mapping[str, torch.Tensor], facts: StateFacts) -> None:
        """Restore everything as it was when a checkpoint was saved."""
        self.state.restore(tensors, facts)
        if isinstance(self.setup.schedule, ScoreSchedule):
            self.setup.schedule.load(self.state.schedule)
        self.watchers.load(self.state.watchers)
        self.setup.update.skip = frozenset(self.state.skipped)

    # --- the loop

    def loop(self, n: int) -> None:
        """Updates n, n + 1, ... to the end of the plan, or until a watcher or a signal asks to
        stop."""
        total, step, state = self.plan.total_steps, self.setup.update, self.state
        self.clock, self.clock_step = time.perf_counter(), n
        self.interruption.deferred = True
        if n == 0 and self.recipe.train.on_nan == "roll_back":
            self._save()
        while n < total and not state.stopped:
            due = self._next_event(n)
            while n < due and not self.interruption.exit_code:
                try:
                    step(n)
                except NonFiniteError as error:
                    n = self._not_finite(error)
                    break
                n += 1
            if n == due:
                self._events(n)
            if self.interruption.exit_code:
                self._interrupted(n)
        self.interruption.deferred = False
        if self.interruption.exit_code:  # a signal since the last check
            self._interrupted(n)

    def _next_event(self, n: int) -> int:
        """The first step after n at which something is due."""
        plan = self.plan
        every = [
            plan.report_every,
            plan.save_every,
            *([plan.evaluate_every] if plan.evaluate_every else []),
        ]
        return min(plan.total_steps, *((n // interval + 1) * interval for interval in every))

    def _events(self, n: int) -> None:
        """Do what is due after n updates: report, evaluation, checkpoint, in this order."""
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
        values: dict[str, object] = {  # None where every update since the last report was skipped
            "loss": float(state.loss_sum) / count if count else None,
            **{
                name: float(total) / float(parts) for name, (total, parts) in state.reported.items()
            },
            "learning_rate": self.setup.update.learning_rate * self.setup.schedule(n - 1),
            "grad_norm": grad_norm(self.setup.update.parameters)
            if n - 1 not in state.skipped
            else None,
        }
        rate = steps / seconds if steps and seconds > 0 else 0.0
        examples, rows_per_second = self.data.examples, rate * self.setup.batches.batch_size
        timing = {
            "seconds": seconds,
            "rows_per_second": rows_per_second,
            "memory_bytes": float(machine.resident_memory()),
        }
        if examples.units:
            timing[f"{examples.unit}_per_second"] = rows_per_second * examples.units
        if self.setup.peak_rate:
            timing["flop_utilisation"] = rate / self.setup.peak_rate
        if rate:
            timing["eta_seconds"] = (self.plan.total_steps - n) / rate
        state.loss_sum, state.loss_count, state.reported = 0.0, 0.0, {}
        self._tell_first_loss()
        self.clock, self.clock_step = time.perf_counter(), n
        state.stopped = self._tell("train", without_nonfinite(values), timing) or state.stopped

    def _tell_first_loss(self) -> None:
        """Tell the watchers, once, how the first update's loss compares with knowing nothing."""
        update = self.setup.update
        if isinstance(update, SupervisedStep) and update.first_losses is not None:
            loss, uninformed = (float(value) for value in update.first_losses)
            update.first_losses = None
            self._tell("first_loss", {"loss": loss, "uninformed_loss": uninformed})

    def _evaluate(self, n: int) -> None:
        state, began = self.state, time.perf_counter()
        with state.swapped_weights(state.eval_weights):
            scores = self.setup.evaluator.score(
                state.module, "validation", self.data.splits["validation"], final=False
            )
        values = without_nonfinite(as_plain_scores(scores))
        score = deciding_score(values, self.setup.evaluator.metric)
        sign = 1.0 if self.setup.evaluator.better == "higher" else -1.0
        if score is not None and (
            state.best_score is None or sign * (score - state.best_score) > 0
        ):
            state.remember_best(score, without_nonfinite(dict(scores.values)))
        if isinstance(self.setup.schedule, ScoreSchedule):
            self.setup.schedule.observe(score, self.setup.evaluator.better)
            state.schedule = self.setup.schedule.state()
        seconds = time.perf_counter() - began
        state.stopped = (
            self._tell("validation", values, {"seconds": seconds}, samples=scores.samples)
            or state.stopped
        )
        self.clock += seconds

    def _save(self) -> None:
        state = self.state
        state.watchers = self.watchers.state()
        spared = [state.best_step]
        # a roll-back needs the last planned checkpoint, also where an interruption saved one since
        if self.recipe.train.on_nan == "roll_back":
            spared.append(self._planned_before(state.step))
        self.checkpoints.save(
            state.step, state.tensors(), state.facts(), *spared, first=self.watchers.sync
        )

    def _planned_before(self, n: int) -> int:
        """The newest step up to n whose checkpoint the recipe, not a signal, asked for."""
        return n // self.plan.save_every * self.plan.save_every

    def _interrupted(self, n: int) -> None:
        self._save()
        self.checkpoints.wait()
        raise Interrupted(
            f"{self.interruption.name} at step {n:,} of {self.plan.total_steps:,}: "
            "the state is saved.",
            exit_code=self.interruption.exit_code,
            hint="run the same command again: it resumes from there",
        )

    def _not_finite(self, error: NonFiniteError) -> int:
        """Do as train.on_nan says; returns the next step. Raises TrainingStopped for `stop`, and
        where it keeps happening."""
        state, policy = self.state, self.recipe.train.on_nan
        suspects = find_nonfinite_rows(state.module, self.setup.rows, error.rows)
        names = [self.data.where(row) for row in suspects[:5]]
        which = (
            f"every one of the {len(suspects):,} rows of the batch, among them"
            if len(suspects) == len(error.rows)
            else "rows"
        )
        more = f" and {len(suspects) - 5:,} more" if len(suspects) > 5 else ""
        where = f"{which} {', '.join(names)}{more}"
        message = (
            f"step {error.step + 1:,}: {error.tensor} is NaN or infinite ({where}); "
            "it changed no weight."
        )
        hint = (
            "lower optimizer.learning_rate, set train.clip_norm, or look at these rows; "
            "train.on_nan can skip such updates"
        )
        if policy == "stop" or state.failures >= max(10, self.plan.total_steps // 100):
            if state.failures:
                message += f" It happened {state.failures:,} times before, so training is stopped."
            self._save()
            self.checkpoints.wait()
            raise TrainingStopped(message, hint=hint)
        if policy == "roll_back":
            return self._roll_back(error.step, message)
        state.failures += 1
        state.skipped.append(error.step)
        self._tell("notice", message=f"{message} The update is skipped.")
        state.step = error.step + 1
        return state.step

    def _roll_back(self, last: int, message: str) -> int:
        """Restore the last planned checkpoint and skip the updates from there to `last`; returns
        the next step.

        Repeated, they would give the same NaN, bit for bit.
        """
        state, first = self.state, self._planned_before(last)
        skipped, failures = [*state.skipped, *range(first, last + 1)], state.failures + 1
        self.checkpoints.wait()
        self._restore(*self.checkpoints.read(first))
        self.clock, self.clock_step = time.perf_counter(), first
        state.skipped, state.failures = sorted(set(skipped)), failures
        self.setup.update.skip = frozenset(state.skipped)
        skipping = (
            f"updates {first + 1:,} to {last + 1:,} are"
            if first < last
            else f"update {first + 1:,} is"
        )
        self._tell("notice", message=f"{message} Back to step {first:,}; {skipping} skipped.")
        return first

    # --- after the last step

    def _release(self) -> Artifact:
        """Take the best weights, score the test split, write the artifact, read it back and
        compare."""
        state, data = self.state, self.data
        self.checkpoints.wait()
        if state.stopped.startswith("diverged"):
            raise TrainingStopped(
                state.stopped,
                hint="the best checkpoint is kept; lower optimizer.learning_rate and start another "
                "run",
            )
        state.load(state.best if state.best is not None else state.eval_weights)
        merge_adapters(state.module)  # from here on, what is scored is what is released
        if self.training_overrides is not None:
            self.training_overrides.finalize(state.module)
        if isinstance(data.task, Calibrates):
            unseen = (
                data.splits["validation"]
                if len(data.splits["validation"])
                else data.splits["train"]
            )
            data.task.calibrate(self.setup.evaluator.pairs(state.module, unseen))
        scores: dict[str, Any] = {}
        for split in ("validation", "test"):
            if len(data.splits[split]):
                split_scores = self.setup.evaluator.score(state.module, split, data.splits[split])
                values = without_nonfinite(as_plain_scores(split_scores))
                scores[split] = {**values, "rows": split_scores.rows}
                if split == "test":
                    self._tell("test", values)
        measured = [split for split in ("test", "validation") if split in scores]
        if measured:  # a score means little without that of the best constant answer
            scores["baseline"] = {
                "split": measured[0],
                **without_nonfinite(data.baseline(measured[0])),
            }
        if state.stopped:
            self._tell(
                "notice",
                message=f"stopped at step {state.step:,} of {self.plan.total_steps:,}: "
                f"{state.stopped}.",
            )
        best = state.best_step if state.best is not None else state.step
        provenance = {
            **self.resolved,
            "step": state.step,
            "best_step": best,
            "skipped": state.skipped,
        }
        described = data.examples.input_specs
        contents = artifacts.Contents(
            recipe_to_store(self.recipe),
            state.module,
            data.task,
            data.preprocessor,
            scores,
            provenance,
            described,
        )
        if self.training_overrides is not None:
            contents.changes = self.training_overrides.changes
        # its name marks the run as finished, so it is renamed only after it was read back and
        # compared
        path = self.folder.path / "artifact"
        with atomic_folder(path) as candidate:
            artifacts.write_files(candidate, contents, self.lock)
            released = load(candidate)
            self._compare(released)
        released.path = path
        self._tell("end")
        return released

    def _compare(self, released: Artifact) -> None:
        """Raise ArtifactError unless the artifact as read back predicts as the model that was
        scored, bit for bit, on rows of the data."""
        few = min(64, rows_at_once(self.setup.rows, self.data.task.output))
        rows = from_array(self.data.splits["train"][:few].copy())
        batch = self.setup.rows.gather(self.setup.placement.put(rows))
        module, again = self.state.module.eval(), released.module.to(self.setup.placement.device)
        with torch.inference_mode():
            if not torch.equal(module(batch.inputs), again(batch.inputs)):
                raise ArtifactError(
                    "the artifact does not predict as the model that was trained, so it is not "
                    "released.",
                    where=str(self.folder.path),
                    hint="report this: it is a bug in danlu",
                )

    def _tell(
        self,
        kind: Any,
        values: Mapping[str, Any] | None = None,
        timing: Mapping[str, float] | None = None,
        message: str = "",
        samples: tuple[Sample, ...] = (),
    ) -> str:
        step = self.state.step
        return self.watchers.hear(
            TrainingEvent(
                kind,
                step,
                step / self.plan.steps_per_epoch,
                values or {},
                timing or {},
                message,
                samples,
            )
        )


def default_output() -> Output:
    """How progress is shown by default: a live display on a terminal, plain lines elsewhere."""
    return "display" if stderr_is_terminal() else "lines"
