"""Knowledge distillation: a smaller model of the same task learns from this or another teacher.

The student has a recipe of its own (`student`), or this recipe with another model (`model`: changed
options, or another family by name). It is trained from random weights on the same rows by the
ordinary loop. Its loss compares its outputs with the teacher's and, where layers are named, its
hidden states and attention. The teacher is the artifact that is compressed, another artifact, or a
Hugging Face checkpoint with a head for this task. It may prepare its inputs in another way (another
tokenizer), as long as the rows are the same.

A student that generates texts (sequence_to_sequence, instruction_tuning) can learn from texts that
the teacher generates (`sequences`), beside its logits or, with weight 0, alone; their vocabularies
may then differ. language_modeling and speech_recognition have no such texts: there the logits hold
everything. See danlu/compression/distillation_loss.py for the loss and
danlu/compression/teacher_texts.py for the texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from danlu.recipe import Options

if TYPE_CHECKING:
    from torch import nn

    from danlu.compression.compressors._base import CompressorState, Subject

TRAINS = True
NEEDS_STUDENT = True


class Config(Options):
    """Who learns, from whom, and how closely."""

    student: str | None = Field(
        None,
        description="A recipe file of the same task: the student, its training, its augmentations.",
    )
    model: str | dict[str, Any] | None = Field(
        None,
        description="The student's model: another family by name, or the options that differ from "
        "this one's, as {width: 8}.",
    )
    teacher: str | None = Field(
        None,
        description="An artifact (or run), or the folder of a Hugging Face checkpoint; null: the "
        "artifact itself.",
    )
    epochs: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="Passes over the training rows; null: as the student's recipe says.",
    )
    learning_rate: float = Field(
        1.0, gt=0, le=1000, description="Share of the learning rate of the student's recipe."
    )
    temperature: float = Field(
        4.0, gt=0, le=1000, description="What logits are divided by before they are compared."
    )
    weight: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Share of the teacher in the loss; the data's own targets have the rest.",
    )
    sequences: bool = Field(
        False,
        description="Train on the text that the teacher generates for each training row (beam "
        "search, by its own options) in place of the data's text; validation and test keep "
        "theirs. With weight 0 nothing else of the teacher is learnt.",
    )
    hidden: dict[str, str] = Field(
        default={},
        description="Layers whose outputs are to be alike: name in the teacher, name in the "
        "student (text, in quotes).",
    )
    hidden_weight: float = Field(1.0, ge=0, le=1e6, description="Weight of each pair of hidden.")
    attention: dict[str, str] = Field(
        default={},
        description="Attention layers whose probabilities are to be alike: name in the teacher, "
        "name in the student.",
    )
    attention_weight: float = Field(
        1.0, ge=0, le=1e6, description="Weight of each pair of attention."
    )

    @model_validator(mode="after")
    def _one_student(self) -> Config:
        if (self.student is None) == (self.model is None):
            raise ValueError(
                "the student is named by one of student (a recipe file) and model (what differs)"
            )
        return self


def compress(config: Config, subject: Subject) -> CompressorState:
    """Train the student; subject.contents and subject.module are then its own. Raises DanluError
    where it cannot learn from this teacher."""
    return subject.distil(config)


def replay(config: Config, state: CompressorState, module: nn.Module) -> None:
    """Nothing: the artifact's recipe is the student's."""
