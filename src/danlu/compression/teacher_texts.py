"""A teacher's texts in place of the texts of the training rows: sequence-level distillation.

The data's text is one of many ways to say a thing, and a small model spreads itself over all of
them. The teacher's text is nearly its most likely one, and easier to learn. Validation and test
rows keep the data's texts, and so do the vocabularies.

The teacher generates as in prediction (beam search by its own options, or greedily), rows of
similar length together. Its texts are kept in a folder until training is done, so that a killed
compression resumes where it was. Where the teacher's text is empty or was cut off at the most
tokens, the row keeps the data's text: it would teach nothing about how a text ends.
Source: Kim and Rush, 2016, arXiv:1606.07947.
"""

# torch leaves the types of some of its methods open.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from danlu.artifact.artifact import Contents
from danlu.data.batches import Rows, rows_at_once
from danlu.data.dataset import Dataset, make_examples
from danlu.data.gather import RaggedLoader
from danlu.errors import PartError
from danlu.parts.tasks._base import RewritesTexts
from danlu.parts.tasks._targets import as_text
from danlu.recipe import Train
from danlu.system.atomic_files import read_checked_json, replace_file, sha256, with_checksum
from danlu.system.own_folder import make_subfolder
from danlu.system.placement import placement_for
from danlu.terms import Column, InputSpec, Table

KEPT = 512  # texts per file
_TOGETHER = 64  # rows generated together

Text = str | None


class ArtifactRows(Protocol):
    """The table that an artifact was trained on, and its rows as prepared by the preprocessing of
    another artifact (danlu.compression.compress.OwnRows)."""

    table: Table

    def prepared(
        self, contents: Contents
    ) -> tuple[Mapping[str, InputSpec], Rows, dict[str, np.ndarray]]: ...


class TeacherTexts:
    """replace_data(data) -> the data with the teacher's texts in its training rows
    (danlu.training.setup.TrainingOverrides).

    folder   where texts are kept, in a folder named by `digest` (a hash of the teacher) and the
             rows
    train    the device that the teacher runs on
    say      called with a line of progress
    notes    gets a sentence about the result
    """

    def __init__(
        self,
        teacher: Contents,
        rows: ArtifactRows,
        folder: Path,
        digest: str,
        train: Train,
        say: Callable[[str], None],
        notes: list[str],
    ) -> None:
        task = teacher.task
        self.teacher, self.rows, self.folder, self.digest = teacher, rows, folder, digest
        self.train, self.say, self.notes = train, say, notes
        if not isinstance(task, RewritesTexts):
            raise PartError(
                "distil.sequences learns from what a teacher writes in answer to a row, and "
                f"{teacher.recipe.task.name} has no row that is answered with a text.",
                hint="it is for sequence_to_sequence and instruction_tuning; leave it out, and the "
                "student learns from logits (weight)",
            )
        self.task = task

    def __call__(self, data: Dataset) -> Dataset:
        """The Dataset with other examples; raises DataError where the column holds no text."""
        task, train = data.task, data.splits["train"]
        assert isinstance(task, RewritesTexts)  # as the teacher's task, which is the same
        texts = self._texts(train, data.digest)
        which = np.array([text is not None for text in texts], dtype=bool)
        column = replace_texts(
            as_text(data.table.columns[task.answer_column]),
            train[which],
            [text for text in texts if text is not None],
        )
        table = replace(data.table, columns={**data.table.columns, task.answer_column: column})
        targets = {name: table.columns[name] for name in task.target_names}
        examples = make_examples(task, data.preprocessor, table, targets, data.splits)
        sentence = f"{which.sum():,} of {len(train):,} training rows hold what the teacher writes"
        rest = (
            f"; {(~which).sum():,} keep their own text, since the teacher's is empty or has no end"
            if not which.all()
            else ""
        )
        self.notes.append(f"{sentence}{rest}.")
        return replace(data, examples=examples)

    def _texts(self, train: np.ndarray, digest: str) -> list[Text]:
        """What the teacher writes for each of the rows `train` of a table: those kept in the
        folder, and the rest now."""
        _, rows, _ = self.rows.prepared(self.teacher)
        order = np.argsort(_lengths(rows)[train], kind="stable")
        pieces = np.split(order, range(KEPT, len(order), KEPT))
        folder = (
            self.folder
            / f"texts-{sha256(f'{self.digest}{digest}'.encode() + train.tobytes())[:16]}"
        )
        make_subfolder(folder)
        texts_by_row: list[Text] = [None] * len(train)
        for number, piece in enumerate(pieces):
            path = folder / f"{number:06}.json"
            texts = _kept(path, len(piece))
            if texts is None:
                texts = self._written(rows, train[piece])
                replace_file(path, with_checksum({"texts": texts}))
                self.say(
                    f"the teacher has written {min((number + 1) * KEPT, len(train)):,} of "
                    f"{len(train):,} texts"
                )
            for index, text in zip(piece.tolist(), texts, strict=True):
                texts_by_row[index] = text
        return texts_by_row

    def _written(self, rows: Rows, which: np.ndarray) -> list[Text]:
        """What the teacher writes for the rows `which`."""
        teacher, device = self.teacher, placement_for(self.train).device
        module = teacher.module.to(device).eval()
        column = self.rows.table.columns[self.task.answer_column]
        texts: list[Text] = []
        with torch.inference_mode():
            for piece in torch.from_numpy(which).split(
                min(rows_at_once(rows, teacher.task.output), _TOGETHER)
            ):
                batch = rows.gather(piece.to(rows.placement.device))
                batch.inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
                texts += self.task.rewrite(module, batch, column)
        return texts


def replace_texts(column: Column, rows: np.ndarray, texts: list[str]) -> Column:
    """A text column with other texts in `rows`, int64 (M,)."""
    assert column.offsets is not None
    pieces = [text.encode() for text in texts]
    new = len(column.values) + np.cumsum([0, *map(len, pieces)]).astype(np.int64)
    # the old rows, one that reaches from the last of them to the end of the letters, the new rows
    offsets = np.concatenate([np.asarray(column.offsets, dtype=np.int64), new])
    values = np.concatenate([column.values, np.frombuffer(b"".join(pieces), dtype=np.uint8)])
    missing = (
        None
        if column.missing is None
        else np.append(column.missing, np.zeros(len(texts) + 1, dtype=bool))
    )
    order = np.arange(len(column))
    order[rows] = len(column) + 1 + np.arange(len(texts))
    return replace(column, values=values, offsets=offsets, missing=missing).take(order)


def _lengths(rows: Rows) -> np.ndarray:
    """How long each row is, int64 (N,): of all its inputs together."""
    return sum(
        (
            rows_of_input.sizes.cpu().numpy()
            for rows_of_input in rows.inputs.values()
            if isinstance(rows_of_input, RaggedLoader)
        ),
        np.zeros(len(rows), np.int64),
    )


def _kept(path: Path, count: int) -> list[Text] | None:
    """The texts of a file, None where there is none that is whole."""
    try:
        texts = read_checked_json(path)["texts"]
    except (OSError, ValueError, KeyError):
        return None
    return texts if len(texts) == count else None
