"""The parts of a distillation: the student's recipe, the teacher, and the loss between them.

compressors/distil.py trains with them."""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from danlu import recipe as recipes
from danlu import registry
from danlu.artifact.artifact import Contents
from danlu.artifact.prediction import load
from danlu.compression.compressors._base import DistilOptions
from danlu.compression.distillation_loss import (
    AttentionPair,
    DistillationLoss,
    HiddenStatePair,
    LayerPair,
)
from danlu.compression.teacher_texts import ArtifactRows
from danlu.data.batches import Rows
from danlu.data.dataset import Dataset, prepare
from danlu.errors import ArtifactError, DanluError, PartError
from danlu.layers.attention.multi_head import Attention
from danlu.layers.averaging import members_of
from danlu.layers.selection import matching_names
from danlu.parts.losses._base import Loss
from danlu.parts.tasks._base import CutsExamples, RewritesTexts
from danlu.recipe import Recipe, Train
from danlu.system.placement import placement_for
from danlu.terms import Batch
from danlu.training.setup import fresh_module


def student_recipe(config: DistilOptions, recipe: Recipe) -> Recipe:
    """The recipe that trains the student: its own, or `recipe` with another model. It has the same
    metrics and splits as `recipe`.

    Raises RecipeError, and DanluError where the student's task is another.
    """
    whole = replace(recipe, raw=recipe.as_dict())
    if config.student is None:
        model = config.model
        assert model is not None  # the options ask for a student or a model
        changes = (
            {"model": model}
            if isinstance(model, str) or "name" in model
            else {f"model.{key}": option for key, option in model.items()}
        )
        return recipes.with_changes(whole, registry, changes)
    student = recipes.read(config.student, registry)
    if (student.task.name, student.data.targets) != (recipe.task.name, recipe.data.targets):
        raise DanluError(
            f"the student's recipe is of {student.task.name} of "
            f"{', '.join(student.data.targets) or 'nothing'}, and the artifact of "
            f"{recipe.task.name} of {', '.join(recipe.data.targets) or 'nothing'}.",
            where=config.student,
            hint="give both the same task and target",
        )
    data = {
        **student.as_dict()["data"],
        **{
            key: whole.raw["data"][key]
            for key in ("source", "split", "duplicates", "missing_target", "missing_rows")
        },
    }
    kept = {"data": data, "metrics": whole.raw["metrics"], "compress": None, "tune": None}
    kept["train.seed"] = recipe.train.seed  # it decides which rows are held out
    return recipes.with_changes(student, registry, kept)


def load_teacher(config: DistilOptions, contents: Contents) -> tuple[Contents, str]:
    """(the teacher, its name for messages): the artifact itself, another artifact, or a Hugging
    Face checkpoint. Raises DanluError where it cannot teach this student."""
    if config.teacher is None:
        return contents, "the artifact itself"
    path = Path(config.teacher)
    if (path / "config.json").is_file() and not (path / "artifact.json").is_file():
        return _checkpoint(path, contents), config.teacher
    teacher = load(path)
    if _signature(teacher) != _signature(contents):
        raise DanluError(
            f"this teacher has another task or target column: {teacher.task.describe()}.",
            where=config.teacher,
            hint=f"name a teacher for {contents.recipe.task.name} of the same columns",
        )
    if not learns_from_texts_only(config) and _classes(teacher) != _classes(contents):
        raise DanluError(
            "this teacher has other classes than the artifact.",
            where=config.teacher,
            hint="name a teacher of the same task and classes",
        )
    return teacher, config.teacher


def learns_from_texts_only(config: DistilOptions) -> bool:
    """Whether the student learns from the teacher's texts alone; their vocabularies may then
    differ."""
    return config.sequences and not (config.weight or config.hidden or config.attention)


def _signature(contents: Contents) -> tuple[object, ...]:
    """Task, target columns and text column: equal where one model can teach the other."""
    task = contents.task
    return (
        contents.recipe.task.name,
        contents.recipe.data.targets,
        task.answer_column if isinstance(task, RewritesTexts) else None,
    )


def _classes(contents: Contents) -> tuple[object, ...]:
    return tuple(contents.task.output.names), contents.task.output.size


def _checkpoint(path: Path, contents: Contents) -> Contents:
    """A Hugging Face checkpoint as a model of the artifact's rows. It must have a head for the
    task: randomly initialized weights have nothing to teach."""
    raw = {**contents.recipe.as_dict(), "model": {"name": "pretrained", "path": str(path)}}
    recipe = recipes.with_changes(replace(contents.recipe, raw=raw), registry, {"compress": None})
    data = prepare(recipe)
    module, start, _ = fresh_module(recipe, data, placement_for(Train(device="cpu")))
    if start is None or start.fresh:
        fresh = ", ".join(start.fresh[:3]) if start is not None else "all of it"
        raise ArtifactError(
            f"this checkpoint has no head for this task ({fresh} would be initialized at random), "
            "so it has nothing to teach.",
            where=str(path),
            hint="train it first (model: {name: pretrained, path: ...}), and name that artifact as "
            "the teacher",
        )
    return Contents(
        recipe, module.eval(), data.task, data.preprocessor, {}, {}, data.examples.input_specs
    )


class DistillationSetup:
    """wrap_loss(loss, student, data) -> the student's loss with the teacher in it
    (danlu.training.setup.TrainingOverrides).

    rows      the artifact's rows, as a teacher with another preprocessing reads them
    student   the student's recipe
    notes     gets sentences for the user
    """

    def __init__(
        self,
        config: DistilOptions,
        teacher: Contents,
        rows: ArtifactRows,
        student: Recipe,
        notes: list[str],
    ) -> None:
        self.config, self.teacher, self.rows, self.student, self.notes = (
            config,
            teacher,
            rows,
            student,
            notes,
        )
        if registry.task_facts(teacher.recipe.task.name).step != "supervised":
            raise PartError(
                f"distil compares predictions, and {teacher.recipe.task.name} has none to compare."
            )

    def __call__(self, loss: Loss, student: nn.Module, data: Dataset) -> Loss:
        config = self.config
        if learns_from_texts_only(config):
            return loss
        pairs: list[LayerPair] = [
            HiddenStatePair(*layers, config.hidden_weight)
            for layers in self._pairs(student, config.hidden, "hidden", nn.Module)
        ]
        pairs += [
            AttentionPair(*layers, config.attention_weight)
            for layers in self._pairs(student, config.attention, "attention", Attention)
        ]
        members = members_of(student)
        return DistillationLoss(
            loss,
            self.teacher.module,
            self._teacher_inputs(data),
            self._kinds(),
            temperature=config.temperature,
            weight=config.weight,
            members=members,
            pairs=pairs,
        )

    def _kinds(self) -> tuple[tuple[str, int], ...]:
        """(kind of soft loss, number of output columns) of each part of the output."""
        output = self.teacher.task.output
        if output.means:
            return output.means
        asks = registry.task_facts(self.teacher.recipe.task.name).asks
        kinds = {"tokens": "classes", "spelling": "classes"}
        kind = kinds.get(asks, asks if asks in ("classes", "labels") else "numbers")
        return ((kind, output.size),)

    def _teacher_inputs(self, data: Dataset) -> Callable[[Batch], Mapping[str, Tensor]]:
        """batch -> the teacher's inputs: those of the student where both are prepared alike, else
        the same rows as the teacher's preprocessing prepares them."""
        if self._alike(data):
            return lambda batch: batch.inputs
        if isinstance(self.teacher.task, CutsExamples):
            raise PartError(
                "the teacher's inputs are prepared in another way than the student's, so their "
                "examples would not be the same.",
                hint="give the student the teacher's data section and tokenizer",
            )
        _, rows, _ = self.rows.prepared(self.teacher)
        self.notes.append(
            "the teacher reads rows as its own preprocessing prepares them, without the student's "
            "augmentations."
        )
        return lambda batch: _inputs(rows, batch)

    def _alike(self, data: Dataset) -> bool:
        """Whether both models read the same inputs: the same data section and the same fitted
        preprocessing."""
        own_data, teachers_data = (
            recipe.as_dict()["data"] | {"augmentations": []}
            for recipe in (self.student, self.teacher.recipe)
        )
        adapts = any(
            facts.adapt is not None or facts.settled is not None
            for recipe in (self.student, self.teacher.recipe)
            for facts in (registry.model_facts(recipe.model.name),)
        )
        received = dict(self.teacher.described or self.teacher.preprocessor.inputs)
        return (
            own_data == teachers_data
            and not adapts
            and dict(data.examples.input_specs) == received
            and _fitted(data) == _fitted(self.teacher)
        )

    def _pairs(
        self, student: nn.Module, names: Mapping[str, str], what: str, kind: type[nn.Module]
    ) -> list[tuple[nn.Module, nn.Module]]:
        """(layer of the teacher, layer of the student) for each pair of names."""
        where = f"distil.{what}"
        return [
            (
                self._layer(self.teacher.module, of_teacher, where, kind),
                self._layer(student, of_student, where, kind),
            )
            for of_teacher, of_student in names.items()
        ]

    @staticmethod
    def _layer(module: nn.Module, name: str, where: str, kind: type[nn.Module]) -> nn.Module:
        layers = {
            layer_name: layer
            for layer_name, layer in module.named_modules()
            if layer_name and isinstance(layer, kind)
        }
        return layers[matching_names(layers, name, where)[0]]


def _fitted(of: Dataset | Contents) -> tuple[object, ...]:
    """What inputs are prepared with: the fitted column pipelines, and the task's own tokenizer."""
    return [chain.fingerprint for chain in of.preprocessor.pipelines], of.task.state().get(
        "tokenizer"
    )


def _inputs(rows: Rows, batch: Batch) -> Mapping[str, Tensor]:
    """The same rows as the batch, on its device."""
    inputs = rows.gather(batch.rows.to(rows.placement.device)).inputs
    return {name: tensor.to(batch.rows.device) for name, tensor in inputs.items()}
