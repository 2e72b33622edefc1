"""A smaller, faster form of an artifact: compressed step by step, then scored again.

It is released only if its scores stay within a limit.

The order of this file is the order of events: the artifact and the rows it was trained on, each
compressor in turn, the result written, read back and compared, the scores and costs of both, the
limit, the final name. A compressor that trains uses the ordinary training loop, in a working folder
beside the result; after a kill the same command resumes there."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from danlu import recipe as recipes
from danlu import registry
from danlu.artifact import artifact as artifacts
from danlu.artifact.artifact import Contents
from danlu.artifact.prediction import Artifact, load
from danlu.compression import costs
from danlu.compression.compressors._base import (
    CompressorState,
    DistilOptions,
    Subject,
    TrainingOptions,
)
from danlu.compression.distillation import DistillationSetup, load_teacher, student_recipe
from danlu.compression.teacher_texts import TeacherTexts
from danlu.data import cache
from danlu.data.batches import Rows, row_pieces, rows_at_once
from danlu.data.dataset import (
    Dataset,
    effective_data,
    make_examples,
    split_rows,
    task_table,
    used_rows,
)
from danlu.errors import ArtifactError, DanluError, DataError, Interrupted, RunError
from danlu.layers.tensors import from_array, unique_tensors
from danlu.layers.vision.test_time_augmentation import AveragedViews
from danlu.parts.losses._base import Loss
from danlu.parts.optimizers._base import learning_rate_of
from danlu.recipe import FineTune, Part, Recipe, Train
from danlu.system.atomic_files import (
    link_error,
    recover,
    remove_leftovers,
    rename_folder,
    replace_file,
    sha256,
)
from danlu.system.placement import Placement, placement_for
from danlu.system.standard_streams import print_line
from danlu.terms import InputSpec, OutputSpec, Table
from danlu.training.evaluation import Evaluator, as_plain_scores, without_nonfinite
from danlu.training.loop import Output, train
from danlu.training.run_folder import RunFolder, disk_errors_as
from danlu.training.setup import TrainingOverrides

BATCHES = (1, 64)  # batch sizes whose latency is reported
_ROWS = 64  # rows of one calibration batch
_SEED = 0x5EED  # of the draw of calibration rows


@dataclass
class CompressionReport:
    """An artifact before and after compression.

    artifact        the compressed one
    before, after   {"scores": by name, "size": bytes on disk, "memory": bytes of the tensors,
                    "latency": {batch size: seconds per batch}}
    split, rows     what the scores are of
    metric          the score that a limit applies to; `better` is "higher" or "lower"
    threads         CPU threads that latency was measured with
    notes           sentences by the compressors
    """

    artifact: Artifact
    before: dict[str, Any]
    after: dict[str, Any]
    split: str
    rows: int
    metric: str
    better: str
    threads: int
    notes: list[str] = field(default_factory=list[str])

    @property
    def drop(self) -> float:
        """By how much `metric` is worse than before, in its own units; negative where better."""
        then, now = self.before["scores"][self.metric], self.after["scores"][self.metric]
        return then - now if self.better == "higher" else now - then

    def as_dict(self) -> dict[str, object]:
        """All of it as JSON values."""
        names = ("before", "after", "split", "rows", "metric", "better", "threads")
        return {
            "artifact": str(self.artifact.path),
            **{name: getattr(self, name) for name in names},
            "told": self.notes,
            "drop": self.drop,
        }

    def table(self) -> list[list[str]]:
        """Rows of text to print: name, before, after, comparison."""
        before, after = self.before, self.after
        lines = [["", "before", "after", ""]]
        names = [
            self.metric,
            *(
                name
                for name, value in before["scores"].items()
                if isinstance(value, float) and name != self.metric
            ),
        ]
        for name in names:
            then, now = before["scores"].get(name), after["scores"].get(name)
            if isinstance(then, float | int) and isinstance(now, float | int) and name != "rows":
                lines.append([name, f"{then:.6g}", f"{now:.6g}", f"{now - then:+.2g}"])
        for name, title in (("size", "size on disk"), ("memory", "weights in memory")):
            lines.append(
                [
                    title,
                    *(f"{costs_of[name] / 1e6:,.3f} MB" for costs_of in (before, after)),
                    _ratio(before[name], after[name], "smaller"),
                ]
            )
        for batch, then in before["latency"].items():
            now = after["latency"][batch]
            lines.append(
                [
                    f"a batch of {batch}",
                    f"{then * 1e3:.3f} ms",
                    f"{now * 1e3:.3f} ms",
                    _ratio(then, now, "as fast"),
                ]
            )
        return lines


def _ratio(then: float, now: float, word: str) -> str:
    return f"{then / now:.2f}x {word}" if now else ""


class CompressedModel(Subject):
    """The Subject of one compressor: the model of an artifact, and the rows it was trained on.

    folder   where trainings happen, each in a folder of its own
    """

    def __init__(self, contents: Contents, own_rows: OwnRows, folder: Path, output: Output) -> None:
        self.contents = contents
        self.module: nn.Module = contents.module
        self.own_rows = own_rows
        self.folder = folder
        self.output_mode: Output = output
        self.notes: list[str] = []

    @property
    def family(self) -> str:
        return self.contents.recipe.model.name

    @property
    def recipe(self) -> Recipe:
        return self.contents.recipe

    @property
    def output(self) -> OutputSpec:
        return self.contents.task.output

    def rows(self, count: int) -> list[dict[str, Tensor]]:
        return self.own_rows.inputs("train", count)

    def train(
        self,
        module: nn.Module | None,
        *,
        epochs: float | None,
        learning_rate: float = 1.0,
        finalize: Callable[[nn.Module], None] = lambda module: None,
        wrap_loss: Callable[[Loss, nn.Module, Dataset], Loss] = lambda loss, module, data: loss,
        replace_data: Callable[[Dataset], Dataset] = lambda data: data,
        recipe: Recipe | None = None,
        record: list[dict[str, Any]] | None = None,
        extra_inputs: Sequence[object] = (),
        changes: Mapping[str, object] | None = None,
    ) -> Artifact:
        base = recipe or self.recipe
        rate = learning_rate_of(base.optimizer.options)
        length = (
            {}
            if epochs is None
            else {"train.steps": None, "train.epochs": epochs, "train.least_steps": 0}
        )
        varied = recipes.with_changes(
            replace(base, raw=base.as_dict()),
            registry,
            {
                **length,
                "optimizer.learning_rate": rate * learning_rate,
                "train.compile": False,
                **(changes or {}),
            },
        )
        if module is not None:
            varied = replace(varied, finetune=FineTune())
        digest = _digest(module or self.module, [*extra_inputs, self.contents.changes])
        return self._run(
            varied,
            TrainingOverrides(
                module,
                digest,
                [] if record is None else record,
                finalize,
                wrap_loss,
                replace_data,
            ),
        )

    def train_changed(
        self,
        config: TrainingOptions,
        name: str,
        state: Mapping[str, Any],
        module: nn.Module,
        finalize: Callable[[nn.Module], None] = lambda module: None,
    ) -> None:
        change = {"name": name, "options": recipes.as_plain(config), "state": dict(state)}
        trained = self.train(
            module,
            epochs=config.epochs,
            learning_rate=config.learning_rate,
            finalize=finalize,
            record=[*self.contents.changes, change],
            extra_inputs=[name, change["options"]],
        )
        self.module = trained.module

    def distil(self, config: DistilOptions) -> CompressorState:
        student = student_recipe(config, self.recipe)
        teacher, where = load_teacher(config, self.contents)
        teacher_digest = _digest(
            teacher.module,
            [teacher.recipe.task.as_dict(), teacher.task.state(), teacher.preprocessor.state()[0]],
        )
        replace_data: Callable[[Dataset], Dataset] = lambda data: data  # noqa: E731
        if config.sequences:
            replace_data = TeacherTexts(
                teacher,
                self.own_rows,
                self.folder,
                teacher_digest,
                student.train,
                self.say,
                self.notes,
            )
        student_artifact = self.train(
            None,
            recipe=student,
            epochs=config.epochs,
            learning_rate=config.learning_rate,
            wrap_loss=DistillationSetup(config, teacher, self.own_rows, student, self.notes),
            extra_inputs=["distil", recipes.as_plain(config), teacher_digest],
            replace_data=replace_data,
        )
        self.contents, self.module = student_artifact, student_artifact.module
        return {"teacher": where}

    def say(self, text: str) -> None:
        """Print a line of progress on stderr, where the user asked for progress."""
        if self.output_mode in ("display", "lines"):
            print_line(text)

    def _run(self, recipe: Recipe, training_overrides: TrainingOverrides) -> Artifact:
        """Train in a folder of its own, where a killed training resumes; what another training left
        there is removed."""
        folder = self.folder / f"training-{len(list(self.folder.glob('training-*.done'))) + 1}"
        started = self.folder / f"{folder.name}.of"
        if not started.is_file() or started.read_text() != training_overrides.digest:
            shutil.rmtree(folder, ignore_errors=True)
            replace_file(started, training_overrides.digest.encode())
        try:
            artifact = train(
                recipe, folder, output=self.output_mode, training_overrides=training_overrides
            )
        except RunError:
            shutil.rmtree(folder, ignore_errors=True)
            artifact = train(
                recipe, folder, output=self.output_mode, training_overrides=training_overrides
            )
        replace_file(self.folder / f"{folder.name}.done", b"")
        return artifact


class OwnRows:
    """The rows that an artifact was trained and scored on, read again from their source and
    prepared by its own preprocessing.

    split   the split that is scored: test, else validation, else train
    """

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.table, self.splits, self.alive = _same_rows(contents)
        self.placement: Placement = placement_for(Train(device="cpu"))
        self.placement.use()
        self.described, self.rows, self.examples = self.prepared(contents)
        recipe, task = contents.recipe, contents.task
        views = AveragedViews(recipe.data.test_time_augmentation, self.described, task.output)
        self.evaluator = Evaluator(
            self.rows, task, recipe.loss, recipe.metrics, self.placement, recipe.train.seed, views
        )
        self.split = next(
            (split for split in ("test", "validation", "train") if len(self.examples[split])),
            "train",
        )

    def prepared(
        self, contents: Contents
    ) -> tuple[Mapping[str, InputSpec], Rows, dict[str, np.ndarray]]:
        """(input specs, all rows, examples by split) of the same table, prepared by the
        preprocessing of `contents`."""
        targets = {name: self.table.columns[name] for name in contents.recipe.data.targets}
        examples = make_examples(
            contents.task, contents.preprocessor, self.table, targets, self.splits, self.alive
        )
        rows = Rows(examples.inputs, contents.preprocessor.pixels, examples.target, self.placement)
        return examples.input_specs, rows, examples.splits

    def inputs(self, split: str, count: int) -> list[dict[str, Tensor]]:
        """Inputs of at most `count` examples of a split, in batches, drawn the same at every
        call."""
        which = self.examples[split]
        if len(which) > count:
            which = np.sort(np.random.default_rng(_SEED).choice(which, count, replace=False))
        size = min(_ROWS, rows_at_once(self.rows, self.contents.task.output))
        return [self.rows.gather(piece).inputs for piece in row_pieces(which, size)]

    def first(self, count: int) -> dict[str, Tensor]:
        """Inputs of the first `count` examples of the scored split; repeated where there are
        fewer."""
        which = np.resize(self.examples[self.split], count)
        return self.rows.gather(from_array(np.ascontiguousarray(which))).inputs

    def scores(self, module: nn.Module) -> dict[str, Any]:
        """Every score on the scored split."""
        return without_nonfinite(
            as_plain_scores(self.evaluator.score(module, self.split, self.examples[self.split]))
        )


def _same_rows(contents: Contents) -> tuple[Table, dict[str, np.ndarray], np.ndarray]:
    """(the table, rows by split, rows in use) of an artifact. Raises DataError where the data has
    changed since training."""
    reading = effective_data(contents.recipe)
    table, digest = cache.load_table(reading.source, reading.columns, contents.recipe.data.cache)
    if digest != contents.provenance["data"]["digest"]:
        raise DataError(
            f"{table.origin} has changed since training, so new scores could not be compared with "
            "those of the artifact.",
            hint="train again, or restore the data",
        )
    table = task_table(contents.recipe, table)
    alive = used_rows(table, contents.recipe)
    return table, split_rows(table, alive, contents.recipe), alive


def compress(
    artifact: Contents | str | Path,
    steps: Sequence[str | Mapping[str, object] | Part],
    out: str | Path | None = None,
    *,
    max_drop: float | None = None,
    score: str | None = None,
    output: Output = "quiet",
) -> CompressionReport:
    """Compress an artifact by `steps`, in order, into the folder `out` (default: beside it,
    NAME-compressed).

    A step is NAME, "NAME:KEY=VALUE,...", or a mapping as in a recipe. `max_drop` limits, in its own
    units, how much worse `score` may become (default: the recipe's first metric, else the loss).

    Raises DanluError where a compressor finds nothing to change, where the written artifact does
    not predict as the model in memory, and where the score drops by more than `max_drop`; no file
    is then left.

    >>> import danlu
    >>> recipe = {"task": "classification", "model": "mlp", "train": {"steps": 2},
    ...           "data": {"source": {"name": "sklearn", "set": "iris"}, "target": "target"}}
    >>> artifact = danlu.train(recipe, "runs/iris")
    >>> report = danlu.compress(artifact, ["int8_weight_only"], "runs/iris-int8")
    >>> report.after["size"] < report.before["size"]  # bytes
    True
    """
    parts = recipes.parse_compressors(steps, registry)
    if not parts:
        raise DanluError("there is nothing to compress with.", hint="danlu list compressors")
    contents = artifact if isinstance(artifact, Contents) else load(artifact)
    if contents.path is None and out is None:
        raise DanluError(
            "the artifact is in no folder, so the folder to write must be given.", hint="give out"
        )
    if out is not None:
        path = Path(out)
    else:
        assert contents.path is not None
        path = contents.path.with_name(f"{contents.path.name}-compressed")
    recover(path)
    _refuse_in_place(path, contents)
    with WorkingFolder(path) as folder:
        report = _compressed(contents, parts, folder, score, output)
        if max_drop is not None and report.drop > max_drop:
            raise DanluError(
                f"{report.metric} on the {report.split} split gets worse by {report.drop:.4g} "
                f"(from {report.before['scores'][report.metric]:.4g} to "
                f"{report.after['scores'][report.metric]:.4g}), and at most {max_drop:g} is "
                "allowed; nothing is kept.",
                hint="use a milder compressor, train longer, or allow more with --max-drop",
            )
        with disk_errors_as(path, DataError):
            rename_folder(folder / "candidate", path)
    report.artifact.path = path
    return report


def _refuse_in_place(path: Path, contents: Contents) -> None:
    if contents.path is not None and path.resolve() == contents.path.resolve():
        raise DanluError(
            "the result would replace the artifact that it is made of.",
            where=str(path),
            hint="choose another --out",
        )
    if path.exists() and not (path / "artifact.json").is_file():
        raise DanluError(
            "this path exists and is no artifact.",
            where=str(path),
            hint="choose another --out",
        )


class WorkingFolder:
    """A folder beside the result in which it is made, locked by this process. It is removed at the
    end and kept after a kill or an interruption, so that the same command resumes."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f".{target.name}.compressing")
        self.folder_lock = RunFolder(self.path, ("candidate", "training-*", "texts-*"))

    def __enter__(self) -> Path:
        if self.path.is_symlink():
            raise link_error(self.path)
        if self.path.exists() and not self.folder_lock.is_ours and any(self.path.iterdir()):
            raise DanluError(
                "danlu needs this name for a working folder, and did not write this folder.",
                where=str(self.path),
                hint="move it away, or choose another --out",
            )
        self.folder_lock.__enter__()
        for done in self.path.glob("training-*.done"):
            done.unlink()
        remove_leftovers(self.path)
        shutil.rmtree(self.path / "candidate", ignore_errors=True)
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        stopped = isinstance(error, KeyboardInterrupt | Interrupted)
        if kind is None or not stopped:
            shutil.rmtree(self.path, ignore_errors=True)
        self.folder_lock.__exit__(kind, error, trace)


def _compressed(
    contents: Contents, parts: Sequence[Part], folder: Path, score: str | None, output: Output
) -> CompressionReport:
    """The report of a result that is written as folder/candidate."""
    own = OwnRows(contents)
    metric, better = _deciding(contents, own, score)
    original = copy.deepcopy(contents.module).eval()
    before_scores = own.scores(original)
    _require(before_scores, metric)
    changed = replace(
        contents, module=copy.deepcopy(contents.module).eval(), changes=list(contents.changes)
    )
    notes: list[str] = []
    now = own
    for part in parts:
        earlier, (changed, more) = changed, _step(changed, part, now, folder, output)
        notes += [f"{part.name}: {note}" for note in more]
        if changed.preprocessor is not earlier.preprocessor:
            now = OwnRows(changed)
    again = _written(changed, folder / "candidate", now, own, parts)
    after_scores = now.scores(again.module)
    _require(after_scores, metric)
    times = {
        size: costs.batch_latencies([(original, own.first(size)), (again.module, now.first(size))])
        for size in BATCHES
    }
    size = costs.size_on_disk(contents.path) if contents.path is not None else 0
    before: dict[str, Any] = {
        "scores": before_scores,
        "size": size,
        "memory": costs.memory_of(original),
    }
    after: dict[str, Any] = {
        "scores": after_scores,
        "size": costs.size_on_disk(folder / "candidate"),
        "memory": costs.memory_of(again.module),
    }
    before["latency"] = {batch: seconds for batch, (seconds, _) in times.items()}
    after["latency"] = {batch: seconds for batch, (_, seconds) in times.items()}
    rows = len(own.examples[own.split])
    return CompressionReport(
        again, before, after, own.split, rows, metric, better, costs.THREADS, notes
    )


def _step(
    contents: Contents, part: Part, own: OwnRows, folder: Path, output: Output
) -> tuple[Contents, list[str]]:
    """(the contents after one compressor, its notes)."""
    compressor = registry.compressor(part.name)
    subject = CompressedModel(contents, own, folder, output)
    subject.module.eval()
    for parameter in subject.module.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    state = compressor.compress(part.options, subject)
    record = {"name": part.name, "options": recipes.as_plain(part.options), "state": state}
    subject.module.eval()
    if compressor.needs_student:
        earlier = [{"name": step["name"], "options": step["options"]} for step in contents.changes]
        state["after"] = earlier
        return replace(subject.contents, module=subject.module, changes=[record]), subject.notes
    return replace(
        contents, module=subject.module, changes=[*contents.changes, record]
    ), subject.notes


def _written(
    contents: Contents, path: Path, own: OwnRows, first: OwnRows, parts: Sequence[Part]
) -> Artifact:
    """The artifact, written with its new scores and read back. Raises ArtifactError unless it
    predicts as the model in memory, bit for bit, on rows of the data."""
    scores = dict(contents.scores)
    for split in ("validation", "test"):
        which = own.examples[split]
        if len(which):
            scores[split] = {
                **without_nonfinite(
                    as_plain_scores(own.evaluator.score(contents.module, split, which))
                ),
                "rows": len(which),
            }
    origin = {"compressed_from": compression_origin(first.contents, parts)}
    lock = recipes.write_yaml(contents.recipe.as_dict())
    artifacts.write(
        path, replace(contents, scores=scores, provenance={**contents.provenance, **origin}), lock
    )
    again = load(path)
    inputs = own.first(_ROWS)
    with torch.inference_mode():
        if not torch.equal(contents.module(dict(inputs)), again.module(dict(inputs))):
            raise ArtifactError(
                "the compressed artifact does not predict as the model in memory, so it is not "
                "released.",
                where=str(path),
                hint="report this: it is a bug in danlu",
            )
    return again


def compression_origin(contents: Contents, parts: Sequence[Part]) -> dict[str, Any]:
    """What a result records of its origin: a hash of the weights, the steps, and the scores and
    size before them."""
    size = {} if contents.path is None else {"size": costs.size_on_disk(contents.path)}
    weights = _digest(contents.module, [contents.changes])
    return {
        "weights": weights,
        "steps": [part.as_dict() for part in parts],
        "scores": contents.scores,
        **size,
    }


def _deciding(contents: Contents, own: OwnRows, score: str | None) -> tuple[str, str]:
    """(the score that a limit applies to, "higher" or "lower")."""
    order = {
        label: registry.metric_facts(part.name).better
        for part, label in _labels(contents.recipe, own.evaluator)
    }
    order["loss"] = "lower"
    if score is None:
        return next(iter(order.items()))
    if score not in order:
        raise DanluError(
            f"there is no score {score!r} of which higher or lower is better.",
            hint=f"scores: {', '.join(order)}",
        )
    return score, order[score]


def _labels(recipe: Recipe, evaluator: Evaluator) -> list[tuple[Part, str]]:
    """(metric, the name its score has)."""
    names = [name for name, _ in [*evaluator.metrics, *evaluator.readers]]
    return [(part, name) for part in recipe.metrics for name in names if name == part.name]


def _require(scores: Mapping[str, Any], metric: str) -> None:
    numbers = [name for name, value in scores.items() if isinstance(value, float)]
    if not isinstance(scores.get(metric), float | int):
        raise DanluError(
            f"{metric} is not defined on these rows, so nothing can be compared.",
            hint=f"choose another --score: {', '.join(numbers)}",
        )


def _digest(module: nn.Module, extra_inputs: Sequence[object]) -> str:
    """SHA-256 of a module's weights and of further JSON values."""
    total = sha256(json.dumps(list(extra_inputs), sort_keys=True, default=str).encode())
    for name, tensor in unique_tensors(module).items():
        total = sha256(
            f"{total}{name}".encode()
            + tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return total


def existing_result(path: Path, contents: Contents, parts: Sequence[Part]) -> Artifact | None:
    """The artifact at `path` if it was made of these contents by these steps; else None."""
    if not (path / "artifact.json").is_file():
        return None
    artifact = load(path)
    recorded, wanted = (
        artifact.provenance.get("compressed_from", {}),
        compression_origin(contents, parts),
    )
    return (
        artifact
        if all(recorded.get(name) == wanted.get(name) for name in ("weights", "steps"))
        else None
    )
