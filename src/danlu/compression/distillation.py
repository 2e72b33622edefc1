"""Who learns from whom: the recipe of a student, the teacher, and the loss between them (compressors/distil.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from danlu import recipe as recipes
from danlu import registry
from danlu.artifact.artifact import Contents
from danlu.artifact.prediction import load
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
from danlu.parts.tasks._base import CutsExamples, RewritesTexts
from danlu.recipe import Recipe, Train
from danlu.system.placement import placement_for
from danlu.terms import Batch
from danlu.training.setup import fresh_module


def student_recipe(config: Any, recipe: Recipe) -> Recipe:
    """The recipe that the student is trained by: its own, or this one with another model. It is
    scored as this one is, on the same rows.

    Raises RecipeError, or DanluError where the task is another.
    """
    whole = replace(recipe, raw=recipe.as_dict())
    if config.student is None:
        model = config.model
        changes = (
            {"model": model}
            if isinstance(model, str) or "name" in model
            else {f"model.{key}": option for key, option in model.items()}
        )
        return recipes.with_changes(whole, registry, changes)
    student = recipes.read(config.student, registry)
    if (student.task.name, student.data.targets) != (recipe.task.name, recipe.data.targets):
        raise DanluError(
            f"the student's recipe is of {student.task.name} of {', '.join(student.data.targets) or 'nothing'}, and the artifact of "
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
    kept["train.seed"] = recipe.train.seed  # it says which rows are held out
    return recipes.with_changes(student, registry, kept)


def load_teacher(config: Any, contents: Contents) -> tuple[Contents, str]:
    """(the teacher, what it is called): the artifact itself, another one, or a checkpoint's folder.
    Raises DanluError where it cannot teach."""
    if config.teacher is None:
        return contents, "the artifact itself"
    path = Path(config.teacher)
    if (path / "config.json").is_file() and not (path / "artifact.json").is_file():
        return _checkpoint(path, contents), config.teacher
    teacher = load(path)
    if _signature(teacher) != _signature(contents):
        raise DanluError(
            f"this teacher is of another task or column: {teacher.task.describe()}.",
            where=config.teacher,
            hint=f"take one of {contents.recipe.task.name} of the same columns",
        )
    if not learns_from_texts_only(config) and _classes(teacher) != _classes(contents):
        raise DanluError(
            "this teacher tells other things apart than the artifact does.",
            where=config.teacher,
            hint="take one of the same task and classes",
        )
    return teacher, config.teacher


def learns_from_texts_only(config: Any) -> bool:
    """Whether nothing of the teacher is compared but what it writes: its vocabulary may then be
    another."""
    return config.sequences and not (config.weight or config.hidden or config.attention)


def _signature(contents: Contents) -> tuple[Any, ...]:
    task = contents.task
    return (
        contents.recipe.task.name,
        contents.recipe.data.targets,
        task.answer_column if isinstance(task, RewritesTexts) else None,
    )


def _classes(contents: Contents) -> tuple[Any, ...]:
    return tuple(contents.task.output.names), contents.task.output.size


def _checkpoint(path: Path, contents: Contents) -> Contents:
    """A Hugging Face checkpoint over the artifact's rows. Its head must be of the task: what is
    drawn anew teaches nothing."""
    raw = {**contents.recipe.as_dict(), "model": {"name": "pretrained", "path": str(path)}}
    recipe = recipes.with_changes(replace(contents.recipe, raw=raw), registry, {"compress": None})
    data = prepare(recipe)
    module, start, _ = fresh_module(recipe, data, placement_for(Train(device="cpu")))
    if start is None or start.fresh:
        fresh = ", ".join(start.fresh[:3]) if start is not None else "all of it"
        raise ArtifactError(
            f"this checkpoint has no head of this task ({fresh} would be drawn anew), so it has nothing to teach.",
            where=str(path),
            hint="train it first (model: {name: pretrained, path: ...}), and name that artifact as teacher",
        )
    return Contents(
        recipe, module.eval(), data.task, data.preprocessor, {}, {}, data.examples.input_specs
    )


class DistillationSetup:
    """learns(loss, student, data): the student's loss, drawn towards the teacher."""

    def __init__(
        self, config: Any, teacher: Contents, rows: ArtifactRows, student: Recipe, told: list[str]
    ) -> None:
        self.config, self.teacher, self.rows, self.student, self.notes = (
            config,
            teacher,
            rows,
            student,
            told,
        )
        if registry.task_facts(teacher.recipe.task.name).step != "supervised":
            raise PartError(
                f"distil teaches by answers, and {teacher.recipe.task.name} has none that could be compared."
            )

    def __call__(self, loss: Any, student: nn.Module, data: Dataset) -> Any:
        config = self.config
        if learns_from_texts_only(config):
            return loss
        pairs: list[LayerPair] = [
            HiddenStatePair(*layers, config.hidden_weight)
            for layers in self._pairs(student, config.hidden, "hidden", None)
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
        """What the columns of the output say, as the soft loss of each wants it."""
        output = self.teacher.task.output
        if output.means:
            return output.means
        asks = registry.task_facts(self.teacher.recipe.task.name).asks
        return (
            (
                "classes"
                if asks in ("classes", "tokens", "spelling")
                else "labels"
                if asks == "labels"
                else "numbers",
                output.size,
            ),
        )

    def _teacher_inputs(self, data: Dataset) -> Any:
        """batch -> what the teacher reads: the student's own inputs where both are prepared alike,
        else the same rows in its own form."""
        if self._alike(data):
            return lambda batch: batch.inputs
        if isinstance(self.teacher.task, CutsExamples):
            raise PartError(
                "the teacher reads this task's examples in another form than the student, and they are cut by it.",
                hint="give the student the teacher's data section and tokenizer",
            )
        _, rows, _ = self.rows.prepared(self.teacher)
        self.notes.append(
            "the teacher reads rows in its own form, without the augmentations that the student sees."
        )
        return lambda batch: _inputs(rows, batch)

    def _alike(self, data: Dataset) -> bool:
        """Whether inputs mean the same to both: the same data section, and the same learnt from its
        training rows."""
        mine, theirs = (
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
            mine == theirs
            and not adapts
            and dict(data.examples.input_specs) == received
            and _fitted(data) == _fitted(self.teacher)
        )

    def _pairs(
        self, student: nn.Module, names: Mapping[str, str], what: str, kind: Any
    ) -> list[tuple[nn.Module, nn.Module]]:
        layer_pairs = []
        for there, here in names.items():
            layers = [
                self._layer(self.teacher.module, there, f"distil.{what}", kind),
                self._layer(student, here, f"distil.{what}", kind),
            ]
            layer_pairs.append((layers[0], layers[1]))
        return layer_pairs

    @staticmethod
    def _layer(module: nn.Module, name: str, where: str, kind: Any) -> nn.Module:
        layers = {
            layer_name: layer
            for layer_name, layer in module.named_modules()
            if layer_name and (kind is None or isinstance(layer, kind))
        }
        return layers[matching_names(layers, name, where)[0]]


def _fitted(of: Dataset | Contents) -> tuple[Any, ...]:
    """What inputs are made with: the fitted chains, and the vocabulary that a task has of its
    own."""
    return [chain.fingerprint for chain in of.preprocessor.pipelines], of.task.state().get(
        "tokenizer"
    )


def _inputs(rows: Rows, batch: Batch) -> Mapping[str, Tensor]:
    inputs = rows.gather(batch.rows.to(rows.placement.device)).inputs
    return {name: tensor.to(batch.rows.device) for name, tensor in inputs.items()}
